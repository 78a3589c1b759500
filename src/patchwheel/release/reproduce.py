"""Is a compile reproducible? Done again by another patchwheel in other circumstances, and compared byte for byte."""

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
# Of the store only what is named by its content, and cost a download or another fork's compile, is used again.
SHARED = ("files", "git")
CIRCUMSTANCES = {
    "TZ": "Pacific/Kiritimati",
    "LC_ALL": "POSIX",
    "PYTHONHASHSEED": "4711",
}
VARIED = (
    *("folder", "home", "store", "time zone", "locale", "hash seed", "umask"),
    "clock",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """`varied` is what was otherwise, `differences` are files of the wheel with what differs in them."""

    fork: str
    wheel: str
    sha256: str
    varied: tuple[str, ...]
    differences: tuple[str, ...]
    kept: Path | None = None

    @property
    def summary(self) -> str:
        found = f"{len(self.differences)} files differ" if self.kept else "bit-identical"
        return (
            f"{self.fork}: {self.wheel}, built again with another {', '.join(self.varied)}: {found}"
        )

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


def check_reproducible(project: Project, fork: Fork) -> Rebuilt:
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
    return build_again(project, wheel, needs, options)


def build_again(
    project: Project,
    wheel: BuiltWheel,
    needs: Sequence[BuiltWheel],
    options: Sequence[str],
) -> Rebuilt:
    """Compile the wheel's fork under varied conditions and compare."""
    store = project.store
    log = store.log(wheel.fork, "rebuild")
    with store.scratch() as folder:
        copy, home, other = (folder / name for name in ("project", "home", "store"))
        Store(other).ensure()
        for path in (copy, home, other / "memo", other / "wheels", folder / "tmp"):
            path.mkdir(parents=True)
        project.copy_to(copy)
        for inside in Path.home().iterdir():
            (home / inside.name).symlink_to(inside)
        for name in SHARED:
            (other / name).symlink_to(store.root / name)
        shutil.copytree(store.root / "memo/source", other / "memo/source")
        for need in needs:
            shutil.copytree(need.path.parent, other / "wheels" / need.node_key)
        # Settings of patchwheel's own would count again; what reaches an index must.
        env = {k: v for k, v in os.environ.items() if not k.startswith("PATCHWHEEL_")}
        places = {"HOME": home, "PATCHWHEEL_STORE": other, "TMPDIR": folder / "tmp"}
        places[CLOCK] = _clock(folder, store)
        env |= {name: str(place) for name, place in places.items()} | CIRCUMSTANCES
        words = [sys.executable, "-m", "patchwheel", "build", wheel.fork]
        words += ["--from-source", "--manifest", project.manifest.path.name, *options]
        try:
            process.logged(words, cwd=copy, env=env, log=log, umask=UMASK)
        except process.CommandError as err:
            raise BuildError(
                f"{wheel.fork}: cannot be built in other circumstances",
                tail=err.tail,
                log=err.log,
            ) from err
        [again] = (copy / "dist").glob("*.whl")
        same = again.read_bytes() == wheel.path.read_bytes()
        kept = None if same else log.with_name(again.name)
        differences: list[str] = []
        if kept:
            shutil.copyfile(again, kept)
            differences = _differences(wheel.path, kept)
            _diffoscope(wheel.path, kept)
    return Rebuilt(
        fork=wheel.fork,
        wheel=wheel.path.name,
        sha256=wheel.sha256,
        varied=VARIED,
        differences=tuple(differences),
        kept=kept,
    )


def _clock(folder: Path, store: Store) -> Path:
    """Compile the library that shifts the clock of the programs that load it."""
    source, library = CLOCK_SOURCE, folder / "clock.so"
    gcc = toolchain.identify(["gcc"], store=store)["gcc"]
    words = [*gcc.words, "-O1", "-shared", "-fPIC", "-o"]
    process.capture([*words, library, source], cwd=folder, env=process.base_env())
    return library


def _differences(one: Path, two: Path) -> list[str]:
    first, second = _files(one), _files(two)
    found = []
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second:
            found.append(f"{name}: only in one")
        elif first[name] != second[name]:
            pairs = zip(("content", "mode", "date"), first[name], second[name], strict=True)
            what = [what for what, a, b in pairs if a != b]
            found.append(f"{name}: another {' and '.join(what)}")
    return found or ["the archive: another order or packing of the same files"]


def _files(path: Path) -> dict[str, tuple[object, ...]]:
    entries = read_wheel(path).entries
    return {name: (e.sha256, e.mode, e.date) for name, e in entries.items()}


def _diffoscope(one: Path, two: Path) -> None:
    """Let diffoscope, where it is installed, write beside the second how the two differ."""
    report = two.with_suffix(DIFFOSCOPE)
    report.unlink(missing_ok=True)
    if program := shutil.which("diffoscope"):
        words: list[str | Path] = [program, "--text", report, one, two]
        process.capture(words, cwd=two.parent, env=process.base_env(), ok=(0, 1))
