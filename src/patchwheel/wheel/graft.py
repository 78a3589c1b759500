"""Carries out a graft: remakes the files that the plan names, and takes all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchwheel.kit import InputError, Repository
from patchwheel.plan import METADATA, read_projects
from patchwheel.wheelfile import make_entry, metadata, zip_date

if TYPE_CHECKING:
    from patchwheel.kit import Blob
    from patchwheel.plan import Base, Output, Plan
    from patchwheel.wheel.remake import Remade
    from patchwheel.wheelfile import Entry, WheelFile


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledWheel:
    """The content of a wheel before it is labelled; `entries` leave out RECORD."""

    made_from: WheelFile
    entries: dict[str, Entry]
    tags: str


def graft(plan: Plan, base: Base, remade: Remade | None = None) -> UnlabelledWheel:
    """Return the base's files with the plan's outputs remade; `remade` are those that were built.

    Raises InputError when the base's sha256 is wrong, or a file in it is not the one of its pin.
    """
    wheel = base.wheel
    tags = wheel.name.tags
    if remade:
        tags = f"{tags.rpartition('-')[0]}-{'.'.join(remade.platforms)}"
    entries = dict(wheel.entries)
    editor = _Editor(plan, base)
    for output in plan.outputs:
        name = base.outputs.get(output.path, output.path)
        old = entries.get(name)
        match output.action:
            case "remove":
                del entries[name]
                continue
            case "build":
                assert remade  # noqa: S101  (a plan that builds anything was remade)
                data, mode = remade.contents[output.path], old.mode if old else 0o755
            case "add":
                data, mode = editor.added(output)
            case _ if output.path == METADATA:
                name = f"{wheel.dist_info}/{METADATA}"
                data, mode = editor.metadata(output), entries[name].mode
            case _:
                data, mode = editor.remade(output, entries[name])
        entries[name] = make_entry(name, data, mode=mode, date=editor.date)
    return UnlabelledWheel(made_from=wheel, entries=entries, tags=tags)


class _Editor:
    """The content of outputs that are copied or edited, from the patched tree."""

    def __init__(self, plan: Plan, base: Base) -> None:
        self.base = base
        self.repo = Repository(plan.tree.source.git_dir)
        self.tree = plan.tree.tree
        self.date = zip_date(plan.tree.source.epoch)
        sources = {o.source for o in plan.outputs if o.action == "remake"}
        self.changes = {c.path: c for c in plan.changes() if c.path in sources} if sources else {}
        # One request for all of them.
        oids = [blob.oid for c in self.changes.values() for blob in (c.old, c.new)]
        self.contents = self.repo.read(oids)

    def remade(self, output: Output, old: Entry) -> tuple[bytes, int]:
        change = self.changes[output.source]
        if old.checked() != self.contents[change.old.oid]:
            raise InputError(
                f"{old.name} in it is not the {output.source} of its pin",
                where=self.base.path,
                hint="run `patchwheel lock` and review the difference",
            )
        kept = change.old.mode == change.new.mode
        return self.contents[change.new.oid], old.mode if kept else _mode(change.new)

    def added(self, output: Output) -> tuple[bytes, int]:
        blob = self.repo.files(self.tree, output.source)[output.source]
        return self.repo.read([blob.oid])[blob.oid], _mode(blob)

    def metadata(self, output: Output) -> bytes:
        old, new = read_projects(self.repo, self.changes[output.source])
        text = self.base.wheel.metadata(METADATA)
        return metadata.set_dependencies(text, old["project"], new["project"])


def _mode(blob: Blob) -> int:
    return int(blob.mode, 8) & 0o777
