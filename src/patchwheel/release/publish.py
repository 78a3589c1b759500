"""Folders of release wheels: completed, indexed, gathered from CI's release cells, and tried.

A staged release holds what is published in `release`, the index of it and of the releases before in
`site`, and in `installed.json` the requirements that are installed from the index to try it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from patchwheel import kit
from patchwheel.release import files
from patchwheel.release.check import ReleaseCheck, check_release
from patchwheel.wheel import BuiltWheel, describe_patches, published_before
from patchwheel.wheelfile import metadata, read_wheel, sbom

INSTALLED = "installed.json"
HINT = "nothing is published; correct it, and run the cell again"
# Runs in an environment that holds nothing but the wheels and what they require.
IMPORTS = """
import importlib, sys
from importlib.metadata import distribution
for name in sys.argv[1:]:
    tops = {f.parts[0] for f in distribution(name).files if f.parts[1:] == ("__init__.py",)}
    for top in sorted(tops):
        importlib.import_module(top)
"""


def complete_release(folder: Path, store: kit.Store, made: Sequence[BuiltWheel] = ()) -> None:
    """Write what belongs beside the release wheels of a folder; grafts in it are left out.

    Of the wheels `made`, it says what the series says now, not what it said when they were made.
    Raises CheckError for a wheel that is not the one that was built.
    """
    # The version of a graft goes on after the digits.
    paths = sorted(folder.rglob("*+*.h????????-*.whl"))
    wheels = [read_wheel(path) for path in paths if not metadata.has_variant_label(path.name)]
    for wheel in wheels:
        if (built := published_before(store, wheel.path)) not in {None, wheel.sha256}:
            problem = f"{wheel.path.name} is not the wheel that was built"
            hint = "remove it, and build the release again"
            raise kit.CheckError(problem, where=folder, expected=f"sha256 {built}", hint=hint)
    series = {wheel.path.name: describe_patches(wheel.plan) for wheel in made}
    for wheel in [wheel for wheel in wheels if wheel.path.name in series]:
        now, beside = series[wheel.path.name], files.beside(wheel.path, metadata.BESIDE)
        beside.unlink(missing_ok=True)
        if now != wheel.record.patches:
            document = sbom.make_sbom(wheel.record, wheel.project, now)
            _write(folder, {beside.relative_to(folder).as_posix(): document})
    # Where no patch fixes anything now, what was said before is not true.
    (folder / files.VEX).unlink(missing_ok=True)
    _write(folder, files.sidecars(folder, [wheel for wheel in wheels if wheel.record.is_release]))


def make_index(folder: Path, *, grafts: bool = False) -> list[str]:
    """Write a simple index over the wheels of a folder and return the projects in it.

    It is one of release wheels, or of `grafts` for a team. Nothing is written unless all that is in
    the folder is true and of that kind, and no file name has another sha256 elsewhere in the folder
    or in the index that was there before.
    """
    checked = check_release(folder, pages=False)
    problems = list(checked.problems)
    known = dict(_indexed(folder))
    why = "is a graft; only compiled wheels are published (`patchwheel build --release`)"
    if grafts:
        why = "is a release wheel; an index of grafts is not public, and takes no others"
    for wheel in checked.wheels:
        name = wheel.path.name
        if wheel.record.is_release == grafts:
            problems.append(f"{name}: {why}")
        # An installer that has the hash of a file refuses another file of its name.
        if (before := known.setdefault(name, wheel.sha256)) != wheel.sha256:
            problems.append(
                f"{name}: another file of this name, with sha256 {before}, "
                "is in the folder or was in its index"
            )
    ReleaseCheck(wheels=(), problems=tuple(problems)).check(folder)
    contents = files.simple_index(folder, checked.wheels, grafts=grafts)
    _write(folder, contents if grafts else files.sidecars(folder, checked.wheels) | contents)
    return sorted({wheel.project for wheel in checked.wheels})


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files below a folder; the signature of other sums is removed."""
    with kit.exclusive_lock(folder):
        old = files.content(folder / files.SUMS)
        if old is not None and contents.get(files.SUMS, old) != old:
            (folder / files.SIGNATURE).unlink(missing_ok=True)
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            kit.write_atomically(folder / name, content, alone=True)


