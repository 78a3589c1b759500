"""Carries a plan out: makes the wheel, labels it, records how it was made, and checks it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from patchwheel import wheelfile
from patchwheel.build import OwnWheel
from patchwheel.kit import CheckError, Progress, Repository, Store, blob_id
from patchwheel.plan import Plan
from patchwheel.wheelfile import PLATFORM, metadata

if TYPE_CHECKING:
    from patchwheel.wheel.graft import UnlabelledWheel
    from patchwheel.wheelfile import CompileRecord, Entry, WheelFile, WheelName, WheelRecord

KIND: Final = "wheels"
SILENT = Progress()
# Beside the wheel in the store: how it was made, this time.
MADE = "made.json"
# The end of a module's file, which names what Python loads it.
MODULE = re.compile(r"(\.abi3|\.cpython-[\w-]+)?\.so$")
# A series that changes one of these may change the list of outputs.
DECIDING = (
    *("meson.build", "meson.options", "meson_options.txt"),
    *("pyproject.toml", "setup.py", "setup.cfg", "MANIFEST.in"),
)

# What a machine of another kind can tell of a wheel.
CHECKED = (
    "checked as a file: RECORD, name and tags, the same files as its base's, and that each copy is "
    "the patched tree's; nothing of it was loaded or run"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltWheel(OwnWheel):
    """A wheel in the store; `seconds` is how long it took when it was made."""

    node_key: str
    plan: Plan
    seconds: float
    cached: bool
    # How many steps the compile cache replayed, and how many ran, when it was made.
    replayed: Mapping[str, int] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, object]:
        return {
            "fork": self.fork,
            "path": str(self.path),
            "sha256": self.sha256,
            "version": self.version,
            "seconds": self.seconds,
            "cached": self.cached,
            "plan": self.plan.to_json(),
        }


def make_wheel(plan: Plan, store: Store, progress: Progress = SILENT) -> BuiltWheel:
    """Return the wheel of a complete plan, made if it is not in the store; else it is not read."""
    key = plan.node_key
    assert key  # noqa: S101  (a complete plan has it)

    def make(folder: Path) -> None:
        # A wheel that is there needs neither.
        from patchwheel.wheel.compile import compile_wheel
        from patchwheel.wheel.graft import graft

        start = time.monotonic()
        draft = graft(plan, plan.base) if plan.base else compile_wheel(plan)
        with progress.step(f"{plan.fork.name}: packing", brief=True):
            # The base has the sha256 that was pinned, so its files are not hashed again.
            path = finish(draft, plan, folder)
            try:
                check_wheel(path, plan, trusted=draft.made_from if plan.base else None)
            except CheckError as err:
                err.log = draft.log
                raise
        seconds = round(time.monotonic() - start, 2)
        diffs = {patch.sha256: patch.changes_sha256 for patch in plan.tree.series.patches}
        made = {"seconds": seconds, "compile_cache": dict(draft.counts), "diffs": diffs}
        (folder / MADE).write_text(json.dumps(made))

    cached = store.find(KIND, key) is not None
    if cached and plan.inputs and plan.inputs.context.compile_cache == "off":
        # Asked for without the cache: one that it had a part in is made again.
        made = json.loads((store.path(KIND, key) / MADE).read_text())
        if made.get("compile_cache", {}).get("hits"):
            store.remove(KIND, key)
            cached = False
    entry = store.path(KIND, key) if cached else store.get(KIND, key, make)
    made = json.loads((entry / MADE).read_text())
    return BuiltWheel(
        **asdict(plan.wheel_in(entry)),
        node_key=key,
        plan=plan,
        seconds=made["seconds"],
        cached=cached,
        replayed=made.get("compile_cache", {}),
    )


def finish(draft: UnlabelledWheel, plan: Plan, folder: Path) -> Path:
    """Write the labelled wheel, with its record and a compile's SBOM, and return its path."""
    new, entries, made_from = label(draft, plan)
    info, date = f"{new.stem}.dist-info", wheelfile.zip_date(plan.tree.source.epoch)
    written = {wheelfile.FILENAME: made_from.to_bytes()}
    if plan.route == "compile":
        sbom = wheelfile.sbom.make_sbom(made_from, metadata.normalize_name(new.name))
        written[wheelfile.sbom.PLACE] = sbom
    for name, content in written.items():
        entries.append(wheelfile.make_entry(f"{info}/{name}", content, mode=0o644, date=date))
    wheelfile.write_wheel(folder / new.filename, info, entries)
    return folder / new.filename


