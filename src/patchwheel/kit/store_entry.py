"""One entry of the store, and whether its files are those that were stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from patchwheel.kit.files import regular_files
from patchwheel.kit.hashes import file_sha256

MANIFEST = "entry.json"
Kind = Literal["build-envs", "configured", "environments", "files", "unpacked", "wheels"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# A venv is made and used in place, and its interpreter writes into it. It is not verified, but
# remade from wheels that are.
IN_PLACE = frozenset({"environments", "build-envs", "unpacked"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    kind: Kind
    key: str
    path: Path

    def broken(self) -> str | None:
        """Say how the entry differs from what was stored, or None."""
        try:
            manifest = json.loads((self.path / MANIFEST).read_text())
            if manifest["entry"] != f"{self.kind}/{self.key}":
                return f"is {manifest['entry']}, moved here"
            if self.kind in IN_PLACE:
                python = self.path / "bin" / "python"
                gone = python.is_symlink() and not python.exists()
                return f"its interpreter {python.readlink()} is gone" if gone else None
            return self._differs(manifest["files"])
        except OSError as err:
            return f"{err.filename} cannot be read: {err.strerror}"
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{MANIFEST} is damaged"

    def _differs(self, listed: dict[str, list[object]]) -> str | None:
        sizes = dict(regular_files(self.path))
        sizes.pop(MANIFEST)
        if extra := sorted(sizes.keys() - listed.keys()):
            return f"{extra[0]} was added"
        for name, (size, sha256) in listed.items():
            if name not in sizes:
                return f"{name} is missing"
            if sizes[name] != size or file_sha256(self.path / name) != sha256:
                return f"{name} has changed since it was stored"
        return None


def record(kind: str, key: str, content: dict[str, tuple[int, str]]) -> bytes:
    """Return the text of entry.json."""
    manifest = {"entry": f"{kind}/{key}", "files": content}
    return json.dumps(manifest, sort_keys=True, indent=0).encode()


def listed(entry: Path) -> dict[str, tuple[int, str]]:
    """Return the files of an entry with size and sha256, as they were when it was stored."""
    files = json.loads((entry / MANIFEST).read_text())["files"]
    return {name: (size, sha256) for name, (size, sha256) in files.items()}


def last_use(path: Path) -> float:
    marker = path / MANIFEST
    return marker.stat().st_mtime if marker.exists() else path.stat().st_mtime


def linked(environment: Path) -> bool:
    """Say whether a link recorded in the environment's `links` file still points to it."""
    try:
        links = (environment / "links").read_text().splitlines()
    except OSError:
        return False
    return any(Path(link).resolve() == environment.resolve() for link in links)
