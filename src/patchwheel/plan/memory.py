"""Remembers where the files of configured trees lead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchwheel.kit import digest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from patchwheel.build import Configured
    from patchwheel.kit import Store

Followed = dict[str, list[str]]


class Memory:
    """Remembers where files lead, since following all of a project takes seconds."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._open: list[tuple[str, Collection[str], Mapping[str, str], Followed]] = []

    def recall(self, configured: Configured, oids: Mapping[str, str]) -> Followed:
        """Return what is known of unchanged files; new answers are added to it."""
        key = digest(self._key, configured.path.name, sorted(oids))
        memo: dict[str, Any] = self._store.memo("followed", key) or {}
        names, known = memo.get("names", []), memo.get("ends", {})
        found = {
            path: [names[number] for number in numbers]
            for path, (oid, numbers) in known.items()
            if oid == oids.get(path, "")
        }
        self._open.append((key, known.keys(), oids, found))
        return found

    def keep(self) -> None:
        for key, known, oids, found in self._open:
            if found.keys() - known:
                names = sorted({name for ends in found.values() for name in ends})
                # Most names stand in many lists.
                number = {name: at for at, name in enumerate(names)}
                rows = {
                    path: [oids.get(path, ""), [number[name] for name in ends]]
                    for path, ends in found.items()
                }
                self._store.remember("followed", key, {"names": names, "ends": rows})
