"""Hooks of mkdocs.yml: pages that lie outside docs/, and links as the site needs them.

The documents link each other as files of the checkout, so that they also read well there.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "docker/README.md": "docker.md",
}
# What a command prints is folded as on a terminal: nobody looks for a bar below it.
STYLE = ".md-typeset pre > code { white-space: pre-wrap; overflow-wrap: anywhere; }\n"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for source, uri in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=text))
    files.append(File.generated(config, "style.css", content=STYLE))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_config: object) -> str:
    """Let each link to a file of the checkout lead to its page."""
    uri = page.file.src_uri
    sources = {outside: source for source, outside in OUTSIDE.items()}
    folder = posixpath.dirname(sources.get(uri, f"docs/{uri}"))

    def lead(found: re.Match[str]) -> str:
        image, text, target, anchor = found.groups("")
        path = posixpath.normpath(posixpath.join(folder, target))
        # A folder is its first page.
        if (ROOT / path).is_dir():
            pages = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / path).glob("*.md"))
            path = pages[0] if pages else path
        there = OUTSIDE.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(there) is None:
            # A file of the checkout that the site has not.
            return f"`{text}`" if (ROOT / path).exists() else found[0]
        relative = os.path.relpath(there, posixpath.dirname(uri) or ".")
        return f"{image}[{text}]({relative}{anchor})"

    return LINK.sub(lead, markdown)
