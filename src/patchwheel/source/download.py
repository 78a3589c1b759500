"""Download pinned files, and upstream's wheels, from an index into the store."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from patchwheel.kit import InputError, file_sha256, redacted
from patchwheel.source.http import TransientError, requested, retried
from patchwheel.source.index import find_file, project_files
from patchwheel.wheelfile import field, read_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable

    import requests

    from patchwheel.kit import Context, Interpreter, Progress
    from patchwheel.manifest import Fork
    from patchwheel.source.index import IndexFile

# A connection that is cut loses at most one piece; what came before is kept.
PIECE = 1 << 17
PARTIAL = 206
RANGE_REFUSED = 416
# Wheels for the oldest glibc that we support are preferred to those that need a newer one.
GLIBC = (*range(28, 4, -1), *range(29, 60))
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def download_file(context: Context, project: str, filename: str, sha256: str) -> Path:
    """Return the path of the file in the store, downloaded if it is not there.

    Its hash was just checked. Raises InputError when no index has the file, no server sends it
    whole, or its sha256 is not the pinned one.
    """
    store = context.store

    def make(folder: Path) -> None:
        if context.offline:
            problem = f"{filename} is not in the store, and nothing is downloaded offline"
            where = store.path("files", sha256)
            raise InputError(problem, where=where, hint="run once without --offline")
        file = find_file(context.index, project, filename)
        if file.sha256 not in {None, sha256}:
            raise _mismatch(file, sha256, str(file.sha256), "the index lists")
        download = _Download(file, folder / filename, sha256, context.progress)
        if urlsplit(file.url).scheme == "file":
            download.copy()
        else:
            retried(download.task, download.attempt)

    path = store.get("files", sha256, make) / filename
    if not path.exists():
        # The same bytes were stored under another name. Installers read the name: it must be true.
        store.remove("files", sha256)
        path = store.get("files", sha256, make) / filename
    return path


class _Download:
    """The attempts at one file. What came before a connection was cut stays in `path`."""

    def __init__(self, file: IndexFile, path: Path, sha256: str, progress: Progress) -> None:
        self.file = file
        self.path = path
        self.sha256 = sha256
        self.progress = progress
        self.task = f"downloading {file.filename} from {redacted(file.url)}"
        self.mismatched = False

    def copy(self) -> None:
        place = Path(url2pathname(urlsplit(self.file.url).path))
        try:
            stream = place.open("rb")
        except OSError as err:
            raise InputError(f"{self.task}: {err.strerror}", where=place) from err
        with stream, self.path.open("wb") as sink:
            shutil.copyfileobj(stream, sink)
        if (actual := file_sha256(self.path)) != self.sha256:
            raise _mismatch(self.file, self.sha256, actual, "the file has")

    def attempt(self) -> None:
        self.path.touch()
        start = self.path.stat().st_size
        # Compressed, neither sizes nor ranges would be those of the file.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with requested(self.task, self.file.url, headers, ok=(RANGE_REFUSED,)) as answer:
            if answer.status_code == RANGE_REFUSED:
                os.truncate(self.path, 0)
                raise TransientError("the server refused to continue the download")
            total = self.receive(answer, start)
        self.check(total)

    def receive(self, answer: requests.Response, done: int) -> int | None:
        """Append the body, or start over where the server does; return the announced size."""
        continued = answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if not (answer.status_code == PARTIAL and continued):
            os.truncate(self.path, 0)
            done = 0
        length = answer.headers.get("Content-Length", "")
        total = self.file.size or (done + int(length) if length.isdecimal() else None)
        with self.path.open("ab") as sink:
            for piece in answer.iter_content(PIECE):
                sink.write(piece)
                done += len(piece)
                self.progress.progress(self.file.filename, done, total)
                # A body without end would fill the disk; its hash is wrong in any case.
                if total is not None and done > total:
                    break
        return total

    def check(self, total: int | None) -> None:
        """Raise TransientError for a short file or a first wrong hash, InputError for a second."""
        size = self.path.stat().st_size
        if total is not None and size < total:
            raise TransientError(f"the connection ended after {size} of {total} bytes")
        actual = file_sha256(self.path)
        if actual == self.sha256:
            return
        os.truncate(self.path, 0)
        # One transfer may be damaged, or continue another file; a second means other bytes.
        if self.mismatched:
            raise _mismatch(self.file, self.sha256, actual, "the server sends")
        self.mismatched = True
        raise TransientError(f"expected sha256 {self.sha256}, got {actual}")


def _mismatch(file: IndexFile, expected: str, actual: str, who: str) -> InputError:
    problem = f"{file.filename}: sha256 mismatch: {who} {actual}"
    hint = "find out why before changing the pin: a published file never changes"
    where = redacted(file.url)
    return InputError(problem, where=where, expected=f"sha256 {expected}", hint=hint)


def fetch_wheel(context: Context, fork: Fork) -> tuple[Path, str] | None:
    """Return upstream's wheel for this Python and its sha256, or None when there is none.

    Raises InputError when the index does not name the sha256 of the file.
    """
    if fork.upstream_wheel is None:
        return None
    files = project_files(context.index, fork.distribution)
    wheel = choose_wheel(files, fork.version, context.interpreter)
    if wheel is None:
        missing = f"upstream has no wheel of {fork.version} for {context.interpreter.tag}"
        context.progress.say(f"{fork.name}: {missing}: every change compiles")
        return None
    if wheel.sha256 is None:
        raise InputError(f"the index gives no sha256 for {wheel.filename}")
    path = download_file(context, fork.distribution, wheel.filename, wheel.sha256)
    return path, wheel.sha256


def requirements(wheel: Path, extra: str | None = None) -> list[str]:
    """Return what a wheel requires of itself, or what one of its extras adds."""
    from packaging.requirements import Requirement

    required = []
    for line in field(read_wheel(wheel).metadata("METADATA"), "Requires-Dist"):
        requirement = Requirement(line)
        conditional = "extra ==" in str(requirement.marker or "")
        if extra is None and not conditional:
            required.append(line)
        elif extra and conditional and requirement.marker:
            without_extra = requirement.marker.evaluate({"extra": ""})
            if requirement.marker.evaluate({"extra": extra}) and not without_extra:
                requirement.marker = None
                required.append(str(requirement))
    return required


def choose_wheel(
    files: Iterable[IndexFile], version: str, interpreter: Interpreter
) -> IndexFile | None:
    """Return the wheel of a version that fits the Python on Linux x86-64 best."""
    from packaging.tags import compatible_tags, cpython_tags
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename
    from packaging.version import Version

    major, minor = map(int, interpreter.python.split("."))
    platforms = []
    for glibc in GLIBC:
        platforms += [f"manylinux_2_{glibc}_x86_64"]
        platforms += [f"{LEGACY[glibc]}_x86_64"] if glibc in LEGACY else []
    tags = list(cpython_tags((major, minor), platforms=platforms))
    tags += compatible_tags((major, minor), interpreter.tag, platforms)
    rank = {tag: number for number, tag in enumerate(tags)}
    fitting = []
    for file in files:
        # An index may have files that no installer takes.
        with contextlib.suppress(InvalidWheelFilename):
            _, of, _, supported = parse_wheel_filename(file.filename)
            if of == Version(version) and (ranks := [rank[t] for t in supported if t in rank]):
                fitting.append((file.yanked, min(ranks), file.filename, file))
    return min(fitting, key=lambda row: row[:3])[3] if fitting else None
