"""The files that indexes offer, by the simple API (PEP 691, PEP 503), and how a server is asked."""

from __future__ import annotations

import difflib
import html
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, unquote, urldefrag, urljoin, urlsplit

from patchwheel.kit import IndexConfig, InputError, load_limits, parsed, process, redacted

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

JSON_API = "application/vnd.pypi.simple.v1+json"
ACCEPT = f"{JSON_API}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
TIMEOUT = (10, 30)
RETRIES = 4
# urllib3 doubles the pause with each retry, this many seconds to begin with.
BACKOFF = 0.5
# The largest pages of PyPI have 40 MB.
MAX_PAGE = 64 << 20
MAX_URL = 8192
# A file's name is also its name in the store.
PLAIN = re.compile(r"\w[^/\\\x00-\x1f\x7f]{0,254}")
# An anchor or a base, as far as it goes, so that each character is looked at once; comments first.
TAG = re.compile(
    r"""<!--(?:.*?-->|.*)|<(a|base)\s((?:[^<>"']|"[^"]*+"|'[^']*+')*+)""", re.IGNORECASE | re.DOTALL
)
ATTRIBUTE = re.compile(r"""([^\s=/"']+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"']+)))?""")
BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFile:
    """A file as an index lists it; None where the index does not say.

    `provenance` is the address of its attestations (PEP 740).
    """

    filename: str
    url: str
    sha256: str | None = None
    size: int | None = None
    yanked: bool = False
    requires_python: str | None = None
    provenance: str | None = None


def project_files(config: IndexConfig, project: str) -> list[IndexFile]:
    """Return the files of a project on all indexes; of two with one name, the first index's."""
    files: dict[str, IndexFile] = {}
    for file in _offers(config, project):
        files.setdefault(file.filename, file)
    return list(files.values())


def find_file(config: IndexConfig, project: str, filename: str) -> IndexFile:
    """Return the file from the first index that has it; InputError names similar files."""
    names: list[str] = []
    for file in _offers(config, project):
        if file.filename == filename:
            return file
        names.append(file.filename)
    places = ", ".join(map(redacted, (*config.urls, *config.find_links)))
    near = difflib.get_close_matches(filename, names, n=3) or [f"{len(names)} files of {project}"]
    raise InputError(
        f"no index has {filename}",
        where=places or "no index is configured",
        expected=f"one of {', '.join(near)}",
        hint="correct the file name in the manifest or the lock, or uv's or pip's index settings",
    )


def from_json(data: bytes, url: str) -> list[IndexFile]:
    """Read a page of the simple API in JSON (PEP 691) that came from `url`."""
    try:
        rows = parsed(data)["files"]
        return [_json_file(row, url) for row in rows if PLAIN.fullmatch(row["filename"])]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        problem = f"the index's answer does not follow the simple API (PEP 691): {err!r}"
        raise InputError(problem, where=redacted(url)) from err


def _json_file(row: dict[str, Any], url: str) -> IndexFile:
    sha256, size = row.get("hashes", {}).get("sha256"), row.get("size")
    if not (isinstance(sha256, str | None) and isinstance(size, int | None)):
        raise TypeError(f"the hash is {sha256!r:.100}, and the size {size!r:.100}")
    python, provenance = row.get("requires-python"), row.get("provenance")
    if not (isinstance(python, str | None) and isinstance(provenance, str | None)):
        raise TypeError(f"requires-python is {python!r:.100}, provenance {provenance!r:.100}")
    return IndexFile(
        filename=row["filename"],
        url=urljoin(url, row["url"]),
        sha256=sha256,
        size=size,
        yanked=bool(row.get("yanked")),
        requires_python=python,
        provenance=provenance and urljoin(url, provenance),
    )


def from_html(data: bytes, url: str) -> list[IndexFile]:
    """Return the distributions that the anchors of a page (PEP 503) link to."""
    # Not by html.parser, whose time grows with the square of an unfinished page.
    base, files = url, []
    for tag, text in TAG.findall(data.decode(errors="replace")):
        attributes = {m[1].lower(): m[2] or m[3] or m[4] or "" for m in ATTRIBUTE.finditer(text)}
        href = html.unescape(attributes.get("href", ""))
        if not href or len(href) > MAX_URL:
            continue
        try:
            joined, fragment = urldefrag(urljoin(base, href))
        except ValueError as err:
            raise InputError(f"links to {href!r}: {err}", where=redacted(url)) from err
        if tag.lower() == "base":
            base = joined[:MAX_URL]
            continue
        name = unquote(urlsplit(joined).path.rpartition("/")[2])
        match = re.search(r"sha256=([0-9a-f]{64})", fragment)
        # Pages also link to signatures, metadata and other pages.
        if PLAIN.fullmatch(name) and name.endswith((".whl", ".tar.gz", ".zip")):
            provenance = attributes.get("data-provenance")
            files.append(
                IndexFile(
                    filename=name,
                    url=joined,
                    sha256=match[1] if match else None,
                    yanked="data-yanked" in attributes,
                    requires_python=html.unescape(attributes.get("data-requires-python", "")),
                    provenance=provenance and urljoin(base, html.unescape(provenance)),
                )
            )
    return files


def _offers(config: IndexConfig, project: str) -> Iterator[IndexFile]:
    """Yield the files of each index; an index is asked only when its turn comes."""
    from packaging.utils import canonicalize_name

    name = canonicalize_name(project)
    for url in config.urls:
        yield from _page(f"{url.rstrip('/')}/{name}/")
    for place in config.find_links:
        # Loose files are those of any project.
        for file in _page(place if "://" in place else Path(place).as_uri(), flat=True):
            is_wheel = file.filename.endswith(".whl")
            split = file.filename.partition if is_wheel else file.filename.rpartition
            if canonicalize_name(split("-")[0]) == name:
                yield file


