"""Fits a remade library into a base wheel, beside the libraries that are bundled there."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.kit import GraftNotPossible, process
from patchwheel.wheelfile import read_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# auditwheel puts a hash into the name of what it bundles.
BUNDLED = re.compile(r"(.+)-[0-9a-f]{8}(\.so.*)")


# A compiled module names the Cython that made it and the NumPy that it was compiled for.
CYTHON = re.compile(rb"_cython_(\d+_\d+_\w+)\b")
NUMPY = re.compile(rb"\(NumPy (\d[\d.]*)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """auditwheel's policies of one architecture.

    `tags` are the platform tags, the most compatible first, with the symbol versions that they
    admit; `libraries` are those that every machine has.
    """

    tags: Mapping[str, frozenset[str]]
    libraries: frozenset[str]

    def admits(self, tag: str, versions: Iterable[str]) -> bool:
        """Whether a platform tag promises these symbol versions; those of no policy are ignored."""
        named = {version.partition("_")[0] for known in self.tags.values() for version in known}
        wanted = {v for v in versions if v.partition("_")[0] in named}
        return wanted <= self.tags.get(tag, frozenset())


def load_policies(site_packages: Path, machine: str) -> Policies:
    """Read the policies that come with the auditwheel of a build environment."""
    path = site_packages / "auditwheel" / "policy" / "manylinux-policy.json"
    rows = json.loads(path.read_text())
    rows.sort(key=lambda row: -row["priority"])
    tags = {
        f"{name}_{machine}": frozenset(
            f"{what}_{number}"
            for what, numbers in row["symbol_versions"][machine].items()
            for number in numbers
        )
        for row in rows
        if machine in row["symbol_versions"]
        for name in (row["name"], *row["aliases"])
    }
    libraries = {name for row in rows for name in row["lib_whitelist"]}
    return Policies(tags=tags, libraries=frozenset(libraries))


def check_makers(name: str, content: bytes, made_with: Mapping[str, str]) -> None:
    """Raise GraftNotPossible for a module of another Cython or a newer NumPy than the base's."""
    cython = {v.decode().replace("_", ".") for v in CYTHON.findall(content)}
    wanted = made_with.get("cython")
    if wanted and cython - {wanted}:
        found = ", ".join(sorted(cython))
        raise GraftNotPossible(f"{name} was made by Cython {found}, and its base by {wanted}")
    numpy = max(map(_version, NUMPY.findall(content)), default=())
    if "numpy-target" in made_with and numpy > _version(made_with["numpy-target"].encode()):
        found = ".".join(map(str, numpy))
        raise GraftNotPossible(
            f"{name} asks for NumPy {found}, and its base for {made_with['numpy-target']}"
        )


def _version(text: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(b".") if part)


def refit(
    name: str,
    new: bytes,
    old: bytes | None,
    *,
    bundled: Sequence[str],
    policies: Policies,
    patchelf: Path,
) -> bytes:
    """Return a remade library with the run path of the one that it replaces.

    `bundled` are the libraries of the wheel. Raises GraftNotPossible for a need that neither the
    wheel nor every machine meets.
    """
    library = read_library(new)
    before = read_library(old) if old else None
    known = set(before.needed if before else ()) | policies.libraries
    words: list[str] = []
    for need in library.needed:
        if need in known or need.startswith("ld-linux"):
            continue
        match = next((file for file in bundled if _plain(file).startswith(need)), None)
        if match is None:
            raise GraftNotPossible(f"{name} needs {need}, which is not in the base wheel")
        words += ["--replace-needed", need, match]
    path = before.run_path if before else ""
    if before is None and words:
        raise GraftNotPossible(f"{name} is new, and needs the wheel's own libraries")
    if library.run_path != path:
        words += ["--set-rpath", path] if path else ["--remove-rpath"]
        words += ["--force-rpath"] if path and before and before.uses_rpath else []
    if not words:
        return new
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "library.so"
        file.write_bytes(new)
        process.capture([patchelf, *words, file], cwd=Path(folder), env=process.base_env())
        return file.read_bytes()


def platform_tags(
    current: Sequence[str],
    made: Iterable[bytes],
    base: Callable[[], frozenset[str]],
    *,
    policies: Policies,
) -> tuple[str, ...]:
    """Return the platform tags of a wheel with new libraries: the base's, if they need no more.

    `base` tells the versions of symbols that the base's own libraries need.

    Raises UnfitError when no tag admits what a library needs.
    """
    wanted = frozenset(v for content in made for v in read_library(content).versions)
    if all(policies.admits(tag, wanted) for tag in current):
        return tuple(current)
    theirs = base()
    if wanted <= theirs:
        return tuple(current)
    everything = wanted | theirs
    tag = next((t for t in policies.tags if policies.admits(t, everything)), None)
    if tag is None:
        raise GraftNotPossible(f"no platform tag admits {', '.join(sorted(wanted - theirs))}")
    return (tag,)


def _plain(file: str) -> str:
    match = BUNDLED.fullmatch(file)
    return match[1] + match[2] if match else file