def _indexed(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and sha256 of the files in the index that is in the folder."""
    for page in sorted((folder / files.SIMPLE).glob("*/index.json")):
        try:
            rows = kit.parsed(files.content(page) or b"")["files"]
            yield from ((row["filename"], row["hashes"]["sha256"]) for row in rows)
        except (ValueError, KeyError, TypeError) as err:
            hint = f"remove {files.SIMPLE}; it is made again"
            raise kit.InputError(f"is no page of an index: {err!r}", where=page, hint=hint) from err


def stage_release(
    source: Path,
    staged: Path,
    expected: Mapping[str, tuple[str, str]],
    *,
    earlier: Path | None = None,
) -> int:
    """Write `staged` from the wheels and reports below `source`, and return the number of wheels.

    `expected` has the fork and the Python of each release cell, `earlier` the wheels of earlier
    releases. Raises CheckError when a wheel is missing, unexpected or not the one that its cell
    reported; then there is no staged folder, nor the one from before.
    """
    staged.parent.mkdir(exist_ok=True)
    if staged.is_symlink() or (staged.exists() and not _is_staged(staged)):
        hint = "name another folder, or move it away"
        raise kit.MachineError("is no folder that `release stage` made", where=staged, hint=hint)
    kit.rmtree(staged)
    wheels = _reported_wheels(source, expected)
    installed: dict[str, dict[str, str]] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(kit.exclusive_lock(staged.parent))
        # Its name is always the same: what one left that was killed is removed.
        folder = kit.new_folder(staged)
        stack.callback(kit.rmtree, folder)
        release, site = folder / "release", folder / "site"
        for cell, (fork, python) in expected.items():
            _add(wheels[cell], release)
            distribution, version = wheels[cell].name.split("-")[:2]
            # The variants of a fork own the same files, so only the first is installed.
            installed.setdefault(python, {}).setdefault(fork, f"{distribution}=={version}")
        for origin in filter(None, (earlier, release)):
            for file in sorted(origin.glob("*.whl")):
                _add(file, site)
        make_index(release)
        make_index(site)
        (folder / INSTALLED).write_text(json.dumps(installed, indent=1))
        kit.sync(folder)
        # At the end: a folder that is there is complete.
        folder.rename(staged)
    return len(wheels)


def _is_staged(folder: Path) -> bool:
    """Say whether a folder is empty, or holds what a release is staged as and nothing else."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    return names in (set(), {"release", "site", INSTALLED})


def _reported_wheels(source: Path, expected: Mapping[str, object]) -> dict[str, Path]:
    """Return the wheel of each cell; the cells' reports name them."""
    paths: dict[str, Path] = {}
    for file in sorted(source.rglob("reports/release-*.json")):
        try:
            report = kit.parsed(file.read_text())
            cell, wheels = str(report["cell"]), list(report["wheels"])
            names = [(str(wheel["file"]), str(wheel["sha256"])) for wheel in wheels]
        except (ValueError, KeyError, TypeError) as err:
            raise _refused(file, f"is no report of a cell: {err!r}") from err
        if cell not in expected:
            raise _refused(file, f"reports {cell}, a cell that is not in the matrix")
        if len(wheels) != 1:
            raise _refused(file, f"reports {len(wheels)} wheels, not one")
        path, sha256 = file.parent.parent / names[0][0], names[0][1]
        if not path.exists():
            raise _refused(file, f"reports {path}, which is missing")
        if (actual := kit.file_sha256(path)) != sha256:
            raise _refused(file, f"reports sha256 {sha256}, and {path} has sha256 {actual}")
        paths[cell] = path
    if missing := [cell for cell in expected if cell not in paths]:
        raise _refused(
            source,
            f"no wheel of {', '.join(missing)}; has the cell failed, or its runner? "
            f"`ci/run-cell {missing[0]}` runs it here",
        )
    return paths


def _add(file: Path, folder: Path) -> None:
    """Copy a file; raises CheckError when the folder has another file of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name
    if target.exists() and (old := kit.file_sha256(target)) != (new := kit.file_sha256(file)):
        raise _refused(file, f"two files are called {file.name}: {old}, and this one, {new}")
    shutil.copyfile(file, target)
    beside, place = (files.beside(path, metadata.BESIDE) for path in (file, target))
    place.unlink(missing_ok=True)
    if beside.exists():
        shutil.copyfile(beside, place)


def _refused(where: Path, problem: str) -> kit.CheckError:
    return kit.CheckError(problem, where=where, hint=HINT)


def validate_release(staged: Path, progress: kit.Progress) -> None:
    """Check a staged release and install it; raises CheckError when that shows a problem."""
    _requirements(staged)
    check_release(staged / "release").check(staged / "release")
    install_release(staged, progress)


def _requirements(staged: Path) -> dict[str, list[str]]:
    """Return what is to be installed for each Python."""
    try:
        installed = kit.parsed((staged / INSTALLED).read_text())
        return {version: sorted(forks.values()) for version, forks in installed.items()}
    except (OSError, ValueError, TypeError, AttributeError) as err:
        hint = "`patchwheel release stage` makes such a folder"
        raise kit.InputError("is no staged release", where=staged, hint=hint) from err


def install_release(staged: Path, progress: kit.Progress) -> None:
    """Install what was staged as a user would: with pip and uv, from its index, and import it."""
    index = (staged / "site" / files.SIMPLE).absolute().as_uri()
    with tempfile.TemporaryDirectory() as name:
        for version, requirements in _requirements(staged).items():
            # uv is given a path, since it stops at the shims of pyenv.
            base = kit.find_interpreter(version, progress=progress).path
            names = [requirement.partition("==")[0] for requirement in requirements]
            for tool in ("pip", "uv"):
                folder = Path(name, f"{tool}-{version}")
                python = folder / "bin" / "python"
                _run([kit.uv_bin(), "venv", "--quiet", "--seed", "--python", base, folder], staged)
                argv: list[str | Path] = [python, "-m", "pip", "install", "--extra-index-url"]
                if tool == "uv":
                    argv = [kit.uv_bin(), "pip", "install", "--python", python, "--index"]
                _run([*argv, index, "--quiet", *requirements], staged)
                _run([python, "-I", "-c", IMPORTS, *names], staged)
                progress.say(f"{tool} installs {', '.join(requirements)} for Python {version}")


def _run(argv: Sequence[str | Path], cwd: Path) -> None:
    try:
        # The user's own settings count: what the wheels require comes from the user's index.
        kit.process.capture(argv, cwd=cwd, env=os.environ)
    except kit.process.CommandError as err:
        problem = f"what was staged does not install: {err.message}"
        raise kit.CheckError(problem, where=cwd, tail=err.tail, hint=HINT) from err
