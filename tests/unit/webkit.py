"""A local HTTP server whose answers a test scripts, one behaviour for each request."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import struct
import threading
from typing import TYPE_CHECKING

from support import sha256

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # type: ignore[mutable-override]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        script = self.server.script.get(self.path, [])
        (script.pop(0) if script else whole)(self)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    @property
    def data(self) -> bytes | None:
        return self.server.content.get(self.path)

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.script: dict[str, list[Callable[[Handler], None]]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass

    def put(self, path: str, data: bytes | str, kind: str = "text/html") -> str:
        self.content[path] = data.encode() if isinstance(data, str) else data
        self.types[path] = kind
        return self.url + path

    def offer(self, project: str, filename: str, data: bytes, **more: object) -> None:
        """Put a file and a page of the simple API (JSON) that lists it; `more` replaces what the page says."""
        entry = {
            "filename": filename,
            "url": f"../../files/{filename}",
            "hashes": {"sha256": sha256(data)},
            **more,
        }
        self.put(f"/files/{filename}", data, "application/octet-stream")
        self.put(
            f"/simple/{project}/",
            json.dumps({"meta": {"api-version": "1.0"}, "files": [entry]}),
            "application/vnd.pypi.simple.v1+json",
        )

    def asked(self, path: str) -> list[dict[str, str]]:
        return [headers for place, headers in self.seen if place == path]


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server() as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def whole(handler: Handler) -> None:
    """Answer as a good server does, ranges included."""
    data = handler.data
    if data is None:
        handler.head(404, Content_Length=0)
        return
    kind = handler.server.types[handler.path]
    start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
    if start:
        handler.head(
            206,
            Content_Length=len(data) - start,
            Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}",
        )
    else:
        handler.head(200, Content_Length=len(data), Content_Type=kind)
    handler.send(data[start:])


def status(code: int) -> Callable[[Handler], None]:
    return lambda handler: handler.head(code, Content_Length=0)


def cut(size: int) -> Callable[[Handler], None]:
    """Announce all of it, send `size` bytes and end the connection."""

    def behave(handler: Handler) -> None:
        handler.head(200, Content_Length=len(handler.data or b""))
        handler.send((handler.data or b"")[:size])

    return behave


def reset(size: int) -> Callable[[Handler], None]:
    """The same, ended by a reset."""

    def behave(handler: Handler) -> None:
        cut(size)(handler)
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()

    return behave


def unannounced(size: int | None = None) -> Callable[[Handler], None]:
    """Send so much of it without saying how much there is."""

    def behave(handler: Handler) -> None:
        handler.head(200)
        handler.send((handler.data or b"")[:size])

    return behave


def chunked_cut(size: int) -> Callable[[Handler], None]:
    def behave(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        data = handler.data or b""
        handler.send(b"%x\r\n" % len(data) + data[:size])

    return behave


def instead(data: bytes) -> Callable[[Handler], None]:
    def behave(handler: Handler) -> None:
        handler.head(200, Content_Length=len(data))
        handler.send(data)

    return behave
