"""What a shared library needs where it is loaded, read with pyelftools."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

MAGIC = b"\x7fELF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The dynamic section of a library."""

    needed: tuple[str, ...]
    # The text of DT_RUNPATH, else of DT_RPATH.
    run_path: str
    uses_rpath: bool
    # The symbol versions that it needs, such as GLIBC_2.17.
    versions: frozenset[str]


def read_library(content: bytes) -> Library:
    """Read what a shared library needs: libraries, run paths, symbol versions."""
    # auditwheel's own readers want paths of files; these libraries are still in a wheel.
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    needed: list[str] = []
    paths: dict[str, str] = {}
    versions: set[str] = set()
    file: Any = ELFFile(io.BytesIO(content))
    for section in file.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                name = tag.entry.d_tag.removeprefix("DT_").lower()
                if name == "needed":
                    needed.append(tag.needed)  # type: ignore[attr-defined]
                elif name in {"rpath", "runpath"}:
                    paths[name] = getattr(tag, name)
        elif isinstance(section, GNUVerNeedSection):
            for _, needed_versions in section.iter_versions():
                versions.update(version.name for version in needed_versions)
    return Library(
        needed=tuple(needed),
        run_path=paths.get("runpath") or paths.get("rpath", ""),
        uses_rpath="runpath" not in paths and "rpath" in paths,
        versions=frozenset(versions),
    )
