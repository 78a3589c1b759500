"""What builds single modules with a setuptools project's own code."""

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from patchwheel.guest import module_steps

NAMES = ["pw.fast", "pw.slow"]


class Command:
    """A build_ext; `inplace` as setup.cfg may set it, for which paths are in the sources."""

    inplace, build_lib = True, "build/lib"

    def __init__(self) -> None:
        self.extensions = [SimpleNamespace(name=name) for name in NAMES]
        self.built: list[str] = []

    def ensure_finalized(self) -> None:
        pass

    def get_ext_fullpath(self, name: str) -> str:
        return os.path.join("src" if self.inplace else self.build_lib, f"{name}.so")  # noqa: PTH118

    def build_extension(self, extension: SimpleNamespace) -> None:
        self.built.append(extension.name)


class Restarted(BaseException):
    pass


def build(monkeypatch: pytest.MonkeyPatch, out: Path, *, counts: bool) -> tuple[Command, Any]:
    """Build pw.slow of a project that may count on both; return also its list of modules."""
    command = Command()

    class Distribution:
        def __init__(self) -> None:
            self.ext_modules = list(command.extensions)

        def get_command_obj(self, _name: str) -> Command:
            return command

        def run_command(self, name: str) -> None:
            assert name == "build_ext"
            if counts:
                _fast, _slow = self.ext_modules
            for extension in command.extensions:
                command.build_extension(extension)

    module = ModuleType("setuptools.dist")
    module.__dict__["Distribution"] = Distribution
    monkeypatch.setitem(sys.modules, "setuptools.dist", module)
    wanted, before = {"pw.slow.so"}, None
    backend = Distribution()
    module_steps.build_only(lambda: backend.run_command("bdist_wheel"), str(out), wanted, before)
    return command, backend


def test_only_what_is_wanted_is_in_the_lists_of_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, backend = build(monkeypatch, tmp_path, counts=False)
    assert [e.name for e in backend.ext_modules] == command.built == ["pw.slow"]


def test_a_project_that_counts_on_all_modules_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []

    def restart(_program: str, argv: list[str], env: dict[str, str]) -> None:
        assert argv == sys.orig_argv
        given.append(env)
        raise Restarted

    monkeypatch.setattr(os, "execve", restart)
    with pytest.raises(Restarted):
        build(monkeypatch, tmp_path, counts=True)
    # The second time it begins anew, with one variable more.
    [env] = given
    assert env.keys() - os.environ.keys() == {module_steps.WHOLE}
    monkeypatch.setenv(module_steps.WHOLE, "")
    command, backend = build(monkeypatch, tmp_path, counts=True)
    assert ([e.name for e in backend.ext_modules], command.built) == (NAMES, ["pw.slow"])
    # What fails then is the project's fault.
    del backend.ext_modules[0]
    with pytest.raises(ValueError, match="not enough values"):
        backend.run_command("bdist_wheel")
