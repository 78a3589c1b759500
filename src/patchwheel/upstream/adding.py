"""Add a fork to the manifest, or remove one; manifest, lock and series change together."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import tomlkit

from patchwheel.kit import ManifestError, PatchError, digest, rmtree
from patchwheel.locking import write_lock
from patchwheel.manifest import Fork, transaction
from patchwheel.plan import base_differences, upstream_base
from patchwheel.project import Project
from patchwheel.upstream.pinning import find_pin

KEYS = ("git", "tag", "commit", "programs")
# More than these is another build, not a release's additions.
MOST = 20
# More files of data than these, in one folder, are told by one glob.
FEW = 3
CODE = frozenset({".py", ".pyi", ".so"})
BUNDLED = re.compile(r"[^/]+\.libs/(lib.+?)(-[0-9a-f]{8})?\.so.*")
ABI = re.compile(r"\.cpython-\d+[\w-]*(?=\.)")


def add_fork(project: Project, what: str) -> Fork:
    """Pin and lock NAME, NAME==VERSION or URL@REF as a new fork, and return it.

    Nothing is changed when any of it fails.
    """
    source, notes = find_pin(project, what)
    name, path = source.fork.name, project.manifest.path
    with _changed(project, name) as other:
        before = path.read_text(encoding="utf-8")
        folder = other.manifest_path.parent / "patches" / name
        folder.mkdir(exist_ok=True)
        (folder / "series").touch()
        _append(other, before, _entry(source.fork, notes))
        write_lock(other, [name])
        differences, facts = _learned(other, name)
        if differences:
            project.progress.say(f"{name}: its `upstream-wheel` in forks.toml names what differs")
        _append(other, before, _entry(source.fork, notes, differences, facts))
    return source.fork


def remove_fork(project: Project, fork: Fork, *, force: bool = False) -> None:
    """Remove a fork from manifest and lock, and its series; patches are lost only by `force`."""
    name, kept = fork.name, project.work_folder(fork)
    if not force and (kept.exists() or any(fork.patches.glob("*.patch"))):
        place = kept if kept.exists() else fork.patches
        hint = f"`patchwheel remove {name} --force` removes patches/{name}, and leaves work/{name}"
        raise PatchError(f"{name} has patches", where=place, hint=hint)
    with _changed(project, name) as other:
        document = tomlkit.parse(project.manifest.path.read_text(encoding="utf-8"))
        forks: Any = document["forks"]
        forks.remove(name)
        other.manifest_path.write_text(tomlkit.dumps(document), encoding="utf-8")
        rmtree(other.manifest_path.parent / "patches" / name)
        if left := [*other.manifest.forks]:
            # The environment is another; the other entries are as they were.
            write_lock(other, left[:1])
    rmtree(fork.patches)
    if not left:
        for file in (project.manifest.lock_path, project.manifest.inventory_path):
            file.unlink(missing_ok=True)


def pin_of(fork: Fork) -> dict[str, Any]:
    """Return what the fork's table says of its pin; None where a key is absent."""
    sdist = asdict(fork.sdist) if fork.sdist else None
    return {"version": fork.version, "tag": fork.tag, "commit": fork.commit, "sdist": sdist}


def with_pin(text: str, name: str, pin: Mapping[str, Any]) -> str:
    """Return the text of a manifest with another pin of a fork; comments and order stay."""
    document = tomlkit.parse(text)
    table: Any = document["forks"][name]
    for key, value in pin.items():
        if value is None:
            table.pop(key, None)
        elif isinstance(value, dict):
            table[key] = tomlkit.inline_table()
            table[key].update(value)
        else:
            table[key] = value
    return str(tomlkit.dumps(document))


@contextlib.contextmanager
def _changed(project: Project, name: str) -> Iterator[Project]:
    """Give the project with copies of its files, which take the files' place at the end."""
    root, path = project.manifest.root, project.manifest.path
    busy = "another patchwheel is adding or removing a fork"
    with project.store.lock(f"manifest-{digest(str(root))[:16]}", busy=busy):
        (root / "patches").mkdir(exist_ok=True)
        with transaction.changed(project.manifest, name) as staged:
            before = path.read_bytes()
            yield replace(project, manifest_path=staged)
            if path.read_bytes() != before:
                hint = "run the command again; nothing was changed"
                raise ManifestError("was edited meanwhile", where=path, hint=hint)


def _append(other: Project, before: str, entry: str) -> None:
    other.manifest_path.write_text(f"{before.rstrip()}\n\n{entry}", encoding="utf-8")


def _entry(
    fork: Fork,
    notes: Mapping[str, str],
    differences: Mapping[str, list[str]] = MappingProxyType({}),
    facts: Sequence[str] = (),
) -> str:
    """Return the table of a fork, with what was found as comments."""
    table: Any = tomlkit.table()
    table.add(tomlkit.comment(f"{fork.name} {fork.version}, {notes['']}."))
    table["version"] = fork.version
    if fork.sdist:
        table["sdist"] = tomlkit.inline_table()
        table["sdist"].update(asdict(fork.sdist))
    for key in KEYS:
        if note := notes.get(key):
            table.add(tomlkit.comment(f"{note}."))
        if value := getattr(fork, key):
            table[key] = [*value] if key == "programs" else value
    for fact in facts:
        table.add(tomlkit.comment(f"Upstream's wheel {fact}."))
    if differences:
        table["upstream-wheel"] = tomlkit.table()
        table["upstream-wheel"].comment("where it and a build of the pin differ")
        for key, names in differences.items():
            table["upstream-wheel"][key] = tomlkit.array().multiline(multiline=True)
            table["upstream-wheel"][key].extend(names)
    document, forks = tomlkit.document(), tomlkit.table(is_super_table=True)
    forks[fork.name] = table
    document["forks"] = forks
    return str(tomlkit.dumps(document))


def _learned(other: Project, name: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return the keys of `upstream-wheel` that let a graft be, and what to say of that wheel."""
    found: dict[str, set[str]] = {"only-in-base": set(), "only-in-build": set()}
    bundled: set[str] = set()
    fork = other.manifest.forks[name]
    for python in other.manifest.environment.python:
        chosen = replace(other, python_option=python)
        if base := upstream_base(chosen, fork):
            inventory = chosen.build(fork).inventory
            pair = base_differences(base.outputs, inventory)
            both = base.outputs.keys() & {*inventory.verbatim, *inventory.built}
            for key, names in zip(found, pair, strict=True):
                found[key].update(_globs(names, both))
            bundled |= {m[1] for m in map(BUNDLED.fullmatch, base.wheel.entries) if m}
    facts = [f"bundles {', '.join(sorted(bundled))}: a compile needs them"] if bundled else []
    if (most := max(map(len, found.values()))) > MOST:
        return {}, [*facts, f"and a build of the pin differ in {most} files: no change is a graft"]
    return {key: sorted(names) for key, names in found.items() if names}, facts


def _globs(names: Iterable[str], both: Collection[str]) -> Iterator[str]:
    """Give globs for the names, one for many files of data in a folder; none matches one of both.

    A static build of lxml, for one, adds the headers of its libraries.
    """
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        folder, ending = posixpath.dirname(name), posixpath.splitext(name)[1]
        escaped = name.replace("[", "[[]")
        data = folder and ending and ending not in CODE
        kinds[f"{folder.replace('[', '[[]')}/*{ending}" if data else escaped].append(escaped)
    for glob, members in kinds.items():
        if len(members) > FEW and not any(fnmatchcase(name, glob) for name in both):
            yield glob
        else:
            yield from (ABI.sub(".*", name) for name in members)