def _page(url: str, *, flat: bool = False) -> list[IndexFile]:
    parts = urlsplit(url)
    if parts.scheme != "file":
        return _remote_page(url)
    path = Path(unquote(parts.path))
    try:
        # A folder of loose files may have an index.html that is not for installers.
        if path.is_dir() and not flat and (path / "index.html").exists():
            path /= "index.html"
        if not path.is_dir():
            return from_html(path.read_bytes(), path.as_uri())
        files = [(file, file.stat().st_size) for file in sorted(path.iterdir()) if file.is_file()]
    except FileNotFoundError:
        # As from a server: this index does not have the project.
        return []
    except OSError as err:
        raise InputError(f"cannot be read: {err.strerror}", where=path) from err
    return [IndexFile(filename=f.name, url=f.absolute().as_uri(), size=size) for f, size in files]


def _remote_page(url: str) -> list[IndexFile]:
    def ask(http: requests.Session) -> list[IndexFile]:
        with http.get(url, headers={"Accept": ACCEPT}, timeout=TIMEOUT) as answer:
            if answer.status_code in {404, 410}:
                return []
            answer.raise_for_status()
            is_json = "json" in answer.headers.get("Content-Type", "")
            files = (from_json if is_json else from_html)(read_body(answer), answer.url)
            # A server names no file of this machine.
            named = [f for f in files if urlsplit(f.url).scheme in {"http", "https"}]
            return [_with_login(file, url) for file in named]

    return retried(f"asking {redacted(url)}", ask)


def _with_login(file: IndexFile, index: str) -> IndexFile:
    """Give a file the credentials in the index's URL if it is at the same server, as uv does."""
    there, here = urlsplit(file.url), urlsplit(index)
    login, at, _ = here.netloc.rpartition("@")
    if not at or "@" in there.netloc or _server(there) != _server(here):
        return file
    return replace(file, url=there._replace(netloc=f"{login}@{there.netloc}").geturl())


def _server(parts: SplitResult) -> tuple[str, str]:
    default = {"https": ":443", "http": ":80"}.get(parts.scheme, "")
    return parts.scheme, parts.netloc.rpartition("@")[2].lower().removesuffix(default)


def get_body(task: str, url: str) -> bytes:
    """Return what a server answers, tried again where that may help; raises InputError."""

    def ask(http: requests.Session) -> bytes:
        with http.get(url, timeout=TIMEOUT) as answer:
            answer.raise_for_status()
            return read_body(answer)

    return retried(task, ask)


def read_body(answer: requests.Response) -> bytes:
    """Read an answer up to a limit: a server need not say how long it is."""
    data = bytearray()
    for piece in answer.iter_content(1 << 20):
        data += piece
        if len(data) > MAX_PAGE:
            problem = f"the answer has more than {MAX_PAGE >> 20} MiB"
            raise InputError(problem, where=redacted(answer.url))
    return bytes(data)


def retried(task: str, attempt: Callable[[requests.Session], T]) -> T:
    """Call `attempt`, again when its connection is cut off; InputError for all else that fails.

    All of it has to end within a limit: a server may send a byte now and then for ever.
    """
    limit = load_limits(os.environ).download
    try:
        return process.started(lambda: _repeated(task, attempt))(limit)
    except TimeoutError as err:
        hint = "set PATCHWHEEL_LIMIT_DOWNLOAD, in seconds, for a slower network"
        raise InputError(f"{task}: it takes longer than {limit:,} s", hint=hint) from err


def _repeated(task: str, attempt: Callable[[requests.Session], T]) -> T:
    import requests
    from urllib3.exceptions import MaxRetryError

    lost = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
    left = RETRIES
    while True:
        try:
            with _session() as http:
                return attempt(http)
        except requests.RequestException as err:
            # urllib3 has retried until the answer began; this is for a body that was cut off.
            if not left or not isinstance(err, lost) or isinstance(err.args[0], MaxRetryError):
                raise _explained(task, err) from err
            left -= 1


def _session() -> requests.Session:
    """Return a session that retries, and trusts the certificates that uv and pip trust."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    made = requests.Session()
    # A file is written as it comes: wheels are too large for memory.
    made.stream = True
    # requests itself reads these two.
    if not (os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")):
        made.verify = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT") or True
    # `other` counts certificates that are not trusted: they will not be the next time either.
    retry = Retry(
        RETRIES, other=0, backoff_factor=BACKOFF, status_forcelist=BUSY, raise_on_status=False
    )
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retry))
    return made


def _explained(task: str, err: requests.RequestException) -> InputError:
    import requests

    # requests and urllib3 wrap errors in each other: the text ends with the cause in parentheses.
    text = str(err).rpartition("Caused by ")[2].strip("() ")
    why = redacted(re.sub(r"<[^>]*>:? ?|^\w+\(['\"]?|['\"]\)?$", "", text)) or type(err).__name__
    hint = "check the network, the proxy and the index settings of uv or pip"
    if isinstance(err, requests.exceptions.SSLError):
        why = f"the server's certificate is not trusted: {why}"
        hint = "name the file of your certificate authority in SSL_CERT_FILE"
    elif isinstance(err, requests.HTTPError):
        why = f"the server answered {err.response.status_code} {err.response.reason}"
    return InputError(f"{task}: {why}", hint=hint)
