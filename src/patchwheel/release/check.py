"""Release wheels and the files beside them, checked offline against each other.

All that must follow from a wheel's record is made again and compared; each contradiction is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchwheel.kit.digest import file_sha256
from patchwheel.kit.errors import CheckError, InputError
from patchwheel.release.check_wheel import differences, wheel_problems
from patchwheel.release.files import (
    PYLOCK,
    SIMPLE,
    SUMS,
    LabelledWheel,
    parse_sums,
    read_labelled,
    sidecars,
    simple_index,
)
from patchwheel.wheelfile.read import check_record
from patchwheel.wheelfile.record import STATEMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCheck:
    """The wheels that could be read, and everything that is wrong with what was checked."""

    wheels: tuple[LabelledWheel, ...]
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        rows = [
            {"file": w.path.name, "sha256": w.sha256, "made": w.record.to_json()}
            for w in self.wheels
        ]
        return {"wheels": rows, "problems": list(self.problems)}

    def check(self, where: Path) -> None:
        """Raise CheckError when there is a problem."""
        if self.problems:
            raise CheckError(
                f"{len(self.problems)} things are not what they must be:"
                + "".join(f"\n  - {problem}" for problem in self.problems),
                where=where,
                hint="do not publish or install these; build them again, "
                "or fetch them again from where they were published",
            )


def check_release(path: Path, *, pages: bool = True) -> ReleaseCheck:
    """Check a wheel, or all that is in a folder; nothing is fetched.

    Without `pages` a simple index in the folder is not checked.
    """
    folder = path if path.is_dir() else path.parent
    paths = sorted(path.rglob("*.whl")) if path.is_dir() else [path]
    if not paths:
        raise InputError(
            "there is no wheel in it", where=path, expected="a wheel, or a folder of them"
        )
    wheels: list[LabelledWheel] = []
    problems: list[str] = []
    for file in paths:
        name = file.relative_to(folder).as_posix()
        try:
            wheel = read_labelled(file)
            check_record(wheel.wheel)
            problems += [f"{name}: {problem}" for problem in wheel_problems(wheel)]
            wheels.append(wheel)
        except InputError as err:
            inside = str(err.where).partition(": ")[2]
            problems.append(f"{name}: {inside}{inside and ' '}{err.message}")
    if not path.is_dir():
        problems += _beside(folder, wheels)
    # Wheels of several builds that were gathered for an index get sums and lock with the index.
    elif pages or any(path.rglob(SUMS)):
        problems += _folder_problems(folder, wheels, pages=pages)
    return ReleaseCheck(wheels=tuple(wheels), problems=tuple(problems))


def _folder_problems(
    folder: Path, wheels: Sequence[LabelledWheel], *, pages: bool
) -> Iterator[str]:
    listed: set[Path] = set()
    for file in sorted(folder.rglob(SUMS)):
        for name, problem in _sums_problems(file, listed):
            yield f"{(file.parent / name).relative_to(folder)}: {problem}"
    for pattern in ("*.whl", f"*{STATEMENT}", PYLOCK):
        for file in sorted(folder.rglob(pattern)):
            if file not in listed:
                yield f"{file.relative_to(folder)}: is in no {SUMS}"
    yield from _sidecar_problems(folder, [w for w in wheels if w.is_release], pages=pages)


def _sidecar_problems(
    folder: Path, released: Sequence[LabelledWheel], *, pages: bool
) -> Iterator[str]:
    """Compare statements, locks and pages of the index with what follows from the wheels."""
    places = sorted({path.parent for path in folder.rglob(PYLOCK)})
    for wheel in released:
        if not any(wheel.path.is_relative_to(place) for place in places):
            yield f"{wheel.path.relative_to(folder)}: is in no {PYLOCK}"
    for place in places:
        inside = [w for w in released if w.path.is_relative_to(place)]
        expected = sidecars(place, inside)
        if pages and (place / SIMPLE).is_dir():
            expected |= simple_index(place, inside)
        for name, content in expected.items():
            file, shown = place / name, str((place / name).relative_to(folder))
            if file.is_file():
                yield from differences(shown, file.read_bytes(), content)
            else:
                yield f"{shown}: is missing"


def _beside(folder: Path, wheels: Sequence[LabelledWheel]) -> Iterator[str]:
    """Check a single wheel's statement and sums, where its folder has them."""
    for wheel in wheels:
        name = f"{wheel.path.name}{STATEMENT}"
        if wheel.is_release and (folder / name).is_file():
            expected = sidecars(folder, [wheel])[name]
            yield from differences(name, (folder / name).read_bytes(), expected)
        if (folder / SUMS).is_file():
            for listed, problem in _sums_problems(folder / SUMS, set()):
                if listed in {wheel.path.name, name}:
                    yield f"{listed}: {problem}"


def _sums_problems(file: Path, listed: set[Path]) -> Iterator[tuple[str, str]]:
    """Yield the names whose sum is wrong, and add every file that has a sum to `listed`."""
    try:
        rows = parse_sums(file.read_text("utf-8"))
    except ValueError as err:
        yield SUMS, f"cannot be read: {err}"
        return
    for name, sha256 in rows.items():
        path = file.parent / name
        listed.add(path)
        if not path.is_file():
            yield name, f"is in {SUMS}, and missing"
        elif file_sha256(path) != sha256:
            yield name, f"has another sha256 than {SUMS} says"
