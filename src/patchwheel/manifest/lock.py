"""forks.lock: what is pinned beside forks.toml. `patchwheel lock` writes it, people commit it."""

# No `from __future__ import annotations`: the reader reads the types at run time.
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Never, cast

from patchwheel.kit import Distribution, InvalidDataError, ManifestError, digest
from patchwheel.manifest import convert
from patchwheel.manifest.inventory import (
    INVENTORY_HOOKS,
    INVENTORY_WRITERS,
    BuildInventory,
    PinGraph,
)
from patchwheel.manifest.model import Fork, Manifest, Sha256
from patchwheel.manifest.surveys import InventoryFile, save_inventories

SCHEMA = 4
NO_GRAPHS: Mapping[tuple[str, str], "PinGraph"] = MappingProxyType({})
NOTHING = {"verbatim": {"source-root": "", "same": {}, "moved": {}}, "built": {}, "reads": {}}
RELOCK = "run `patchwheel lock`, review the difference and commit it"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseWheel:
    """Upstream's wheel; `made_with` has versions of what it was built with, such as Cython."""

    filename: Annotated[str, convert.Rule("NAME.whl", r"[^/]+\.whl")]
    sha256: Sha256
    made_with: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkBuild:
    """What a build of a fork takes for one Python.

    `needs` names the forks whose wheels it compiles against; `base` is None if there is no wheel
    of upstream's for a graft to start from. The `inventory` is in forks.inventory.
    """

    base: BaseWheel | None
    build_requires: tuple[Distribution, ...]
    needs: tuple[str, ...] = ()
    inventory: BuildInventory


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkLock:
    """What is locked for a fork; `settings` is the digest of its build settings.

    `inventory` is the sha256 of the fork's entry in forks.inventory, "" before it is saved.
    `platforms` has the sha256 of each wheel that upstream published of the pin.
    """

    pin: Mapping[str, str | None]
    settings: str
    tree: str
    commit: str | None
    patches: Mapping[str, str]
    builds: Mapping[str, ForkBuild]
    inventory: str = field(default="", compare=False)
    platforms: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentLock:
    """The distributions besides the forks; `groups` are optional ones such as `gpu` and `test`."""

    inputs: str
    packages: tuple[Distribution, ...]
    groups: Mapping[str, tuple[Distribution, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The entries of forks.lock: environments by Python, forks by their `lock_key`.

    The methods raise ManifestError for an entry that is missing or no longer fits the manifest.
    """

    path: Path
    environments: Mapping[str, EnvironmentLock]
    forks: Mapping[str, ForkLock]

    def fork(self, fork: Fork, python: str) -> ForkBuild:
        """Return what is locked for a build of a fork."""
        build = self.entry(fork).builds.get(python)
        if build is None:
            self._stale(fork.lock_key, f"has no entry for Python {python}")
        return build

    def environment(self, manifest: Manifest, python: str) -> EnvironmentLock:
        """Return what is locked for the environment."""
        entry = self.environments.get(key := environment_key(manifest, python))
        if entry is None:
            self._stale("environment", f"has no entry for Python {key}")
        if entry.inputs != environment_inputs(manifest):
            self._stale("environment", "was locked for other requirements, or another machine")
        return entry

    def entry(self, fork: Fork) -> ForkLock:
        """Return what is locked for a fork."""
        entry = self.forks.get(fork.lock_key)
        if entry is None:
            self._stale(fork.lock_key, "has no entry")
        # An entry is used only for what it was made from; a changed manifest needs `lock` first.
        if dict(entry.pin) != fork.pin:
            self._stale(fork.lock_key, "was locked for another pin than the manifest's")
        if entry.settings != build_settings(fork):
            self._stale(fork.lock_key, "was locked for other build settings, or another machine")
        return entry

    def _stale(self, name: str, problem: str) -> Never:
        raise ManifestError(f"{name} {problem}", where=self.path, hint=RELOCK)


def environment_key(manifest: Manifest, python: str) -> str:
    """Return the key of an environment: 3.12, or 3.12:rocm7 when forks are that variant."""
    return ":".join([python, *sorted({f.variant for f in manifest.forks.values() if f.variant})])


def environment_inputs(manifest: Manifest) -> str:
    """Return the digest of what the environment's resolution depends on."""
    forks = {f.distribution: f.version for f in manifest.forks.values()}
    spec = manifest.environment
    return digest(spec.requires, spec.test_requires, forks, *_machine())


def build_settings(fork: Fork) -> str:
    """Return the digest of the settings that change what a build of the pin needs and makes."""
    options = [dict(fork.config_settings), dict(fork.env), fork.build_requires, fork.programs]
    options += [fork.crates] if fork.crates else []
    return digest(*options, fork.upstream_wheel and fork.upstream_wheel.distribution, *_machine())


def _machine() -> list[str]:
    """Return what a lock depends on beside the manifest: other machines take other wheels."""
    # Locks for x86-64 have never named it.
    return [name for name in [os.uname().machine] if name != "x86_64"]


def load_lock(path: Path, *, mend: bool = False) -> Lock:
    """Read forks.lock with forks.inventory; raises ManifestError if either is not as written.

    To `mend`, a fork whose entry in forks.inventory does not fit is one that nothing is known of
    but what it was pinned to, and that has to be locked again.
    """
    data = convert.read_file(path, "JSON", missing="there is no lock", hint=RELOCK)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ManifestError(
            "has another schema", where=path, expected=f"schema {SCHEMA}", hint=RELOCK
        )
    _expand(data)
    file = InventoryFile.read(path.with_suffix(".inventory"))
    for lock_key, entry in _tables(data.get("forks")):
        try:
            file.check(lock_key, str(entry.get("inventory")))
            for python, build in _tables(entry.get("builds")):
                build["inventory"] = file.inventory(lock_key, python)
        except ManifestError:
            if not mend:
                raise
            entry["settings"] = ""
            for _, build in _tables(entry.get("builds")):
                build["inventory"] = NOTHING
    data["path"] = path
    # A later patchwheel may add keys without a new schema.
    reader = convert.make_reader(INVENTORY_HOOKS, strict=False)
    try:
        return cast("Lock", reader.structure(data, Lock))
    except InvalidDataError as err:
        first, *others = err.problems
        more = f" (and {len(others)} more problem{'s' * (len(others) > 1)})" if others else ""
        raise ManifestError(
            f"is damaged: {first}{more}", where=path, expected=first.expected, hint=RELOCK
        ) from err


def _tables(value: object) -> list[tuple[str, dict[str, Any]]]:
    """Return the tables in a table; what is none is reported with all other problems."""
    rows = value.items() if isinstance(value, dict) else ()
    return [(key, row) for key, row in rows if isinstance(row, dict)]


def save_lock(lock: Lock, graphs: Mapping[tuple[str, str], "PinGraph"] = NO_GRAPHS) -> None:
    """Write forks.lock and forks.inventory, with the graphs by lock key and Python.

    The same entries give the same bytes, whatever their order.
    """
    data = convert.write_record(lock, INVENTORY_WRITERS)
    del data["path"]
    inventories = {
        (lock_key, python): build.pop("inventory")
        for lock_key, entry in data["forks"].items()
        for python, build in entry["builds"].items()
    }
    file = save_inventories(lock.path.with_suffix(".inventory"), inventories, graphs)
    for lock_key, entry in data["forks"].items():
        entry["inventory"] = file.sha256(lock_key)
    convert.save_json(lock.path, {"schema": SCHEMA, "distributions": _shared(data), **data})


def _distributions(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield each list of distributions: its Python, and the table and the key that hold it."""
    for name, entry in _tables(data.get("environments")):
        python = name.partition(":")[0]
        yield python, entry, "packages"
        for holder in [table for key, table in _tables(entry) if key == "groups"]:
            yield from ((python, holder, group) for group in holder)
    for _, entry in _tables(data.get("forks")):
        for python, build in _tables(entry.get("builds")):
            yield python, build, "build-requires"


def _shared(data: dict[str, Any]) -> list[list[str]]:
    """Put `name version` for each distribution into the lists, and return the rows with hashes.

    Another Python then adds the hashes of what it alone has. A row names its Python unless it is
    for all that have no row of their own.
    """
    lists = sorted(_distributions(data), key=lambda row: (len(row[0]), row[0]))
    rows = [(python, tuple(row)) for python, table, key in lists for row in table[key]]
    general: dict[tuple[str, ...], tuple[str, ...]] = {}
    own: dict[tuple[str, ...], tuple[str, ...]] = {}
    for python, (name, version, *hashes) in rows:
        general.setdefault((name, version), tuple(hashes))
        own.setdefault((name, version, python), tuple(hashes))
    for python, table, key in lists:
        # The files of a release may become more; who locked before that has a row in the list.
        table[key] = [
            f"{name} {version}" if own[name, version, python] == tuple(hashes) else row
            for row in sorted(table[key])
            for name, version, *hashes in [row]
        ]
    own = {key: hashes for key, hashes in own.items() if general[key[:2]] != hashes}
    return [[*key, *hashes] for key, hashes in sorted((general | own).items())]


def _expand(data: dict[str, Any]) -> None:
    """Undo `_shared`; what is not as it writes it stays, and is found to be damaged."""
    rows = data.get("distributions")
    known: dict[tuple[str, ...], list[str]] = {}
    for row in rows if isinstance(rows, list) else ():
        match row:
            case [str(), str(), str(third), *others] if all(isinstance(h, str) for h in others):
                end = 2 if convert.SHA256.fullmatch(third) else 3
                known[tuple(row[:end])] = row[end:]
    for python, table, key in _distributions(data):
        if isinstance(names := table.get(key), list):
            table[key] = [_row(item, python, known) for item in names]


def _row(item: object, python: str, known: Mapping[tuple[str, ...], list[str]]) -> object:
    if not isinstance(item, str):
        return item
    name, _, version = item.partition(" ")
    hashes = known.get((name, version, python)) or known.get((name, version)) or []
    return [name, version, *hashes]