def label(draft: UnlabelledWheel, plan: Plan) -> tuple[WheelName, list[Entry], WheelRecord]:
    """Return the name of the labelled wheel, its entries, and the record that it gets."""
    old, old_info = draft.made_from.name, draft.made_from.dist_info
    new = replace(old, version=plan.version, tags=draft.tags)
    info, date = f"{new.stem}.dist-info", wheelfile.zip_date(plan.tree.source.epoch)
    # A wheel that was labelled before, as a base built here, has a record of its own.
    names = (*wheelfile.UNRECORDED, wheelfile.FILENAME, wheelfile.sbom.PLACE)
    dropped = {f"{old_info}/{name}" for name in names}
    entries = []
    for entry in draft.entries.values():
        top, _, rest = entry.name.partition("/")
        if entry.name in dropped:
            continue
        if top == old_info:
            data = entry.checked()
            edited = _edit(rest, data, old, new)
            fresh = wheelfile.make_entry(f"{info}/{rest}", edited, mode=entry.mode, date=date)
            entries.append(replace(entry, name=fresh.name) if data == edited else fresh)
        elif top == f"{old_info.removesuffix('.dist-info')}.data":
            entries.append(replace(entry, name=f"{new.stem}.data/{rest}"))
        else:
            entries.append(entry)
    return new, entries, describe(plan, draft.compiled, *wheelfile.members(entries, info))


def _edit(name: str, data: bytes, old: WheelName, new: WheelName) -> bytes:
    """Return a file of the dist-info folder as it is in the labelled wheel."""
    if name == "METADATA":
        versions = metadata.field(data, "Version")
        if len(versions) != 1 or not metadata.same_version(versions[0], old.version):
            raise CheckError("METADATA has another version than the file name")
        return metadata.set_field(data, ["Version"], [("Version", new.version)])
    if name == "WHEEL":
        return metadata.set_tags(data, new.expanded_tags)
    if name.startswith("sboms/"):
        return wheelfile.sbom.set_subject(data, old, new)
    return data


def describe(
    plan: Plan, compiled: CompileRecord | None, members: str, runs: tuple[str, ...]
) -> WheelRecord:
    """Return everything that the wheel was made from, and nothing of this machine."""
    record = wheelfile.record
    fork, base = plan.fork, plan.base
    return record.WheelRecord(
        schema=record.SCHEMA,
        fork=fork.name,
        version=plan.version,
        route=plan.route,
        pin=record.PinRecord(
            version=fork.version, git=fork.git, tag=fork.tag, commit=fork.commit, sdist=fork.sdist
        ),
        trees=record.TreesRecord(source=plan.tree.source.tree, patched=plan.tree.tree),
        patches=describe_patches(plan),
        base=record.BaseRecord(kind=base.kind, filename=base.path.name, sha256=base.sha256)
        if base
        else None,
        remade=plan.outputs,
        taken=plan.taken,
        # What made it a compile is not in its key, and a wheel holds no more than its key says.
        why=(*plan.why, *([CHECKED] if base.kind == PLATFORM else [])) if base else (),
        compiled=compiled,
        members=members,
        runs=runs,
        key=plan.key_parts,
    )


def describe_patches(plan: Plan) -> tuple[wheelfile.record.PatchRecord, ...]:
    """Return what the series says now: a wheel stays the same while messages alone change."""
    return tuple(
        wheelfile.record.PatchRecord(
            name=patch.name,
            sha256=patch.sha256,
            subject=patch.mail.subject,
            upstream_status=", ".join(patch.trailer("Upstream-Status")),
            fixes=patch.fixes,
        )
        for patch in plan.tree.series.patches
    )


def check_wheel(path: Path, plan: Plan, *, trusted: WheelFile | None) -> WheelFile:
    """Return a wheel that is sound, complete and named correctly; CheckError, InputError else."""
    wheel = wheelfile.read_wheel(path)
    wheelfile.check_record(wheel, trusted=trusted)
    said, named = names_itself(wheel)
    expected = (metadata.normalize_name(plan.fork.distribution), [plan.version], *named[2:])
    if said != named or named != expected:
        raise CheckError(f"the wheel calls itself {said}", where=path.name, expected=str(expected))
    _check_outputs(wheel, plan)
    return wheel


