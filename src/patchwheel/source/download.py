"""One file of a pin, from an index into the store: size and sha256 checked, resumed and retried."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from patchwheel.kit.digest import file_sha256
from patchwheel.kit.errors import InputError
from patchwheel.source.http import (
    TIMEOUT,
    Flaky,
    check_status,
    http_errors,
    redacted,
    retried,
    session,
)
from patchwheel.source.index import find_file

if TYPE_CHECKING:
    import requests

    from patchwheel.kit.context import Context
    from patchwheel.kit.progress import Report
    from patchwheel.source.simple import IndexFile

# A connection that is cut loses at most one piece; what came before is kept.
PIECE = 1 << 17
PARTIAL = 206
RANGE_REFUSED = 416


def download_file(context: Context, project: str, filename: str, sha256: str) -> Path:
    """Return the path of the file in the store, downloaded if it is not there; its hash was checked just now.

    Raises InputError when no index has it, no server sends it whole, or what it sends is not what is pinned.
    """

    def make(folder: Path) -> None:
        if context.offline:
            raise InputError(
                f"{filename} is not in the store, and nothing is downloaded offline",
                where=context.store.path("files", sha256),
                hint="run once without --offline",
            )
        file = find_file(context.index, project, filename)
        if file.sha256 not in {None, sha256}:
            raise _other_bytes(file, sha256, str(file.sha256), "the index lists")
        _Fetch(file, folder / filename, sha256, context.progress).run()

    path = context.store.get("files", sha256, make) / filename
    if not path.exists():
        # The same bytes were stored under another name; installers read the name, so it must be true.
        context.store.remove("files", sha256)
        path = context.store.get("files", sha256, make) / filename
    return path


class _Fetch:
    """The attempts at one file; what came over before a cut stays in `path` and is continued."""

    def __init__(self, file: IndexFile, path: Path, sha256: str, report: Report) -> None:
        self.file = file
        self.path = path
        self.sha256 = sha256
        self.report = report
        self.what = f"downloading {file.filename} from {redacted(file.url)}"
        self.wrong: str | None = None

    def run(self) -> None:
        if urlsplit(self.file.url).scheme == "file":
            self.copy()
        else:
            retried(self.what, self.attempt)

    def copy(self) -> None:
        place = Path(url2pathname(urlsplit(self.file.url).path))
        try:
            stream = place.open("rb")
        except OSError as err:
            raise InputError(f"{self.what}: {err.strerror}", where=place) from err
        with stream, self.path.open("wb") as sink:
            shutil.copyfileobj(stream, sink)
        if (got := file_sha256(self.path)) != self.sha256:
            raise _other_bytes(self.file, self.sha256, got, "the file has")

    def attempt(self) -> None:
        self.path.touch()
        done = self.path.stat().st_size
        headers = {"Accept-Encoding": "identity"}
        if done:
            headers["Range"] = f"bytes={done}-"
        with http_errors(self.what), session() as web:
            ask = functools.partial(web.get, stream=True, timeout=TIMEOUT)
            with ask(self.file.url, headers=headers) as answer:
                if answer.status_code == RANGE_REFUSED:
                    os.truncate(self.path, 0)
                    raise Flaky("the server would not continue the download")
                check_status(self.what, answer)
                total = self.receive(answer, done)
        self.check(resumed=done > 0, total=total)

    def receive(self, answer: requests.Response, done: int) -> int | None:
        """Append the body to what is there, or start over when the server did; return the announced size."""
        start = answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if not (answer.status_code == PARTIAL and start):
            os.truncate(self.path, 0)
            done = 0
        length = answer.headers.get("Content-Length", "")
        total = self.file.size or (done + int(length) if length.isdecimal() else None)
        with self.path.open("ab") as sink:
            for piece in answer.iter_content(PIECE):
                sink.write(piece)
                done += len(piece)
                self.report.progress(self.file.filename, done, total)
                if total is not None and done > total:
                    break
        return total

    def check(self, *, resumed: bool, total: int | None) -> None:
        """Raise Flaky for too few bytes and InputError once a whole file came twice with the same wrong hash."""
        size = self.path.stat().st_size
        if total is not None and size < total:
            raise Flaky(f"the connection ended after {size} of {total} bytes")
        got = file_sha256(self.path)
        if got == self.sha256:
            return
        os.truncate(self.path, 0)
        if got == self.wrong:
            raise _other_bytes(self.file, self.sha256, got, "the server sends")
        # One damaged transfer is possible; two with the same bytes are another file.
        self.wrong = None if resumed else got
        raise Flaky(f"expected sha256 {self.sha256}, got {got}")


def _other_bytes(file: IndexFile, wanted: str, got: str, who: str) -> InputError:
    return InputError(
        f"{file.filename}: {who} other bytes than pinned: sha256 {got}",
        where=redacted(file.url),
        expected=f"sha256 {wanted}",
        hint="find out why before changing the pin: a published file never changes",
    )
