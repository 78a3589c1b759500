"""Makes a freshly built wheel independent of the machine that built it, and checks that it is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.build import INSIDE, cuda
from patchwheel.kit import BuildError, CheckError, process
from patchwheel.wheelfile import MAGIC, read_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from patchwheel.build import BuildSession


def relocate(wheel: Path, session: BuildSession) -> Path:
    """Bundle the libraries that other machines lack; give the lowest true platform tag.

    The libraries of CUDA and of its driver are left out. Returns the path of the new wheel.
    """
    if wheel.name.endswith("-any.whl"):
        return wheel
    build_dir = session.build_dir
    target = build_dir.work / "repaired"
    words: list[str | Path] = [session.python, "-m", "auditwheel", "repair"]
    words += [word for name in cuda.LIBRARIES for word in ("--exclude", name)]
    session.step(
        [*words, "--wheel-dir", build_dir.path_inside(target), build_dir.path_inside(wheel)]
    )
    found = sorted(target.glob("*.whl"))
    if len(found) != 1:
        raise BuildError(f"auditwheel made {len(found)} wheels of {wheel.name}", log=session.log)
    return found[0]


def check_relocated(wheel: Path, *, machine: Iterable[Path], patchelf: Path) -> None:
    """Raise CheckError when a library of the wheel names a place of this machine.

    Run paths must be relative to $ORIGIN, and no byte string may be one of the `machine`'s paths.
    /build, where every build takes place, is allowed in a message (an assertion's file name): it
    tells nothing of a machine. In a run path it is not.
    """
    needles = [str(path).encode() for path in machine if len(path.parts) > 1]
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "library.so"
        for entry in read_wheel(wheel).entries.values():
            content = entry.content()
            if not content.startswith(MAGIC):
                continue
            for needle in needles:
                if needle in content:
                    _refuse(wheel, entry.name, needle.decode())
            file.write_bytes(content)
            for place in _run_path(file, patchelf):
                if not place.startswith("$ORIGIN"):
                    _refuse(wheel, entry.name, f"the run path {place}")


def _run_path(file: Path, patchelf: Path) -> list[str]:
    out = process.capture(
        [patchelf, "--print-rpath", file], cwd=file.parent, env=process.base_env()
    )
    return [place for place in out.decode().strip().split(":") if place]


def _refuse(wheel: Path, name: str, what: str) -> None:
    raise CheckError(
        f"{name} holds {what}",
        where=wheel.name,
        expected=f"no path of this machine ({INSIDE} in messages excepted)",
        hint="find its origin; -ffile-prefix-map or an option of the project can remove it",
    )
