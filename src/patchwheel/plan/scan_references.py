"""The references in a source file: includes, cimports, imports. It over-approximates.

A build graph knows them only after a compile. A reference is the end of a path, such as
`_shared/fast.pxd`; `*` stands for what a template fills in, and `^` says that the path begins in a
folder above the file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from pathlib import Path

from patchwheel.build import site_packages
from patchwheel.kit import Blob, Change, Repository, Store

# Raised whenever a text would be found to mention something else.
LAYOUT = 6
# Before the path of a header in the site-packages of the build environment.
SYSTEM = "<"
C_FAMILY = re.compile(
    r".*\.(c|cc|cpp|cxx|h|hh|hpp|hxx|inc|inl|ipp|tcc|cu|cuh|cl|in|src|tp|tmpl"
    r"|template|pyx|pxd|pxi)",
    re.IGNORECASE,
)
CYTHON = re.compile(r".*\.(pyx|pxd|pxi)(\.\w+)?|.*\.(tp|in|src|tmpl|template)")
PYTHON = re.compile(r".*\.py")
# What tables tell a generator to include, SciPy's functions.json for one.
DATA = re.compile(r".*\.(json|toml|yaml|yml|txt|cfg|ini|csv)", re.IGNORECASE)
# The headers of a C++ library have no ending.
BARE = re.compile(r"(.*/)?[^./]+")
# Of these there are many, and few that a build reads.
RARE = re.compile(rf"{PYTHON.pattern}|{DATA.pattern}|{BARE.pattern}", re.IGNORECASE)
FORTRAN = re.compile(r".*\.(f|for|f77|f90|f95|f03|f08|pyf)(\.\w+)?", re.IGNORECASE)

# A module of Fortran may be in a file of any name.
MODULES = {f"*.{ending}" for ending in ("f", "for", "[fF]90*", "[fF]95*", "[fF]0[38]*", "F")}
USE = re.compile(
    r"^[ \t]*(?:use(?:[ \t]*,[ \t]*non_intrinsic)?[ \t:]+|submodule[ \t]*\()[ \t]*"
    r"(?!iso_|ieee_|omp_|openacc|mpi)\w",
    re.MULTILINE | re.IGNORECASE,
)

INCLUDE = re.compile(
    r'^[ \t]*#[ \t]*(?:include|include_next|embed|import)[ \t]*[<"]([^>"\n]+)[>"]', re.MULTILINE
)
# The name of a header as a macro, for `#include MACRO`.
DEFINED = re.compile(r'^[ \t]*#[ \t]*define[ \t]+\w+[ \t]+[<"]([\w./+-]+\.\w+)[>"]', re.MULTILINE)
MACRO = re.compile(r"(?<![\w.-])_*[A-Z][A-Z0-9_]*(?=/)")
EXTERN = re.compile(r"""\bextern\s+from\s+(?:u|b)?["']<?([^"'>]+)>?["']""")
PXI = re.compile(r"""^[ \t]*include\s+["']([^"'\n]+)["']""", re.MULTILINE | re.IGNORECASE)
FROM = re.compile(r"\bfrom\s+([\w.{}]+)\s+c?import\s*(\([^)]*\)|[^\n]*)")
IMPORT = re.compile(r"^[ \t]*c?import\s+([\w. ,{}]+)", re.MULTILINE)
FROM_C = re.compile(r"\bfrom\s+([\w.{}]+)\s+cimport\s*(\([^)]*\)|[^\n]*)")
IMPORT_C = re.compile(r"^[ \t]*cimport\s+([\w. ,{}]+)", re.MULTILINE)
LITERAL = re.compile(r"""["']([\w./-]*\w\.\w+)\+*["']""")
# It begins where a word does: tables of numbers are long.
SOURCE = re.compile(
    r"(?<![\w./-])[\w./-]*\w\.(?:pyx|pxd|pxi|py|h|hh|hpp|hxx|inc|c|cc|cpp|cxx|cu|cuh|f|f90|pyf)\b"
)
# With its quote: a header looks beside itself for `"near.h"` first.
QUOTED = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)
STANDARD = re.compile(r"\w+")
HOLE = re.compile(r"\{\{.*?\}\}|@\w+@|\$\{\w+\}")
NAME = re.compile(r"[\w*]+")


