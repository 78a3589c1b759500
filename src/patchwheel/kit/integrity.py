"""Whether the git repositories and the memos of a store are what was written; all of it at once."""

from __future__ import annotations

import hashlib
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from patchwheel.kit.entry import MANIFEST, stamp, unsealed, walk
from patchwheel.kit.files import file_sha256, rmtree
from patchwheel.kit.repo import ATTRIBUTES, GitError, Repository
from patchwheel.kit.store import Store

# git ends these files with the sha1 of what comes before, and does not compare it when it reads.
SUMMED = re.compile(r"objects/pack/(.+\.(pack|idx|rev)|multi-pack-index)|patchwheel/index-\w+")
LOOSE = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{38})")
REF = re.compile(r"refs/.+(?<!\.lock)")
OBJECT_ID = re.compile(rb"[0-9a-f]{40}\n")
# Seldom changed; git says whether it can work with them.
OTHERS = frozenset({"HEAD", "config", "info/attributes", "packed-refs", "shallow"})
NEEDED = frozenset({"HEAD", "config", "info/attributes"})


def keep_sound(store: Store, git_dir: Path) -> None:
    """Remove a repository whose files were damaged, and say so; it is fetched again.

    Only what changed since the last time is read, and once in a run.
    """
    if git_dir in store.sound or not git_dir.is_dir():
        return
    known = store.memo("git", git_dir.name) or {}
    why, found = _compare(git_dir, known)
    if why:
        if why := _remove(store, git_dir):
            store.say(f"store: git/{git_dir.name}: {why}; fetching it again")
        return
    store.sound.add(git_dir)
    if found != known:
        store.remember("git", git_dir.name, found)


def _remove(store: Store, git_dir: Path) -> str | None:
    """Remove a repository and return why, unless another process has made it again meanwhile."""
    with store.lock(f"git-{git_dir.stem}"):
        why = git_dir.is_dir() and (_compare(git_dir, {})[0] or _fsck(git_dir))
        if not why:
            return None
        # Renamed first, as an entry is.
        with store.scratch() as folder:
            git_dir.rename(folder / "removed")
        return why


def damage(store: Store) -> Iterator[tuple[str, str]]:
    """Hash everything in the store; remove what is damaged, and yield its name and why."""
    for entry in store.entries():
        if why := entry.broken():
            # Without its list it may be an entry that is being made just now.
            if store.discard(entry):
                yield entry.place, f"{why}; removed"
            elif (entry.path / MANIFEST).exists():
                yield entry.place, f"{why}; in use, so it is still there"
    for path in sorted((store.root / "memo").glob("*/*.json")):
        try:
            unsealed(path, f"{path.parent.name}/{path.stem}")
        except (OSError, ValueError) as err:
            rmtree(path)
            yield f"memo/{path.parent.name}/{path.stem}", f"{err}; removed"
    for git_dir in sorted((store.root / "git").glob("*.git")):
        if why := _remove(store, git_dir):
            yield f"git/{git_dir.name}", f"{why}; removed"


def _compare(git_dir: Path, known: dict[str, object]) -> tuple[str | None, dict[str, object]]:
    """Say what is damaged, or return the stamps of all files; `known` ones are not read."""
    found = dict(_stamps(git_dir))
    if lost := NEEDED - found.keys():
        return f"{min(lost)} is missing", {}
    # One without the other may be of a run whose files are not known yet.
    indexed = {name.removesuffix(".idx") for name in found if name.endswith(".idx")}
    if alone := indexed ^ {n.removesuffix(".pack") for n in found if n.endswith(".pack")}:
        return f"{min(alone)} lacks its pack or its index", {}
    changed = {name: git_dir / name for name, row in found.items() if known.get(name) != row}
    # A process that joins packs may just have removed one.
    try:
        data = {name: path.read_bytes() for name, path in changed.items() if path.exists()}
    except OSError as err:
        return f"{err.filename} cannot be read: {err.strerror}", {}
    for name, content in data.items():
        if not _sound(name, content):
            return f"{name} is damaged", {}
    why: str | None = None
    # Packs are joined now and then; one that was lost leaves a hole.
    gone = [name for name in known.keys() - found.keys() if not REF.fullmatch(name)]
    refs = [oid.decode().strip() for name, oid in data.items() if REF.fullmatch(name)]
    if gone or not OTHERS.isdisjoint(data):
        why = _fsck(git_dir, "--connectivity-only")
    elif refs and not _has(git_dir, refs):
        why = "a ref is damaged"
    return why, found


def _stamps(git_dir: Path) -> Iterator[tuple[str, object]]:
    for name, info in walk(git_dir):
        # git writes its configuration anew without a change.
        if name in OTHERS and stat.S_ISREG(info.st_mode):
            yield name, file_sha256(git_dir / name)
        elif REF.fullmatch(name) and stat.S_ISDIR(info.st_mode):
            continue
        elif name in OTHERS or any(kind.fullmatch(name) for kind in (SUMMED, LOOSE, REF)):
            yield name, [*stamp(name, info)[1:]]


def _sound(name: str, data: bytes) -> bool:
    if REF.fullmatch(name):
        return OBJECT_ID.fullmatch(data) is not None
    if name in OTHERS:
        return name != "info/attributes" or data == ATTRIBUTES.encode()
    if not (loose := LOOSE.fullmatch(name)):
        return hashlib.sha1(data[:-20], usedforsecurity=False).digest() == data[-20:]
    try:
        content = zlib.decompress(data)
    except zlib.error:
        return False
    return hashlib.sha1(content, usedforsecurity=False).hexdigest() == loose[1] + loose[2]


def _has(git_dir: Path, names: list[str]) -> bool:
    """Say whether objects are there, without git: to start it takes long.

    And of a partial clone it would fetch what is missing, offline as well.
    """
    objects = git_dir / "objects"
    if (objects / "info" / "alternates").exists():
        return True
    packed = b"".join(path.read_bytes() for path in objects.glob("pack/*.idx"))
    return all(bytes.fromhex(n) in packed or (objects / n[:2] / n[2:]).exists() for n in names)


def _fsck(git_dir: Path, *options: str) -> str | None:
    try:
        Repository(git_dir).git("fsck", *options, "--no-dangling", "--no-progress")
    except GitError as err:
        # No branch is checked out there, which git notices every time.
        said = [line for line in err.stderr.splitlines() if not line.startswith("notice: ")]
        return f"git finds it damaged: {' '.join(said[-1:])}"
    return None
