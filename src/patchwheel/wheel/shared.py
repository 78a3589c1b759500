"""Takes wheels from a shared store, if they are what would be made here, and adds ours to it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from patchwheel import wheelfile
from patchwheel.kit import CheckError, InputError, digest, plain
from patchwheel.plan import FITTING
from patchwheel.wheel.make import KIND, BuiltWheel, check_wheel, describe, label

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.plan import Plan
    from patchwheel.project import Project
    from patchwheel.remote import Remote, SharedWheel
    from patchwheel.wheel.graft import Remade
    from patchwheel.wheelfile import WheelFile, WheelRecord

# Apart from what was made here, so that a release never finds them.
SHARED: Final = "shared"
ANSWER = "answer.json"
# From the weakest to the strongest.
LEVELS = ("none", "unshare", "bwrap")
# The parts of a graft's key that the machine decides on which it was made.
MACHINE = frozenset({"toolchain", "flags", "zlib"})


def take_shared(project: Project, plan: Plan) -> BuiltWheel | None:
    """Return the plan's wheel as a shared store has it, checked; None to make it here."""
    remote, store = project.remote, project.store
    known = remote and plan.node_key and store.find(KIND, plan.node_key)
    if remote is None or known or (place := plan.shared_as) is None:
        return None
    if plan.elsewhere and (wheel := take_shared(project, plan.elsewhere)):
        return wheel
    if (entry := store.find(SHARED, digest(*place), hashed=True)) is not None:
        from patchwheel.remote import parse_shared

        answer = parse_shared((entry / ANSWER).read_bytes())
        with contextlib.suppress(CheckError):
            _check_fit(plan, answer)
            if remote.signer(answer):
                return _wheel(plan, answer, entry)
        # Whoever made it is no longer trusted, or more is asked of it now.
        store.remove(SHARED, digest(*place))
    # First what would be made here to the last part of the key.
    for answer in sorted(remote.find(*place), key=lambda a: a.node_key != plan.node_key):
        if wheel := _receive(project, remote, plan, answer):
            return wheel
    return None


def share(project: Project, wheel: BuiltWheel) -> None:
    """Add a wheel that was made here to the shared store, if that is asked for."""
    remote, plan = project.remote, wheel.plan
    if remote is None or not remote.write or project.compile_cache != "write" or plan.tree.dev:
        return
    if place := plan.shared_as:
        found = wheelfile.read_wheel(wheel.path, sha256=wheel.sha256)
        remote.add(_answer(place, found, plan.sandbox), wheel.path.read_bytes())


def _answer(place: tuple[str, str], wheel: WheelFile, level: str | None) -> SharedWheel:
    """Return the answer that describes a wheel, as its own record does."""
    from patchwheel.remote import SharedWheel

    record = wheel.record
    tools = record.compiled.toolchain if record.compiled else {}
    return SharedWheel(
        namespace=place[0],
        key=place[1],
        sha256=wheel.sha256,
        size=wheel.path.stat().st_size,
        filename=wheel.path.name,
        label=record.version,
        # Where nothing was compiled, a configuration may have decided on that.
        level=record.compiled.sandbox if record.compiled else level or "none",
        parts=dict(record.key),
        toolchain={name: tool.version for name, tool in tools.items()},
    )


def _check_fit(plan: Plan, answer: SharedWheel) -> None:
    """Raise CheckError for a wheel that this run does not want, or this machine cannot install."""
    from packaging.tags import platform_tags
    from packaging.utils import parse_wheel_filename

    wanted = plan.sandbox or "bwrap"
    if answer.level not in LEVELS[LEVELS.index(wanted) :]:
        raise CheckError(f"it was built at level {answer.level}, and this run builds at {wanted}")
    try:
        platforms = {tag.platform for tag in parse_wheel_filename(answer.filename)[3]}
    except ValueError as err:
        raise CheckError(str(err)) from err
    if platforms.isdisjoint([*platform_tags(), "any"]):
        raise CheckError(f"it is for {min(platforms)}, which this machine is not")


