"""Carries a plan out: makes the wheel, labels it, records how it was made, and checks it."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from patchwheel.build import OwnWheel
from patchwheel.kit import CheckError, Repository, blob_id
from patchwheel.plan import wheel_in_store
from patchwheel.wheel.graft import UnlabelledWheel, graft
from patchwheel.wheelfile import (
    UNRECORDED,
    check_record,
    make_entry,
    metadata,
    output_names,
    read_wheel,
    record,
    sbom,
    write_wheel,
    zip_date,
)

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.build import BuildInputs
    from patchwheel.kit import Store
    from patchwheel.plan import Plan
    from patchwheel.wheelfile import CompileRecord, WheelFile, WheelName, WheelRecord

KIND: Final = "wheels"
# A series that changes one of these may change the list of outputs.
DECIDING = (
    *("meson.build", "meson.options", "meson_options.txt", "pyproject.toml"),
    *("setup.py", "setup.cfg", "MANIFEST.in"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltWheel(OwnWheel):
    """A wheel in the store; `seconds` is how long it took when it was made."""

    node_key: str
    plan: Plan
    seconds: float
    cached: bool

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


def make_wheel(plan: Plan, store: Store) -> BuiltWheel:
    """Return the wheel of a complete plan, made if it is not in the store; else it is not read."""
    key = plan.key

    def make(folder: Path) -> None:
        start = time.monotonic()
        with contextlib.ExitStack() as stack:
            draft, compiled = _content(plan, stack.enter_context(store.scratch()))
            wheel = finish(draft, plan, folder, compiled)
            check_wheel(wheel, plan, draft)
        seconds = round(time.monotonic() - start, 2)
        (folder / "made.json").write_text(json.dumps({"seconds": seconds}))

    cached = store.find(KIND, key) is not None
    entry = store.path(KIND, key) if cached else store.get(KIND, key, make)
    wheel = wheel_in_store(plan, entry)
    return BuiltWheel(
        fork=wheel.fork,
        path=wheel.path,
        sha256=wheel.sha256,
        version=wheel.version,
        node_key=key,
        plan=plan,
        seconds=json.loads((entry / "made.json").read_text())["seconds"],
        cached=cached,
    )


def _content(plan: Plan, scratch: Path) -> tuple[UnlabelledWheel, CompileRecord | None]:
    """Graft or compile; return the files, and what they were compiled with."""
    if plan.base is None:
        from patchwheel.wheel.compile import compile_wheel

        made = compile_wheel(plan, _inputs(plan), out=scratch)
        return unpack(made.wheel), made.record
    if not plan.built:
        return graft(plan, plan.base), None
    from patchwheel.wheel.remake import remake

    remade = remake(plan, plan.base, _inputs(plan))
    return graft(plan, plan.base, remade), remade.record


def _inputs(plan: Plan) -> BuildInputs:
    assert plan.inputs  # noqa: S101  (a complete plan that builds anything has them)
    return plan.inputs


def unpack(path: Path) -> UnlabelledWheel:
    """Take a finished wheel as a draft, each file compared with RECORD.

    Of modes only the executable bit is kept: the rest comes from our own umask.
    """
    wheel = read_wheel(path)
    check_record(wheel)
    entries = {
        name: replace(entry, mode=0o755 if entry.mode & 0o100 else 0o644)
        for name, entry in wheel.entries.items()
    }
    return UnlabelledWheel(made_from=wheel, entries=entries, tags=wheel.name.tags)


def finish(
    draft: UnlabelledWheel, plan: Plan, folder: Path, compiled: CompileRecord | None
) -> Path:
    """Write the labelled wheel, with its record and a compile's SBOM, and return its path."""
    old = draft.made_from.name
    new = replace(old, version=plan.version, tags=draft.tags)
    info = f"{new.stem}.dist-info"
    # A wheel that was labelled before, as a base built here, has a record of its own.
    dropped = {
        f"{draft.made_from.dist_info}/{n}" for n in (*UNRECORDED, record.FILENAME, sbom.PLACE)
    }
    date = zip_date(plan.tree.source.epoch)
    entries = []
    for entry in draft.entries.values():
        if entry.name in dropped:
            continue
        top, slash, rest = entry.name.partition("/")
        if slash and top == draft.made_from.dist_info:
            data = entry.checked()
            edited = _edit(rest, data, old, new)
            name = f"{info}/{rest}"
            fresh = make_entry(name, edited, mode=entry.mode, date=date)
            entries.append(replace(entry, name=name) if data == edited else fresh)
        elif slash and top == f"{old.stem}.data":
            entries.append(replace(entry, name=f"{new.stem}.data/{rest}"))
        else:
            entries.append(entry)
    made_from = describe(plan, compiled)
    written = {record.FILENAME: made_from.to_bytes()}
    if plan.route == "compile":
        written[sbom.PLACE] = sbom.make_sbom(made_from, metadata.normalize_name(new.name))
    entries += [
        make_entry(f"{info}/{name}", content, mode=0o644, date=date)
        for name, content in written.items()
    ]
    path = folder / new.filename
    write_wheel(path, info, entries)
    return path


