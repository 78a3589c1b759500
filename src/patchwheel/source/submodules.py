"""Where the submodules of a commit are, by its .gitmodules."""

from __future__ import annotations

import os
import posixpath
import re

from patchwheel.kit import Repository


def addresses(repo: Repository, oid: str) -> dict[str, str]:
    """Return the URLs of the submodules in a .gitmodules file, by path."""
    keys = r"^submodule\..*\.(path|url)$"
    out = repo.git("config", f"--blob={oid}", "-z", "--get-regexp", keys)
    rows = [os.fsdecode(row).split("\n", 1) for row in out.split(b"\0") if row]
    config = {row[0]: row[-1] for row in rows}
    names = [key.removesuffix(".path") for key in config if key.endswith(".path")]
    return {config[f"{name}.path"]: config.get(f"{name}.url", "") for name in names}


def joined(url: str, relative: str) -> str:
    """Return a submodule's address; a relative one starts from that of its parent repository."""
    if not relative.startswith(("./", "../")):
        return relative
    # A host of ssh ends with a colon, not a slash.
    place = re.match(r"\w+://[^/]*/|[^/]*:|", url)
    head = place[0] if place else ""
    return head + posixpath.normpath(posixpath.join(url[len(head) :], relative))
