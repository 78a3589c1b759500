"""The releases of a project on indexes, and downloads of their files into the store."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from patchwheel import kit
from patchwheel.manifest import Fork, Sdist
from patchwheel.source.index import TIMEOUT, IndexFile, find_file, project_files, retried
from patchwheel.wheelfile import field, read_wheel

if TYPE_CHECKING:
    import requests
    from packaging.tags import Tag
    from packaging.utils import BuildTag
    from packaging.version import Version

# A connection that is cut loses at most one piece; what came before is kept.
PIECE = 1 << 17
MAX_FILE = 4 << 30
# Those of a wheel are the product of the three sets in its name; a real one has 30.
MAX_TAGS = 100
RANGE_REFUSED = 416
SDIST = ".tar.gz"
# Wheels for the oldest glibc that we support are preferred to those that need a newer one.
GLIBC = (*range(28, 4, -1), *range(29, 60))
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
PLATFORMS = [n for g in GLIBC for n in (f"manylinux_2_{g}", LEGACY.get(g)) if n]


def asking(context: kit.Context, project: str) -> contextlib.AbstractContextManager[None]:
    """Show that an index is asked for the files of a project."""
    return context.progress.step(f"asking the index for {project}", brief=True)


def download_file(context: kit.Context, project: str, filename: str, sha256: str) -> Path:
    """Return the file in the store, downloaded if it is not there, its hash just checked."""
    store = context.store

    def make(folder: Path) -> None:
        if context.offline:
            problem = f"{filename} is not in the store, and nothing is downloaded offline"
            where = store.path("files", sha256)
            raise kit.InputError(problem, where=where, hint="run once without --offline")
        with asking(context, project):
            file = find_file(context.index, project, filename)
        _download(context, file, folder, sha256)

    path = store.get("files", sha256, make) / filename
    if not path.exists():
        # The same bytes were stored under another name. Installers read the name: it must be true.
        store.remove("files", sha256)
        path = store.get("files", sha256, make) / filename
    return path


def _download(context: kit.Context, file: IndexFile, folder: Path, sha256: str) -> None:
    """Bring the file into the folder; raises InputError unless its sha256 is the expected one."""
    if file.sha256 not in {None, sha256}:
        raise _mismatch(file, sha256, f"the index lists {file.sha256}")
    path, place = folder / file.filename, Path(unquote(urlsplit(file.url).path))
    actual = ""
    task = f"downloading {file.filename} from {kit.redacted(file.url)}"
    # One transfer may be damaged, or continue another file; a second is a sha256 mismatch.
    for _ in range(2):
        path.write_bytes(b"")
        if urlsplit(file.url).scheme != "file":
            start = time.monotonic()
            retried(task, lambda http: _receive(http, file, path, context.progress))
            size = path.stat().st_size
            context.progress.took("download", file.filename, start, size=size)
        elif place.exists() and not place.is_file():
            raise kit.InputError(f"{task}: it is no regular file", where=place)
        else:
            try:
                shutil.copyfile(place, path)
            except (FileNotFoundError, PermissionError) as err:
                raise kit.InputError(f"{task}: {err.strerror}", where=place) from err
        if (actual := kit.file_sha256(path)) == sha256:
            return
    raise _mismatch(file, sha256, f"the file has {actual}")


def _mismatch(file: IndexFile, sha256: str, actual: str) -> kit.InputError:
    problem = f"{file.filename}: sha256 mismatch: {actual}"
    hint = "find out why before changing the pin: a published file never changes"
    where = kit.redacted(file.url)
    return kit.InputError(problem, where=where, expected=f"sha256 {sha256}", hint=hint)


def _receive(http: requests.Session, file: IndexFile, path: Path, progress: kit.Progress) -> None:
    """Append what `path` lacks of the file, or start over where the server does."""
    from requests import ConnectionError as CutOff

    done = path.stat().st_size
    # Compressed, neither sizes nor ranges would be those of the file.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with http.get(file.url, headers=headers, timeout=TIMEOUT) as answer:
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            os.truncate(path, 0)
            done = 0
        if answer.status_code == RANGE_REFUSED:
            raise CutOff("the server refused to continue the download")
        answer.raise_for_status()
        length = answer.headers.get("Content-Length", "")
        total = file.size or (done + int(length) if length.isdecimal() else None)
        if total and total > MAX_FILE:
            problem = f"{file.filename} has {total:,} bytes, more than {MAX_FILE:,}"
            raise kit.InputError(problem, where=kit.redacted(file.url))
        with path.open("ab") as sink:
            for piece in answer.iter_content(PIECE):
                sink.write(piece)
                done += len(piece)
                progress.progress(file.filename, done, total)
                # A body without end would fill the disk; its hash is wrong in any case.
                if done > (MAX_FILE if total is None else total):
                    break
    if total is not None and done < total:
        raise CutOff(f"the connection ended after {done} of {total} bytes")


def fetch_wheel(context: kit.Context, fork: Fork) -> tuple[Path, str] | None:
    """Return upstream's wheel for this Python and its sha256, or None when there is none."""
    if fork.upstream_wheel is None:
        return None
    with asking(context, fork.distribution):
        files = project_files(context.index, fork.distribution)
    wheel = choose_wheel(files, fork.version, context.interpreter)
    if wheel is None:
        missing = f"upstream has no wheel of {fork.version} for {context.interpreter.tag}"
        context.progress.say(f"{fork.name}: {missing}: every change compiles")
        return None
    if wheel.sha256 is None:
        raise kit.InputError(f"the index gives no sha256 for {wheel.filename}")
    path = download_file(context, fork.distribution, wheel.filename, wheel.sha256)
    return path, wheel.sha256


