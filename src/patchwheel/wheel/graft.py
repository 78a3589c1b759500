"""Carries out a graft: the files that the plan names are remade from the patched tree, all others are the base's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchwheel.kit.errors import InputError
from patchwheel.kit.repo import Repository
from patchwheel.plan.plan import METADATA, old_tree, read_projects
from patchwheel.wheelfile import metadata
from patchwheel.wheelfile.archive import make_entry, zip_date
from patchwheel.wheelfile.read import output_names, read_wheel

if TYPE_CHECKING:
    from patchwheel.plan.plan import Base, Plan
    from patchwheel.wheel.remake import Remade
    from patchwheel.wheelfile.archive import Entry
    from patchwheel.wheelfile.read import WheelFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The content of a wheel that is not labelled yet: what it was made from, its files without RECORD, its tags."""

    made_from: WheelFile
    entries: dict[str, Entry]
    tags: str


def graft(plan: Plan, base: Base, remade: Remade | None = None) -> Draft:
    """Return the base's files with the plan's outputs remade; `remade` are those that had to be built.

    Raises InputError when the base has other bytes than pinned, or when a file in it is not the one of its pin.
    """
    wheel = read_wheel(base.path, sha256=base.sha256)
    repo = Repository(plan.tree.source.git_dir)
    changes = repo.changes(old_tree(plan.tree, base), plan.tree.tree)
    remakes = {o.source for o in plan.outputs if o.action == "remake"}
    changed = {c.path: c for c in changes if c.path in remakes}
    files = repo.files(plan.tree.tree) if plan.configured else {}
    contents = repo.read([b.oid for c in changed.values() for b in (c.old, c.new)])
    date = zip_date(plan.tree.source.epoch)
    entries = dict(wheel.entries)
    outputs = output_names(entries, wheel.name)
    tags = wheel.name.tags
    if remade:
        tags = f"{tags.rpartition('-')[0]}-{'.'.join(remade.platforms)}"
    for output in plan.outputs:
        name = outputs.get(output.path, output.path)
        if output.action == "remove":
            del entries[name]
            continue
        if output.action == "build" and remade:
            mode = entries[name].mode if name in entries else 0o755
            data = remade.contents[output.path]
            entries[name] = make_entry(name, data, mode=mode, date=date)
            continue
        if output.action == "add":
            blob = files[output.source]
            data, mode = repo.read([blob.oid])[blob.oid], int(blob.mode, 8) & 0o777
            entries[name] = make_entry(name, data, mode=mode, date=date)
            continue
        change = changed[output.source]
        if output.path == METADATA:
            name = f"{wheel.dist_info}/{METADATA}"
            projects = [p["project"] for p in read_projects(repo, change)]
            data = metadata.set_dependencies(wheel.metadata(METADATA), *projects)
            mode = entries[name].mode
        else:
            if entries[name].checked() != contents[change.old.oid]:
                raise InputError(
                    f"{name} in it is not the {output.source} of its pin",
                    where=base.path,
                    hint="run `patchwheel lock` and review the difference",
                )
            data = contents[change.new.oid]
            mode = entries[name].mode
            if change.old.mode != change.new.mode:
                mode = int(change.new.mode, 8) & 0o777
        entries[name] = make_entry(name, data, mode=mode, date=date)
    return Draft(made_from=wheel, entries=entries, tags=tags)