def _receive(
    project: Project, remote: Remote, plan: Plan, answer: SharedWheel
) -> BuiltWheel | None:
    """Bring a wheel into our store, checked; None if it is gone, or refused, which is said."""
    start, who, say = time.monotonic(), remote.signer(answer), project.progress.say
    name = plan.fork.name

    def make(folder: Path) -> None:
        (folder / answer.filename).write_bytes(remote.fetch(answer))
        _check(folder / answer.filename, plan, answer)
        (folder / ANSWER).write_bytes(answer.to_bytes())

    try:
        _check_fit(plan, answer)
        with project.progress.step(f"{name}: asking the shared store", brief=True):
            entry = project.store.get(SHARED, digest(answer.namespace, answer.key), make)
    except (InputError, CheckError) as err:
        say(f"{name}: the wheel that {who} added to the shared store is not used: {err.message}")
        return None
    took = f"{answer.size / 1e6:.1f} MB in {time.monotonic() - start:.1f} s"
    say(f"{name}: taken from the shared store, made by {who} {plain(answer.made_with)}, {took}")
    return _wheel(plan, answer, entry)


def _wheel(plan: Plan, answer: SharedWheel, entry: Path) -> BuiltWheel:
    return BuiltWheel(
        fork=plan.fork.name,
        path=entry / answer.filename,
        sha256=answer.sha256,
        version=answer.label,
        node_key=answer.node_key,
        plan=replace(plan, key_parts=answer.parts, pending=(), undecided=()),
        seconds=0.0,
        cached=True,
    )


def _check(path: Path, plan: Plan, answer: SharedWheel) -> None:
    """Raise CheckError or InputError unless the wheel is one that could have been made here.

    Of a graft, the base and the patched tree give all but what was compiled: that alone is taken on
    trust.
    """
    wheel, graft = wheelfile.read_wheel(path), plan.base is not None
    record = wheel.record
    if answer.unsigned != _answer((answer.namespace, answer.key), wheel, answer.level):
        raise CheckError("its record is not what was signed")
    outputs, taken = (record.remade, record.taken) if graft else ((), 0)
    made = replace(plan, outputs=outputs, taken=taken, pending=(), undecided=())
    made = replace(made, key_parts=record.key)
    ours = {name: part for name, part in plan.key_parts.items() if not graft or name not in MACHINE}
    theirs = {name: part for name, part in record.key.items() if not graft or name in ours}
    follows = {"remade": digest([FITTING, *made.rows])} if graft else {}
    if record.compiled:
        tools = record.compiled.toolchain.items()
        follows["toolchain"] = digest({name: tool.identity for name, tool in tools})
    if theirs != ours or not follows.items() <= record.key.items():
        raise CheckError("it was made from something else")
    check_wheel(path, made, trusted=None)
    # Names of patches and reasons differ between series that give the same tree.
    expected = replace(_record_here(wheel, made), patches=record.patches, why=record.why)
    if expected != record:
        raise CheckError("it is not what its base, the patched tree and what was compiled give")


def _record_here(wheel: WheelFile, plan: Plan) -> WheelRecord:
    """Return the record that the wheel would get here, with what was compiled taken from it."""
    if plan.base is None:
        found = wheelfile.members(wheel.entries.values(), wheel.dist_info)
        return describe(plan, wheel.record.compiled, *found)
    # A wheel that is in our store already needs none of it.
    from patchwheel.wheel.graft import graft

    present = wheelfile.output_names(wheel.entries, wheel.name)
    try:
        built = {o.path: wheel.entries[present[o.path]].checked() for o in plan.built}
        given: Remade = (built, wheel.name.tags, wheel.record.compiled, {})
        return label(graft(plan, plan.base, given), plan)[2]
    except KeyError as err:
        raise CheckError(f"its record names {err}, which is not there") from err