def requirements(wheel: Path, extra: str | None = None) -> list[str]:
    """Return what a wheel requires of itself, or what one of its extras adds."""
    from packaging.requirements import Requirement

    required = []
    for line in field(read_wheel(wheel).metadata("METADATA"), "Requires-Dist"):
        try:
            requirement = Requirement(line)
        except ValueError as err:
            problem = f"requires {line!r}, which cannot be read: {err}"
            raise kit.InputError(problem, where=wheel) from err
        conditional = "extra ==" in str(requirement.marker or "")
        if extra is None and not conditional:
            required.append(line)
        elif extra and conditional and requirement.marker:
            without_extra = requirement.marker.evaluate({"extra": ""})
            if requirement.marker.evaluate({"extra": extra}) and not without_extra:
                requirement.marker = None
                required.append(str(requirement))
    return required


def published_wheels(context: kit.Context, fork: Fork) -> dict[str, str]:
    """Return name and sha256 of each wheel of the pin's version that the indexes list with one."""
    from packaging.version import Version

    with asking(context, fork.distribution):
        files = project_files(context.index, fork.distribution) if fork.upstream_wheel else ()
    return {
        file.filename: file.sha256
        for file, of, _, tags in _parsed(files)
        if tags and of == Version(fork.version) and file.sha256 and not file.yanked
    }


def choose_wheel(
    files: Iterable[IndexFile], version: str, interpreter: kit.Interpreter
) -> IndexFile | None:
    """Return the wheel of a version that fits the Python on such a machine best."""
    from packaging.tags import compatible_tags, cpython_tags
    from packaging.version import Version

    python = [int(part) for part in interpreter.python.split(".")]
    platforms = [f"{name}_{os.uname().machine}" for name in PLATFORMS]
    tags = [*cpython_tags(python, None, platforms)]
    tags += compatible_tags(python, interpreter.tag, platforms)
    rank = {tag: number for number, tag in enumerate(tags)}
    # A higher build number replaces a lower one, and none.
    fitting = [
        (not file.yanked, -min(ranks), build, file.filename, file)
        for file, of, build, supported in _parsed(files)
        if of == Version(version) and (ranks := [rank[t] for t in supported if t in rank])
    ]
    return max(fitting, key=lambda row: row[:4])[4] if fitting else None


def find_sdist(config: kit.IndexConfig, project: str, version: str) -> Sdist:
    """Return the sdist of a release; raises InputError when no index has one with a sha256."""
    from packaging.version import Version

    rows = _parsed(project_files(config, project))
    sdists = [(file, of) for file, of, _, tags in rows if not tags]
    with contextlib.suppress(ValueError):
        found = [file for file, of in sdists if file.sha256 and of == Version(version)]
        for file in found:
            if file.sha256 and file.filename.endswith(SDIST):
                return Sdist(filename=file.filename, sha256=file.sha256)
        if found:
            problem = f"{project}: the source of release {version} is {found[0].filename} alone"
            hint = "pin the fork by git commit instead"
            raise kit.InputError(problem, expected=f"a {SDIST}", hint=hint)
    newest = ", ".join(map(str, sorted(of for _, of in sdists)[-3:]))
    problem = f"{project}: there is no release {version}"
    raise kit.InputError(problem, expected=f"a release such as {newest}" if newest else None)


def newest_release(config: kit.IndexConfig, project: str, pythons: Collection[str]) -> str:
    """Return the newest final version with an sdist for these Pythons; raises InputError."""
    from packaging.specifiers import SpecifierSet

    files = list(_parsed(project_files(config, project)))
    fitting = []
    for file, of, *_ in files:
        if file.yanked or of.is_prerelease or not file.filename.endswith(SDIST):
            continue
        # An installer ignores a field that it cannot read.
        with contextlib.suppress(ValueError):
            bounds = SpecifierSet(file.requires_python or "")
            if not all(bounds.contains(f"{python}.99") for python in pythons):
                continue
        fitting.append(of)
    if fitting:
        return str(max(fitting))
    wanted = f"a final release with a .tar.gz for Python {', '.join(pythons)}"
    problem = f"{project} has no such release" if files else f"no index has a project {project}"
    hint = "correct the name, or pin a commit: `patchwheel add URL@REF`"
    raise kit.InputError(problem, expected=wanted, hint=hint)


def latest_version(config: kit.IndexConfig, project: str) -> str | None:
    """Return the newest final version that is not yanked, or None when no index has the project."""
    files = _parsed(project_files(config, project))
    final = [of for file, of, *_ in files if not (file.yanked or of.is_prerelease)]
    return str(max(final)) if final else None


def _parsed(
    files: Iterable[IndexFile],
) -> Iterator[tuple[IndexFile, Version, BuildTag, Collection[Tag]]]:
    """Yield the files that installers take, with what their names say: only wheels have tags."""
    from packaging import utils

    for file in files:
        with contextlib.suppress(ValueError):
            if file.filename.endswith(".whl"):
                sets = file.filename.split("-")[-3:]
                if math.prod(part.count(".") + 1 for part in sets) > MAX_TAGS:
                    continue
                _, version, build, tags = utils.parse_wheel_filename(file.filename)
                yield file, version, build, tags
            else:
                yield file, utils.parse_sdist_filename(file.filename)[1], (), ()