def names_itself(wheel: WheelFile) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Return name, version, dist-info folder and tags, by its metadata and by its file name."""
    text, name = wheel.metadata("METADATA"), wheel.name
    said = "".join(metadata.field(text, "Name")[:1])
    tags = metadata.field(wheel.metadata("WHEEL"), "Tag")
    versions, project = metadata.field(text, "Version"), metadata.normalize_name(said)
    info, named = f"{name.stem}.dist-info", wheel.project
    return (
        (project, versions, wheel.dist_info, sorted(tags)),
        (named, [name.version], info, sorted(name.expanded_tags)),
    )


def _check_outputs(wheel: WheelFile, plan: Plan) -> None:
    """Compare with the inventory: every output is there; a compile copied what is only copied."""
    base, where = plan.base, wheel.path.name
    present = wheelfile.output_names(wheel.entries, wheel.name)
    known = {*plan.inventory.verbatim, *plan.inventory.built, *(base.outputs if base else ())}
    if foreign := [p for p, n in present.items() if wheelfile.RUNS.fullmatch(n) and p not in known]:
        raise CheckError(
            f"{foreign[0]} would run by itself, and the pin's own wheel has no such file",
            where=where,
            expected="no .pth file and no command that upstream does not have",
            hint="look for what makes it, in the series and in the build; it is not trusted",
        )
    removed = {o.path for o in plan.outputs if o.action == "remove"}
    if base and base.kind == PLATFORM:
        # All that a machine of another kind can check: which files there are, and the copies.
        added = {o.path: o.source for o in plan.outputs if o.action == "add"}
        if found := present.keys() ^ ((base.outputs.keys() | added.keys()) - removed):
            raise CheckError(f"it differs from its base in {min(found)}", where=where)
        copies = {**plan.inventory.verbatim, **added}
        _check_copies(wheel, plan, {n: s for n, s in copies.items() if n not in removed})
        return
    changes = plan.changes_since_pin()
    if not base and any(change.path.endswith(DECIDING) for change in changes):
        return
    gone = {change.path for change in changes if change.status == "D"}
    due = {w: s for w, s in plan.inventory.verbatim.items() if s not in gone}
    _check_present(wheel, plan, (due.keys() | plan.inventory.built) - present.keys() - removed)
    # A graft took what it did not remake, so only a compile can have a stale copy.
    if not base:
        _check_copies(wheel, plan, due)


def _check_present(wheel: WheelFile, plan: Plan, lost: Collection[str]) -> None:
    base, upstream = plan.base, plan.fork.upstream_wheel
    globs = upstream.only_in_build if base and upstream else ()
    lost = sorted(n for n in lost if not any(fnmatchcase(n, g) for g in globs))
    if base and base.kind == "built":
        # Its own series may have taken some away.
        lost = [name for name in lost if name in base.outputs]
    if not base:
        # Upstream may set a variable for the limited API, as cftime does, and we do not.
        made = {MODULE.sub(".so", name) for name in wheel.entries}
        lost = [name for name in lost if MODULE.sub(".so", name) not in made]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise CheckError(
            f"the wheel lacks {lost[0]}{more}",
            where=wheel.path.name,
            expected="every output that was recorded in forks.lock",
            hint="install what the build looked for and did not find, such as a library's headers",
        )


def _check_copies(wheel: WheelFile, plan: Plan, copies: Mapping[str, str]) -> None:
    """Compare files with the sources that they are copies of."""
    present = wheelfile.output_names(wheel.entries, wheel.name)
    blobs = Repository(plan.tree.source.git_dir).files(plan.tree.tree)
    for name, source in copies.items():
        content = wheel.entries[present[name]].content()
        ids = {blob_id(content)}
        # Upstream's wheels for Windows may have its line endings.
        ids |= {blob_id(content.replace(b"\r\n", b"\n"))} if plan.base else set()
        if source not in blobs or blobs[source].oid not in ids:
            hint = "run `patchwheel lock`: the build may work differently now"
            problem = f"{name} is not the patched tree's {source}, of which it is a copy"
            raise CheckError(problem, where=wheel.path.name, hint=hint)
