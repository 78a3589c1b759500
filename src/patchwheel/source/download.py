"""Download one pinned file from an index into the store; size and sha256 are checked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from patchwheel.kit.digest import file_sha256
from patchwheel.kit.errors import InputError, redacted
from patchwheel.source.http import TransientError, requested, retried
from patchwheel.source.index import find_file

if TYPE_CHECKING:
    import requests

    from patchwheel.kit.context import Context
    from patchwheel.kit.progress import Progress
    from patchwheel.source.index import IndexFile

# A connection that is cut loses at most one piece; what came before is kept.
PIECE = 1 << 17
PARTIAL = 206
RANGE_REFUSED = 416


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
    return InputError(
        f"{file.filename}: {who} other bytes than pinned: sha256 {actual}",
        where=redacted(file.url),
        expected=f"sha256 {expected}",
        hint="find out why before changing the pin: a published file never changes",
    )
