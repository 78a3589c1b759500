"""What an index answers: the files of a project, from the simple API's JSON (PEP 691) or HTML (PEP 503)."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import dataclass
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from patchwheel.kit.errors import InputError
from patchwheel.source.http import redacted


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFile:
    project: str
    filename: str
    url: str
    sha256: str | None = None
    size: int | None = None
    yanked: bool = False


def from_json(data: bytes, url: str, project: str) -> list[IndexFile]:
    try:
        return [
            IndexFile(
                project=project,
                filename=file["filename"],
                url=urljoin(url, file["url"]),
                sha256=file.get("hashes", {}).get("sha256"),
                size=file.get("size"),
                yanked=bool(file.get("yanked")),
            )
            for file in json.loads(data)["files"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise InputError(
            f"the index's answer is not what the simple API promises: {err!r}",
            where=redacted(url),
            expected="PEP 691 JSON or PEP 503 HTML",
        ) from err


def from_html(data: bytes, url: str, project: str) -> list[IndexFile]:
    links = _Links(url)
    links.feed(data.decode(errors="replace"))
    links.close()
    found = []
    for href, yanked in links.found:
        address, fragment = urldefrag(href)
        name = unquote(urlsplit(address).path.rpartition("/")[2])
        sha256 = re.search(r"sha256=([0-9a-f]{64})", fragment)
        file = IndexFile(
            project=project,
            filename=name,
            url=address,
            sha256=sha256[1] if sha256 else None,
            yanked=yanked,
        )
        if name.endswith((".whl", ".tar.gz", ".zip")):
            found.append(file)
    return found


class _Links(html.parser.HTMLParser):
    """Collects (absolute URL, yanked) of the anchors."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.base = url
        self.found: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if href := named.get("href"):
            if tag == "base":
                self.base = urljoin(self.base, href)
            elif tag == "a":
                self.found.append((urljoin(self.base, href), "data-yanked" in named))