def is_scannable(path: str) -> bool:
    """Say whether a file of this name may mention others."""
    return any(p.fullmatch(path) for p in (C_FAMILY, CYTHON, FORTRAN, RARE))


def scan_references(path: str, text: str) -> set[str]:
    """Return the ends of the paths that a source file may make its reader read."""
    text = HOLE.sub("*", text)
    found: set[str] = set()
    if C_FAMILY.fullmatch(path) or BARE.fullmatch(path):
        for name in (*INCLUDE.findall(text), *DEFINED.findall(text)):
            # A macro may stand for folders: <SYSTEM_ROOT/detail/copy.h>.
            found.add(MACRO.sub("*", name))
    if CYTHON.fullmatch(path):
        found.update(EXTERN.findall(text), PXI.findall(text))
        found |= _modules(text, FROM_C, IMPORT_C, (".pxd",))
    if FORTRAN.fullmatch(path):
        found.update(PXI.findall(text), MODULES if USE.search(text) else ())
    if DATA.fullmatch(path):
        found.update(SOURCE.findall(text))
    if PYTHON.fullmatch(path):
        found.update(LITERAL.findall(text))
        # In Cython's pure Python mode an import may be a cimport.
        suffixes = (".py", ".pxd") if "cython" in text else (".py",)
        found |= {f"^{end}" for end in _modules(text, FROM, IMPORT, suffixes)}
    return {end for name in found if (end := _end(name))}


def same_references(repo: Repository, changes: Collection[Change]) -> bool:
    """Whether changed files mention the same files as before.

    Then what the inventory says of the pin is true of a tree that a base was built from, too.
    """
    wanted = [change for change in changes if is_scannable(change.path)]
    contents = repo.read([blob.oid for change in wanted for blob in (change.old, change.new)])

    def mentioned(change: Change, blob: Blob) -> set[str]:
        return scan_references(change.path, contents[blob.oid].decode(errors="replace"))

    return all(c.status == "M" and mentioned(c, c.old) == mentioned(c, c.new) for c in wanted)


def list_headers(environment: Path, store: Store) -> frozenset[str]:
    """Return the headers below the `include` folders of an environment, which never changes."""
    root = site_packages(environment)

    def walk() -> list[str]:
        found = {f for folder in root.rglob("include") for f in folder.rglob("*") if f.is_file()}
        return sorted(SYSTEM + f.relative_to(root).as_posix() for f in found)

    return frozenset(store.cached("headers", list[str], [LAYOUT, environment.name], walk))


def scan_header(path: str, text: str, headers: Collection[str]) -> set[str]:
    """Return what a header of the environment may include: CUDA's include copies of CuPy's."""
    found = set()
    for quote, name in QUOTED.findall(text):
        beside = posixpath.normpath(f"{posixpath.dirname(path)}/{name}")
        if quote == '"' and beside in headers:
            found.add(beside)
        # A name without folder and ending is a header of the standard library.
        elif not STANDARD.fullmatch(name):
            found.add(_end(name))
    return found


def _modules(
    text: str, origin: re.Pattern[str], plain: re.Pattern[str], suffixes: tuple[str, ...]
) -> set[str]:
    dotted: set[str] = set()
    for module, names in origin.findall(text):
        dotted.add(module)
        dotted |= {f"{module}.{name}" for name in _names(names)}
    for names in plain.findall(text):
        dotted |= {part.split(" as ")[0].strip() for part in names.split(",")}
    found = set()
    for name in dotted:
        parts = [part for part in name.split(".") if part]
        for count in range(1, len(parts) + 1):
            place = "/".join(parts[:count])
            found |= {f"{place}/__init__{suffix}" for suffix in suffixes}
        found |= {"/".join(parts) + suffix for suffix in suffixes if parts}
    return found


def _names(text: str) -> list[str]:
    words = re.sub(r"#[^\n]*|[()\\]", " ", text).split(",")
    return [found[0] for word in words if (found := NAME.match(word.strip()))]


def _end(name: str) -> str:
    parts = [part for part in name.strip().split("/") if part not in {"", ".", ".."}]
    return "/".join(parts)
