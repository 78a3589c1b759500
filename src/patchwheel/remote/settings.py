"""Which store the user shares, whose wheels are taken from it, and whether ours are added."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchwheel.kit import ManifestError, parsed_toml, redacted

if TYPE_CHECKING:
    from patchwheel.remote.store import Remote

URL, TRUST, WRITE = "PATCHWHEEL_REMOTE", "PATCHWHEEL_REMOTE_TRUST", "PATCHWHEEL_REMOTE_WRITE"
TYPES = {"url": str, "trust": list, "write": str}
ALLOWED = re.compile(r"https://.|(s3|s3a|gs|az|abfs|abfss)://.|file:///")


def open_remote(say: Callable[[str], None], limit: float) -> Remote | None:
    """Return the store that variables or the user's configuration name; None for none."""
    table = _table()
    url = os.environ.get(URL, table.get("url"))
    if not url:
        return None
    # A no-op imports little.
    from patchwheel.remote.store import UNSIGNED, Remote
    from patchwheel.remote.transport import is_local

    # Who is trusted for one store is not for another.
    table = table if url == table.get("url") else {}
    rows = os.environ.get(TRUST, " ".join(map(str, table.get("trust", [])))).split()
    trust = {name: key for name, _, key in (row.rpartition(":") for row in rows)}
    write, local = os.environ.get(WRITE, table.get("write", "")), is_local(url)
    wrong = [n for n, key in trust.items() if not (n and re.fullmatch("[0-9a-f]{64}", key))]
    problem = hint = ""
    if not (ALLOWED.match(url) or (local and url.startswith("http:"))) or set("?#") & {*url}:
        problem = "is no address of a shared store"
        hint = f"{URL} takes https://, http:// on this machine, s3://, gs://, az:// or file:///"
    elif wrong:
        problem, hint = f"{wrong[0]!r} is no name with a key", f"{TRUST}=NAME:KEY, with 64 digits"
    elif not (trust or local):
        problem, hint = "nobody is trusted to add to this store", f"name who is: {TRUST}=NAME:KEY"
    elif write == UNSIGNED and trust:
        problem, hint = "only signed wheels count in this store", f"name a key: {WRITE}=FILE"
    if problem:
        raise ManifestError(problem, where=redacted(url), hint=hint)
    return Remote(url, trust, write, say, limit)


def _table() -> dict[str, Any]:
    # As XDG has it, a path that is not absolute is ignored.
    folder = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    folder = folder if folder.is_absolute() else Path.home() / ".config"
    path = folder / "patchwheel" / "config.toml"
    try:
        found = parsed_toml(path.read_text("utf-8")) if path.is_file() else {}
        table: dict[str, Any] = found.pop("remote", {})
        wrong = [*found, *(n for n, v in table.items() if not isinstance(v, TYPES.get(n, ())))]
    except (OSError, ValueError, AttributeError) as err:
        raise ManifestError(f"cannot be read: {err}", where=path) from err
    if wrong:
        expected = "one table `remote`, with the texts `url` and `write` and a list `trust`"
        raise ManifestError(f"{wrong[0]} has no place in it", where=path, expected=expected)
    return table
