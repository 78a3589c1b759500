"""Fits a remade library into a base wheel, beside the libraries that are bundled there.

It also says why the platform tag of a wheel is not that of its base.
"""

from __future__ import annotations

import contextlib
import io
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from patchwheel.kit import GraftNotPossible, InputError
from patchwheel.wheelfile import read_wheel

if TYPE_CHECKING:
    from patchwheel.plan import Plan

MAGIC = b"\x7fELF"
# auditwheel puts a hash into the name of what it bundles.
BUNDLED = re.compile(r"(.+?)(?:-[0-9a-f]{8})+(\.so.*)")
# All symbols of these libraries have a version; Python's own have none.
VERSIONED = re.compile(r"lib(c|m|dl|rt|util|pthread|gcc_s|stdc\+\+)\.so\.\d+|ld-linux.*")
PYTHON = re.compile(r"_?Py")
MACHINE = re.compile(r"manylinux(?:_\d+_\d+|\d+)_(\w+)")
# How many bytes of a library may be read, and as how many a read counts at least.
READS, READS_PER_BYTE, SMALL_READ = 1 << 18, 8, 16
# With its version, or "".
Symbol: TypeAlias = tuple[str, str]
# A compiled module names the Cython that made it, before options such as `limited`, and its NumPy.
CYTHON = re.compile(rb"_cython_(\d+(?:_\d+)+(?:(?:a|b|rc)\d+)?)")
NUMPY = re.compile(rb"\(NumPy (\d[\d.]*)\)")


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
    """Read what a library needs: libraries, run paths, symbol versions; InputError for no ELF."""
    found: dict[str, list[str]] = {"needed": [], "rpath": [], "runpath": []}
    with _sections(content) as section:
        dynamic, versions = section(".dynamic"), section(".gnu.version_r")
        for tag in dynamic.iter_tags() if dynamic else ():
            name = tag.entry.d_tag.removeprefix("DT_").lower()
            if name in found:
                found[name].append(getattr(tag, name))
        rows = versions.iter_versions() if versions else ()
        return Library(
            needed=tuple(found["needed"]),
            run_path=["", *found["rpath"], *found["runpath"]][-1],
            uses_rpath=bool(found["rpath"]) and not found["runpath"],
            versions=frozenset(version.name for _, needed in rows for version in needed),
        )


def read_symbols(content: bytes) -> tuple[dict[Symbol, str], frozenset[Symbol]]:
    """Return the symbols that a library needs, and those that it has.

    A needed one comes with the name of the library that has its version, or with "".
    """
    needs: dict[Symbol, str] = {}
    has: set[Symbol] = set()
    with _sections(content) as section:
        named: dict[int, Symbol] = {}
        if found := section(".gnu.version_r"):
            rows = found.iter_versions()
            named = {v["vna_other"]: (v.name, name.name) for name, vs in rows for v in vs}
        if found := section(".gnu.version_d"):
            rows = found.iter_versions()
            # The first is the library's own name.
            named |= {d["vd_ndx"]: (next(names).name, "") for d, names in rows if d["vd_ndx"] > 1}
        found, table = section(".gnu.version"), section(".dynsym")
        numbers = memoryview(found.data()).cast("H") if found else None
        for index, symbol in enumerate(table.iter_symbols() if table else ()):
            # The highest bit says that another version is the default.
            number = numbers[index] & 0x7FFF if numbers else 0
            version, origin = named.get(number, ("", ""))
            if symbol["st_shndx"] != "SHN_UNDEF":
                has.add((symbol.name, version))
            elif symbol["st_info"]["bind"] == "STB_GLOBAL":
                needs[symbol.name, version] = origin
    return needs, frozenset(has)


