"""Promotes a staged release: what is published are the bytes that were validated, or nothing.

It needs nothing but Python, since it runs where there are rights to publish. `digest` names what
`patchwheel release stage` wrote; the environment variable DIGEST is what the other two expect.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path


def digest(staged: Path) -> str:
    """Return a digest of the names and bytes of all files in the folder."""
    rows = []
    for path in sorted(p for p in staged.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        rows.append(f"{sha256}  {path.relative_to(staged)}\n")
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def check(staged: Path) -> None:
    """End with status 6 if the folder is not the one that was staged."""
    expected = os.environ.get("DIGEST")
    if expected and (actual := digest(staged)) != expected:
        print(
            f"error: {staged} has the digest {actual}; {expected} was staged\n"
            "  next: nothing is published; run the cells again from `stage`",
            file=sys.stderr,
        )
        sys.exit(6)


def promote(staged: Path, site: Path) -> None:
    check(staged)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix=".promoting-") as name:
        shutil.copytree(staged / "site", Path(name, "site"))
        shutil.rmtree(site, ignore_errors=True)
        Path(name, "site").rename(site)


if __name__ == "__main__":
    match [sys.argv[1], *(Path(argument).absolute() for argument in sys.argv[2:])]:
        case ["digest", Path() as staged]:
            print(digest(staged))
        case ["check", Path() as staged]:
            check(staged)
        case ["promote", Path() as staged, Path() as site]:
            promote(staged, site)
        case _:
            sys.exit("usage: publish.py digest STAGED | check STAGED | promote STAGED SITE")
