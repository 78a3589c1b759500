"""Finds changes that no build can see, because it takes a generated file that the source ships."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from patchwheel.kit import Change, Repository
from patchwheel.manifest import BuildInventory
from patchwheel.source import Source

C = (".c", ".cpp", ".cxx", ".cc")
# What generators make of a file of this name, in place of its ending.
PRODUCTS = {
    ".pyx": C,
    ".py": C,
    ".y": (*C, ".tab.c", ".tab.h", "_tab.c"),
    ".yy": (*C, ".tab.cc"),
    ".l": (*C, ".yy.c"),
    ".ll": C,
    ".re": C,
    ".rl": C,
    ".i": ("_wrap.c", "_wrap.cpp", "_wrap.cxx", "wrap.c"),
    ".gperf": (*C, ".h"),
    ".g": ("Parser.py", "Lexer.py", "Parser.c"),
    ".g4": ("Parser.py", "Lexer.py", "Parser.cpp"),
}
TEMPLATES = (".in", ".tp", ".src", ".tmpl", ".template", ".tpl", ".j2", ".jinja", ".mako")
# What generators begin their files with.
MARK = rb"(?i)generated (?:\w+ )*(?:by|from|with)\b|a bison parser"
BEGINNING = 1000
SETTING = (
    r"[\"'](--(?:with-|use-|force-)?cython(?:ize)?"
    r"|(?:\w+_)?(?:WITH|USE|FORCE|RUN)_CYTHON|CYTHONIZE)"
)


def without_effect(
    source: Source, tree: str, inventory: BuildInventory, changes: Iterable[Change]
) -> list[str]:
    """Say which changes since the pin the build does not read or undoes, and by which file."""
    repo, changes = Repository(source.git_dir), list(changes)
    reads = inventory.reads.union(*inventory.opened.values())
    changed = {change.path for change in changes}
    files = repo.files(source.tree)
    pairs = [
        (path, made)
        for path in sorted(changed - reads)
        for made in _products(path)
        if made in files and made not in changed and path in files
    ]
    # The other way round: what the build reads, and may write anew before.
    kept = {change.path for change in changes if change.status != "D"}
    written = [
        (path, made)
        for path in sorted(files.keys() & reads - changed)
        # Most of these are read for something else.
        if not path.endswith((".py", *TEMPLATES))
        for made in _products(path)
        if made in files and made in kept
    ]
    texts = repo.read([files[made].oid for _, made in (*pairs, *written)])
    found = [
        f"{made}: a change may have no effect, since the build may make it from {path}; "
        "change that file in the series instead"
        for path, made in written
        if re.search(MARK, texts[files[made].oid][:BEGINNING])
    ]
    for path, made in pairs:
        if made in reads:
            sure = f"has no effect, since the build takes {made}"
        elif re.search(MARK, texts[files[made].oid][:BEGINNING]):
            sure = f"may have no effect, since the build may take {made}"
        else:
            continue
        found.append(f"{path}: a change {sure}, which the source ships; {_advice(repo, tree)}")
    return found


def _products(path: str) -> Iterator[str]:
    stem, ending = posixpath.splitext(path)
    if ending in TEMPLATES:
        yield stem
    yield from (f"{stem}{new}" for new in PRODUCTS.get(ending, ()))


def _advice(repo: Repository, tree: str) -> str:
    """Name what has the file made again, as far as the project's own setup files tell."""
    names = ("setup.py", "setupinfo.py", "buildlibxml.py", "build.py")
    blobs = repo.files(tree, *names).values()
    text = b"\n".join(repo.read([blob.oid for blob in blobs]).values()).decode(errors="replace")
    settings = sorted({*re.findall(SETTING, text)})
    patch = "change that file in the series as well"
    if not settings:
        return patch
    return f"{patch}, or set {' or '.join(settings)} (config-settings or env in forks.toml)"