class _Bounded(io.BytesIO):
    """A file of which no more is read than it has many times; ValueError beyond.

    A row of a damaged table may name itself as the next, and all may have one long name.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.left = READS + READS_PER_BYTE * len(content)

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.left -= max(len(found), SMALL_READ)
        if self.left < 0:
            raise ValueError("its tables have no end")
        return found


@contextlib.contextmanager
def _sections(content: bytes) -> Iterator[Callable[[str], Any]]:
    """Give what finds a section of a library by name; InputError for what cannot be read."""
    # auditwheel's own readers want paths of files; these libraries are still in a wheel.
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    # pyelftools raises all of these for a file that is damaged.
    damaged = (ELFError, ArithmeticError, AssertionError, AttributeError, LookupError, ValueError)

    def section(name: str) -> Any:
        found = file.get_section_by_name(name)
        # In a file of debug information it is named, and empty.
        return found if found and found["sh_type"] != "SHT_NOBITS" else None

    try:
        file: Any = ELFFile(_Bounded(content))
        yield section
    except damaged as err:
        raise InputError(f"holds a library that cannot be read: {err!r:.200}") from err


def check_symbols(
    name: str,
    new: bytes,
    old: bytes | None,
    loaded: Mapping[str, str],
    has: Callable[[str], frozenset[Symbol]],
) -> None:
    """Raise GraftNotPossible when a library needs a symbol that the wheel's libraries lack.

    `loaded` are the wheel's files that its needs lead to, by need; `has` gives the symbols of one.
    What the replaced library needed as well is there.
    """
    known = read_symbols(old)[0] if old else {}
    sealed = all(n in loaded or VERSIONED.fullmatch(n) for n in read_library(new).needed)
    for symbol, origin in read_symbols(new)[0].items():
        text, version = symbol
        if symbol in known or (not version and (not sealed or PYTHON.match(text))):
            continue
        # Without a version any of them may have it; one of the system's is the platform tag's.
        files = [loaded[origin]] if origin in loaded else [] if version else [*loaded.values()]
        # The loader takes a symbol of a library without versions for any version.
        if files and not any(symbol in has(f) or (text, "") in has(f) for f in files):
            lacks = f"{text}@{version}" if version else text
            raise GraftNotPossible(
                f"{name} needs {lacks}, which {' and '.join(files)} of the base wheel lacks"
            )


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


def check_makers(name: str, content: bytes, old: bytes, built_with: Mapping[str, str]) -> None:
    """Raise GraftNotPossible for a module of another Cython or a newer NumPy than the base's.

    The `old` one may itself ask for more than most of the base.
    """
    wanted = built_with.get("cython")
    cython = {v.decode().replace("_", ".") for v in CYTHON.findall(content)}
    if wanted and cython - {wanted}:
        found = ", ".join(sorted(cython))
        raise GraftNotPossible(f"{name} was made by Cython {found}, and its base by {wanted}")
    numpy, before = (
        max((v.decode().strip(".") for v in NUMPY.findall(text)), key=_parts, default="")
        for text in (content, old)
    )
    target = before or built_with.get("numpy-target")
    if target and _parts(numpy) > _parts(target):
        raise GraftNotPossible(f"{name} asks for NumPy {numpy}, and its base for {target}")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)


def fit_to_base(
    name: str,
    new: bytes,
    old: bytes | None,
    *,
    bundled: Sequence[str],
    policies: Policies,
    has: Callable[[str], frozenset[Symbol] | None],
    patchelf: Callable[[Sequence[str], bytes], bytes],
) -> bytes:
    """Return a remade library with the run path of the one that it replaces.

    `bundled` are the libraries of the wheel; `has` gives the symbols of a library anywhere in it,
    `patchelf` runs it with options on a library. Raises GraftNotPossible for a need that neither
    the wheel nor every machine meets.
    """
    library, before = read_library(new), read_library(old) if old else None
    theirs = before.needed if before else ()
    files = {path.rpartition("/")[2]: path for path in bundled}
    plain = {file: BUNDLED.sub(r"\1\2", file) for file in files}
    words: list[str] = []
    loaded: dict[str, str] = {}
    for need in library.needed:
        found = [f for f in files if f"{plain[f]}.".startswith(f"{need}.")]
        # That which the replaced library loads, also beside another or the system's.
        match = next((f for f in found if f in theirs), None)
        known = need in {*policies.libraries, *theirs} or need.startswith("ld-linux")
        if match is None and known:
            loaded |= {need: need} if has(need) is not None else {}
            continue
        if not (match := match or next(iter(found), None)):
            raise GraftNotPossible(f"{name} needs {need}, which is not in the base wheel")
        words += ["--replace-needed", need, match]
        loaded[need] = match
    check_symbols(name, new, old, loaded, lambda file: has(file) or frozenset())
    # Those that the replaced library loads, its run path leads to.
    places = [files[f] for f in loaded.values() if f in files.keys() - {*theirs}]
    path = _run_path(name, before.run_path if before else "", places)
    if library.run_path != path:
        words += ["--set-rpath", path] if path else ["--remove-rpath"]
        words += ["--force-rpath"] if path and before and before.uses_rpath else []
    return patchelf(words, new) if words else new


def _run_path(name: str, before: str, places: Iterable[str]) -> str:
    """Return a run path that leads a library of the wheel to these files, too."""
    steps = list(filter(None, before.split(":")))
    ways = [posixpath.relpath(posixpath.dirname(f), posixpath.dirname(name)) for f in places]
    steps += dict.fromkeys(w for f in ways if (w := f"$ORIGIN/{f}") not in steps)
    return ":".join(steps)


def platform_tags(
    current: list[str], needed: frozenset[str], base: frozenset[str], policies: Policies
) -> list[str]:
    """Return the platform tags of a wheel whose new libraries need these symbol versions.

    They are the current ones unless the new libraries need more than those of the `base`. Raises
    GraftNotPossible when no tag admits what they need.
    """
    if needed <= base:
        return current
    tag = next((t for t in policies.tags if policies.admits(t, needed | base)), None)
    if tag is None:
        raise GraftNotPossible(f"no platform tag admits {', '.join(sorted(needed - base))}")
    return [tag]


def risen_tag(plan: Plan, wheel: Path) -> str | None:
    """Name the module and the symbol that raise a graft's tag above its base's; None if none do."""
    base = plan.base
    if base is None or _platform(base.path) == _platform(wheel):
        return None
    old, new = _platform(base.path), _platform(wheel)
    names = [base.outputs.get(output.path, output.path) for output in plan.built]
    why = _first_need(wheel, names, old.split(".")[0])
    return f"the platform tag rises from {old} to {new}{why}"


def above_policy(wheel: Path, policy: str) -> str | None:
    """Name the module and the symbol that need more than a policy; None if none do."""
    platform = _platform(wheel)
    minors = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", platform)]
    if platform == "any" or min(minors, default=99) <= int(policy.rpartition("_")[2]):
        return None
    machine = MACHINE.match(platform)
    names = sorted(read_wheel(wheel).entries)
    why = _first_need(wheel, names, f"{policy}_{machine[1]}") if machine else ""
    return f"its true platform tag, {platform}, is above {policy}{why}"


def _first_need(wheel: Path, names: Iterable[str], tag: str) -> str:
    """Return the first symbol of these members that a platform tag does not promise."""
    if not (match := MACHINE.match(tag)):
        return ""
    policies = load_policies(Path(str(resources.files("auditwheel"))).parent, match[1])
    entries = read_wheel(wheel).entries
    for name in names:
        content = entries[name].content() if name in entries else b""
        needs = sorted(read_symbols(content)[0]) if content.startswith(MAGIC) else []
        for symbol, version in needs:
            if version and not policies.admits(tag, {version}):
                return f": {name} needs {symbol}@{version}"
    return ""


def _platform(wheel: Path) -> str:
    return wheel.stem.rpartition("-")[2]
