"""The three ways to a shared store: a web server, a bucket, a folder.

`get` returns None for a name that is not there, and at most a byte more than `limit`; `put` leaves
what has the name already. What they raise if a store does not answer as one is in `failures`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from patchwheel.kit import InputError, MachineError, exclusive_lock, write_atomically

if TYPE_CHECKING:
    import requests

# Seconds until a connection is made, and between two bytes.
TIMEOUT = (5, 10)
# What a server answers to a question, and to what it is given: 412 if somebody was quicker.
LOOKED, TAKEN = (200, 404, 410), (200, 201, 204, 412)


def open_transport(url: str) -> Web | Bucket | Folder:
    scheme = urlsplit(url).scheme
    kinds: dict[str, type[Web | Folder]] = {"file": Folder, "http": Web, "https": Web}
    return kinds.get(scheme, Bucket)(url)


def is_local(url: str) -> bool:
    """Say whether a URL names a folder or a server of this machine; a bucket may have any name."""
    parts = urlsplit(url)
    return parts.scheme == "file" or (parts.scheme[:4] == "http" and is_loopback(parts.hostname))


def is_loopback(host: str | None) -> bool:
    """Say whether a host's name is of this machine alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host or "").is_loopback
    return host == "localhost"


def failures() -> tuple[type[Exception], ...]:
    """Return the errors of a store that does not answer as one; those of requests are OSErrors."""
    from urllib3.exceptions import HTTPError

    bucket = sys.modules.get("obstore.exceptions")
    return InputError, OSError, HTTPError, *([bucket.BaseError] if bucket else [])


class Web:
    """A server of files that takes PUT."""

    def __init__(self, url: str) -> None:
        import requests

        self.url, self.http = url.rstrip("/"), requests.Session()
        # A proxy would take what is for this machine to another.
        self.http.trust_env = not is_local(url)
        self.http.verify = os.environ.get("SSL_CERT_FILE") or True

    def get(self, name: str, limit: int) -> bytes | None:
        with self._ask("GET", name, LOOKED) as answer:
            # Not unpacked: of a small answer there might come a large one.
            return answer.raw.read(limit + 1, decode_content=False) if answer.ok else None

    def put(self, name: str, data: bytes) -> None:
        with self._ask("HEAD", name, LOOKED) as there:
            if not there.ok:
                self._ask("PUT", name, TAKEN, data).close()

    def _ask(
        self, how: str, name: str, due: tuple[int, ...], data: bytes | None = None
    ) -> requests.Response:
        headers = {"Accept-Encoding": "identity", **({"If-None-Match": "*"} if data else {})}
        # A redirection may lead to another server, or to a file of this machine.
        more: dict[str, Any] = {"allow_redirects": False, "timeout": TIMEOUT, "stream": True}
        answer = self.http.request(how, f"{self.url}/{name}", data=data, headers=headers, **more)
        if answer.status_code not in due:
            answer.close()
            raise InputError(f"the server answered {answer.status_code} {answer.reason}")
        return answer


class Bucket:
    """A bucket of S3 or its kin, with the credentials that obstore finds in the environment."""

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import from_url
        except ImportError as err:
            hint = "install patchwheel[remote]"
            raise MachineError(f"buckets need obstore: {err}", hint=hint) from err
        connect, read = (f"{seconds}s" for seconds in TIMEOUT)
        options: Any = {"connect_timeout": connect, "read_timeout": read}
        options["allow_http"] = is_local(os.environ.get("AWS_ENDPOINT_URL", ""))
        self.store = from_url(url, client_options=options, retry_config={"max_retries": 1})

    def get(self, name: str, limit: int) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            answer = self.store.get(name)
            # One that is too large is not read.
            return bytes(answer.bytes()) if answer.meta["size"] <= limit else bytes(limit + 1)
        return None

    def put(self, name: str, data: bytes) -> None:
        from obstore.exceptions import AlreadyExistsError

        with contextlib.suppress(FileNotFoundError):
            self.store.head(name)
            return
        with contextlib.suppress(AlreadyExistsError):
            # In one piece: only so it can be refused where there is one.
            self.store.put(name, data, mode="create", use_multipart=False)


class Folder:
    """A folder, which others may write too; it is not made, as its disk may not be there."""

    def __init__(self, url: str) -> None:
        self.root = Path(unquote(urlsplit(url).path))

    def get(self, name: str, limit: int) -> bytes | None:
        # Opening a pipe would wait for a writer.
        if not (self.root / name).is_file():
            self.root.stat()
            return None
        with (self.root / name).open("rb") as stream:
            return stream.read(limit + 1)

    def put(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        with exclusive_lock(path.parent):
            if not path.is_file():
                write_atomically(path, data)