def describe(plan: Plan, compiled: CompileRecord | None) -> WheelRecord:
    """Return everything that the wheel was made from, and nothing of this machine."""
    fork, base = plan.fork, plan.base
    return record.WheelRecord(
        schema=record.SCHEMA,
        fork=fork.name,
        version=plan.version,
        route=plan.route,
        pin=record.PinRecord(
            version=fork.version,
            git=fork.git,
            tag=fork.tag,
            commit=fork.commit,
            sdist=record.SdistRecord(**asdict(fork.sdist)) if fork.sdist else None,
        ),
        trees=record.TreesRecord(source=plan.tree.source.tree, patched=plan.tree.tree),
        patches=tuple(
            record.PatchRecord(
                name=patch.name,
                sha256=patch.sha256,
                subject=patch.mail.subject,
                upstream_status=", ".join(patch.trailer("Upstream-Status")),
            )
            for patch in plan.tree.series.patches
        ),
        base=record.BaseRecord(kind=base.kind, filename=base.path.name, sha256=base.sha256)
        if base
        else None,
        remade=tuple(record.OutputRecord(**asdict(output)) for output in plan.outputs),
        taken=plan.taken,
        # What made it a compile is not in its key, and a wheel holds no more than its key says.
        why=plan.why if base else (),
        compiled=compiled,
        key=plan.key_parts,
    )


def check_wheel(path: Path, plan: Plan, draft: UnlabelledWheel) -> None:
    """Raise CheckError or InputError unless the wheel is sound, complete and named correctly."""
    wheel = read_wheel(path)
    trusted = draft.made_from if plan.base else None
    check_record(wheel, trusted=trusted)
    said, named = names_itself(wheel)
    expected = (metadata.normalize_name(plan.fork.distribution), [plan.version])
    if said != named or named[:2] != expected:
        raise CheckError(
            f"the wheel calls itself {said}", where=path.name, expected=str((*expected, *named[2:]))
        )
    _check_outputs(wheel, plan)


def names_itself(wheel: WheelFile) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Return name, version, dist-info folder and tags, by its metadata and by its file name."""
    text, name = wheel.metadata("METADATA"), wheel.name
    said = (
        metadata.normalize_name("".join(metadata.field(text, "Name")[:1])),
        metadata.field(text, "Version"),
        wheel.dist_info,
        sorted(metadata.field(wheel.metadata("WHEEL"), "Tag")),
    )
    info = f"{name.stem}.dist-info"
    return said, (
        *(metadata.normalize_name(name.name), [name.version], info),
        sorted(name.expanded_tags),
    )


def _check_outputs(wheel: WheelFile, plan: Plan) -> None:
    """Compare with the survey: every output is there; a compile copied what is only copied."""
    survey = plan.inventory
    repo = Repository(plan.tree.source.git_dir)
    # On a base of upstream's, or without one, the plan's changes are those since the pin.
    built_here = plan.base and plan.base.kind == "built"
    since_pin = (plan.tree.source.tree, plan.tree.tree)
    changes = repo.changes(*since_pin) if built_here else plan.changes()
    if not plan.base and any(change.path.endswith(DECIDING) for change in changes):
        return
    gone = {change.path for change in changes if change.status == "D"}
    removed = {o.path for o in plan.outputs if o.action == "remove"}
    due = {w: s for w, s in survey.verbatim.items() if s not in gone}
    present = output_names(wheel.entries, wheel.name)
    upstream = plan.fork.upstream_wheel
    globs = upstream.only_in_build if plan.base and upstream else ()
    expected = due.keys() | set(survey.built)
    if plan.base and plan.base.kind == "built":
        # Its own series may have taken some away.
        expected &= plan.base.outputs.keys()
    lost = sorted(expected - present.keys() - removed)
    if lost := [n for n in lost if not any(fnmatchcase(n, g) for g in globs)]:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise CheckError(
            f"the wheel lacks {lost[0]}{more}",
            where=wheel.path.name,
            expected="every output that was recorded in forks.lock",
            hint="`patchwheel doctor` says what a compile lacks",
        )
    blobs = {} if plan.base else repo.files(plan.tree.tree)
    for name, source in due.items() if blobs else ():
        if blob_id(wheel.entries[present[name]].content()) != blobs[source].oid:
            raise CheckError(
                f"{name} is not the {source} that it is a copy of",
                where=wheel.path.name,
                hint="run `patchwheel lock`: the build works differently now",
            )


def _edit(name: str, data: bytes, old: WheelName, new: WheelName) -> bytes:
    if name == "METADATA":
        if metadata.field(data, "Version") != [old.version]:
            raise CheckError("METADATA has another version than the file name")
        return metadata.set_field(data, ["Version"], [("Version", new.version)])
    if name == "WHEEL":
        return metadata.set_tags(data, new.expanded_tags)
    if name.startswith("sboms/"):
        return sbom.set_subject(data, old, new)
    return data
