"""Compiles a release wheel again under other conditions, and compares the bytes."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.build import toolchain
from patchwheel.build.backend import CLOCK
from patchwheel.guest import CLOCK_SOURCE
from patchwheel.kit import process
from patchwheel.kit.errors import BuildError, CheckError, first
from patchwheel.kit.store import Store
from patchwheel.wheel.build import build_needs, build_wheel
from patchwheel.wheelfile.read import read_wheel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchwheel.manifest.model import Fork
    from patchwheel.project import Project
    from patchwheel.wheel.make import BuiltWheel

UMASK = 0o077
DIFFOSCOPE = ".diffoscope.txt"
# Of the store only what is named by its content, and what cost a download, is used again.
SHARED = ("files", "git")
ENVIRONMENT = {"TZ": "Pacific/Kiritimati", "LC_ALL": "POSIX", "PYTHONHASHSEED": "4711"}
CONDITIONS = ("folder", "home", "store", "time zone", "locale", "hash seed", "umask", "clock")


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildResult:
    """A release wheel compared with its second build.

    `differences` names each file that differs, and how; `kept` is the second wheel, if any does.
    """

    fork: str
    wheel: str
    sha256: str
    varied_conditions: tuple[str, ...]
    differences: tuple[str, ...]
    kept: Path | None = None

    @property
    def summary(self) -> str:
        result = f"{len(self.differences)} files differ" if self.kept else "bit-identical"
        conditions = ", ".join(self.varied_conditions)
        return f"{self.fork}: {self.wheel}, built again with another {conditions}: {result}"

    def check(self) -> None:
        """Raise CheckError when anything differs."""
        if self.kept:
            raise CheckError(
                f"{self.fork}: the same build made another wheel",
                where=self.kept,
                tail=first(self.differences),
                hint=f"see {self.kept.with_suffix(DIFFOSCOPE)}, which diffoscope wrote"
                if self.kept.with_suffix(DIFFOSCOPE).exists()
                else "compare the two wheels; diffoscope, where installed, shows how they differ",
            )


def check_reproducible(project: Project, fork: Fork) -> RebuildResult:
    """Compile a fork again with another store, home and project folder, and compare.

    The wheels that it compiles against are not made again. Raises BuildError when the fork cannot
    be built there at all.
    """
    made: dict[str, BuiltWheel] = {}
    wheel = build_wheel(project, fork, from_source=True, made=made)
    needs = build_needs(project, fork, from_source=True, made=made)
    options = ["--python", str(project.context.interpreter.path)]
    options += ["--sandbox", project.context.sandbox]
    options += ["--jobs", str(project.context.jobs)] if project.context.jobs else []
    options += ["--offline"] if project.context.offline else []
    options += ["--variant", fork.variant] if fork.variant else []
    return _rebuild(project, wheel, needs, options)


def _rebuild(
    project: Project, wheel: BuiltWheel, needs: Sequence[BuiltWheel], options: Sequence[str]
) -> RebuildResult:
    log = project.store.log(wheel.fork, "rebuild")
    with project.store.scratch() as folder:
        copy = folder / "project"
        copy.mkdir()
        project.copy_to(copy)
        env = _other_conditions(folder, project.store, needs)
        argv = [sys.executable, "-m", "patchwheel", "build", wheel.fork, "--from-source"]
        argv += ["--manifest", project.manifest.path.name, *options]
        try:
            process.logged(argv, cwd=copy, env=env, log=log, umask=UMASK)
        except process.CommandError as err:
            raise BuildError(
                f"{wheel.fork}: cannot be built under other conditions", tail=err.tail, log=err.log
            ) from err
        [again] = (copy / "dist").glob("*.whl")
        kept = None
        differences: list[str] = []
        if again.read_bytes() != wheel.path.read_bytes():
            kept = log.with_name(again.name)
            shutil.copyfile(again, kept)
            differences = _differences(wheel.path, kept)
            _diffoscope(wheel.path, kept)
    return RebuildResult(
        fork=wheel.fork,
        wheel=wheel.path.name,
        sha256=wheel.sha256,
        varied_conditions=CONDITIONS,
        differences=tuple(differences),
        kept=kept,
    )


def _other_conditions(folder: Path, store: Store, needs: Sequence[BuiltWheel]) -> dict[str, str]:
    """Make another home and store in the folder, and return the environment of a build."""
    home, other, tmp = (folder / name for name in ("home", "store", "tmp"))
    Store(other).ensure()
    for path in (home, other / "memo", other / "wheels", tmp):
        path.mkdir(parents=True)
    for inside in Path.home().iterdir():
        (home / inside.name).symlink_to(inside)
    for name in SHARED:
        (other / name).symlink_to(store.root / name)
    shutil.copytree(store.root / "memo/source", other / "memo/source")
    for need in needs:
        shutil.copytree(need.path.parent, other / "wheels" / need.node_key)
    # The settings of this run would make it the same build; what reaches an index is needed.
    env = {k: v for k, v in os.environ.items() if not k.startswith("PATCHWHEEL_")}
    places = {"HOME": home, "PATCHWHEEL_STORE": other, "TMPDIR": tmp, CLOCK: _clock(folder, store)}
    return env | {name: str(place) for name, place in places.items()} | ENVIRONMENT


def _clock(folder: Path, store: Store) -> Path:
    """Compile the library that shifts the clock of the programs that load it."""
    library = folder / "clock.so"
    gcc = toolchain.identify(["gcc"], store=store)["gcc"]
    argv: list[str | Path] = [*gcc.words, "-O1", "-shared", "-fPIC", "-o", library, CLOCK_SOURCE]
    process.capture(argv, cwd=folder, env=process.base_env())
    return library


def _differences(one: Path, two: Path) -> list[str]:
    """Name each file that only one wheel has, or that differs in content, mode or date."""
    first, second = _files(one), _files(two)
    rows = []
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second:
            rows.append(f"{name}: only in one")
        elif first[name] != second[name]:
            pairs = zip(("content", "mode", "date"), first[name], second[name], strict=True)
            differing = [what for what, a, b in pairs if a != b]
            rows.append(f"{name}: another {' and '.join(differing)}")
    return rows or ["the archive: another order or compression of the same files"]


def _files(path: Path) -> dict[str, tuple[object, ...]]:
    entries = read_wheel(path).entries
    return {name: (e.sha256, e.mode, e.date) for name, e in entries.items()}


def _diffoscope(one: Path, two: Path) -> None:
    """Let diffoscope, where it is installed, write beside the second wheel how the two differ."""
    report = two.with_suffix(DIFFOSCOPE)
    report.unlink(missing_ok=True)
    if program := shutil.which("diffoscope"):
        argv: list[str | Path] = [program, "--text", report, one, two]
        process.capture(argv, cwd=two.parent, env=process.base_env(), ok=(0, 1))
