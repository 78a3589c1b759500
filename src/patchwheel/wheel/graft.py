"""Carries out a graft: takes the base's files, and copies, edits or builds what the plan names."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel import kit
from patchwheel.build import IN_BUILD_DIR, BuildSession, Configured, build_record, configure_tree
from patchwheel.build import site_packages as packages_of
from patchwheel.plan import METADATA, Base, Plan, included, read_projects
from patchwheel.wheel import fit
from patchwheel.wheelfile import make_entry, metadata, record_hash, zip_date

if TYPE_CHECKING:
    from patchwheel.wheelfile import CompileRecord, Entry, WheelFile

Remade = tuple[dict[str, bytes], str, "CompileRecord | None", dict[str, int]]
PLATFORM = re.compile(r"[a-z]*linux(?:\d+|(?:_\d+){2})?_(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledWheel:
    """The content of a wheel before it is labelled; `compiled` is None if nothing was built.

    `counts` are the compile cache's, and `log` is what the compile said; neither is in the wheel.
    """

    made_from: WheelFile
    entries: dict[str, Entry]
    tags: str
    compiled: CompileRecord | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    log: Path | None = None


def graft(plan: Plan, base: Base, given: Remade | None = None) -> UnlabelledWheel:
    """Return the base's files with the plan's outputs remade; `given` are built ones, if made.

    Raises InputError when the base's sha256 is wrong, or a file in it is not the one of its pin.
    """
    wheel, repo = base.wheel, kit.Repository(plan.tree.source.git_dir)
    entries, date = dict(wheel.entries), zip_date(plan.tree.source.epoch)
    nothing: Remade = ({}, wheel.name.tags, None, {})
    built, tags, compiled, counts = given or (remake(plan, base) if plan.built else nothing)
    copied = [o.source for o in plan.outputs if o.action in {"remake", "add"}]
    blobs = repo.files(plan.tree.tree, *copied) if copied else {}
    # One request for all of them.
    contents = repo.read([blob.oid for blob in blobs.values()])
    changes = {c.path: c for c in plan.changes() if c.path in blobs}
    for output in plan.outputs:
        name = base.outputs.get(output.path, output.path)
        match output.action:
            case "remove":
                del entries[name]
                continue
            case "build":
                data = built[output.path]
                mode = entries[name].mode if name in entries else 0o755
            case "add":
                data, mode = contents[blobs[output.source].oid], _mode(blobs[output.source])
            case _ if output.path == METADATA:
                name = f"{wheel.dist_info}/{METADATA}"
                before, after = read_projects(repo, changes[output.source])
                text = wheel.metadata(METADATA)
                data = metadata.set_dependencies(text, before["project"], after["project"])
                mode = entries[name].mode
            case _:
                change, old = changes[output.source], entries[name]
                _check_pin(old, change, base)
                data = contents[change.new.oid]
                mode = old.mode if change.old.mode == change.new.mode else _mode(change.new)
        entries[name] = make_entry(name, data, mode=mode, date=date)
    return UnlabelledWheel(
        made_from=wheel, entries=entries, tags=tags, compiled=compiled, counts=counts
    )


def _mode(blob: kit.Blob) -> int:
    return int(blob.mode, 8) & 0o777


def _check_pin(old: Entry, change: kit.Change, base: Base) -> None:
    data = old.checked()
    # A copy in a wheel for Windows may have its line endings.
    if change.old.oid not in {kit.blob_id(data), kit.blob_id(data.replace(b"\r\n", b"\n"))}:
        raise kit.InputError(
            f"{old.name} in it is not the {change.path} of its pin",
            where=base.path,
            hint="run `patchwheel lock` and review the difference",
        )


def remake(plan: Plan, base: Base) -> Remade:
    """Build a plan's built outputs and fit them into its base.

    Returns their contents, the tags of the result, and what they were compiled with and how. Raises
    BuildError when a step fails, and GraftNotPossible when the result does not fit the base.
    """
    inputs = plan.inputs
    assert inputs  # noqa: S101  (a complete plan that builds anything has them)
    source = plan.tree.source
    configured = None if plan.needs else configure_tree(plan.configured, source, inputs)
    with inputs.session("remake", serial=bool(plan.needs)) as session:
        session.checkout(source, plan.tree.tree)
        raw = _build(session, plan, configured) if configured else _replay_modules(session, plan)
        if base.kind == "upstream" and inputs.build.base:
            for path, data in raw.items():
                name = base.outputs.get(path)
                old = base.wheel.entries[name].content() if name else b""
                fit.check_makers(path, data, old, inputs.build.base.made_with)
        tell_undone(plan, session)
        contents, tags = _fit_outputs(raw, base, session)
        record, counts = build_record(inputs, session), session.counts()
    # Digests before relinking: only these can be compared with another build's.
    digests = {path: record_hash(data) for path, data in raw.items()}
    return contents, tags, replace(record, built=digests), counts


def tell_undone(plan: Plan, session: BuildSession) -> None:
    """Say which files of the series the build has written anew."""
    for change in plan.changes_since_pin():
        there = os.path.lexists(session.source / change.path)
        if change.status != "D" and there and session.written_anew(change.path):
            problem = f"its build writes {change.path} anew: to change it alone has no effect"
            session.context.note(f"warning: {session.fork.name}: {problem}")


def _build(session: BuildSession, plan: Plan, configured: Configured) -> dict[str, bytes]:
    steps = {path for edge in configured.edges for path in edge.outputs}
    made = [o.source.removeprefix(IN_BUILD_DIR) for o in plan.built if o.source in steps]
    folder = "modules" if configured.scripted else "meson"
    if configured.scripted:
        what = "the extension modules cannot be built"
        session.ask(list[str], "build", json.dumps(made), what=what, out=folder)
    else:
        _run_ninja(session, configured, made, session.build_dir.work / folder)
    return {o.path: _read(session, folder, o.source, ruled=o.source in steps) for o in plan.built}


def _run_ninja(
    session: BuildSession, configured: Configured, made: Sequence[str], folder: Path
) -> None:
    """Build in a copy of the configured folder."""
    # After the sources: older than them, ninja would configure it again.
    shutil.copytree(configured.path / "meson", folder, copy_function=shutil.copy)
    if configured.observed.metadata:
        _settle(folder, configured.inside, str(session.build_dir.inside))
    if made:
        ninja, inside = session.python.parent / "ninja", session.build_dir.path_inside(folder)
        session.step([ninja, "-C", inside, *session.ninja_words, *made])
        if configured.observed.stripped:
            session.step(["strip", *(inside / path for path in made)])


def _settle(folder: Path, old: str, new: str) -> None:
    """Give a copy of CMake's folder, which names its own place everywhere, another place."""
    now = time.time()
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if old != new:
            path.write_bytes(path.read_bytes().replace(os.fsencode(old), os.fsencode(new)))
        # In whatever order they were copied, none is newer: CMake would configure again.
        os.utime(path, (now, now))


def _read(session: BuildSession, folder: str, source: str, *, ruled: bool) -> bytes:
    name = source.removeprefix(IN_BUILD_DIR)
    try:
        return kit.read_untrusted(session.build_dir.work, f"{folder}/{name}")
    except FileNotFoundError as err:
        if not ruled:
            # The inventory knows it from a machine with more tools.
            raise kit.GraftNotPossible(f"{name} has no build rule without more tools") from err
        message = f"{session.fork.name}: its build did not make {name}"
        raise kit.BuildError(message, log=session.log) from err


def _replay_modules(session: BuildSession, plan: Plan) -> dict[str, bytes]:
    """Make the plan's built outputs and return them; raises NotReplayedError."""
    inputs, graph = plan.inputs, plan.graph()
    assert inputs  # noqa: S101  (a complete plan that builds anything has them)
    assert graph  # noqa: S101  (by which it was planned)
    python = str(inputs.context.interpreter.path.parent.parent)
    work, omitted = session.build_dir.work, False
    steps: dict[str, list[list[str]]] = {}
    for output in plan.built:
        name = output.source.removeprefix(IN_BUILD_DIR)
        for command in graph.outputs[output.path].commands:
            words = shlex.split(command.replace("{python}", python))
            kept = [_present(word, inputs.versions) for word in words]
            omitted |= None in kept
            steps.setdefault(name, []).append([word for word in kept if word is not None])
    (file := session.build_dir.scripts / "steps.json").write_text(json.dumps(steps))
    inside = session.build_dir.path_inside(file)
    try:
        what, out = "its noted steps fail", "modules"
        read = session.ask(dict[str, list[str]], "replay", str(inside), what=what, out=out)
        raw = {n: kit.read_untrusted(work, f"{out}/{n}") for n in steps}
    except (kit.BuildError, FileNotFoundError) as err:
        why = err.message if isinstance(err, kit.BuildError) else str(err)
        raise kit.NotReplayedError(f"{session.fork.name}: {why}", log=session.log) from err
    for output in plan.built:
        name = output.source.removeprefix(IN_BUILD_DIR)
        if included(read.get(name, ())) != graph.outputs[output.path].included:
            problem = f"{session.fork.name}: {name} reads other files than the pin's"
            raise kit.NotReplayedError(problem, log=session.log)
        if omitted and (lost := _unresolved(raw[name])):
            raise kit.NotReplayedError(f"{session.fork.name}: {name} links {lost}", log=session.log)
    return {o.path: raw[o.source.removeprefix(IN_BUILD_DIR)] for o in plan.built}


def _present(word: str, versions: dict[str, str]) -> str | None:
    """Return a word of a command; None for what is linked from a distribution that is not there."""
    if not word.startswith("@"):
        return word
    name, _, plain = word[1:].partition(":")
    return plain if name in versions else None


def _unresolved(library: bytes) -> str:
    """Return a symbol that no library has that it was linked with, and Python does not have."""
    needs = fit.read_symbols(library)[0] if library.startswith(fit.MAGIC) else {}
    return min((n for n, version in needs if not version and not fit.PYTHON.match(n)), default="")


def _fit_outputs(
    raw: Mapping[str, bytes], base: Base, session: BuildSession
) -> tuple[dict[str, bytes], str]:
    """Return built files as they fit the base, and the tags of a wheel with them."""
    contents = dict(raw)
    libraries = [path for path, data in raw.items() if data.startswith(fit.MAGIC)]
    tags, _, platform = base.wheel.name.tags.rpartition("-")
    platforms = platform.split(".")
    if not libraries:
        return contents, base.wheel.name.tags
    match = PLATFORM.fullmatch(platforms[0])
    if match is None:
        raise kit.GraftNotPossible(f"{base.path.name} is for {platforms[0]}, not for a Linux")
    policies = fit.load_policies(packages_of(session.build_dir.env), match[1])
    bundled = [n for n in base.outputs if n.partition("/")[0].endswith(".libs")]
    shared = {path: name for path, name in base.outputs.items() if re.search(r"\.so(\.|$)", path)}
    inside = {path.rpartition("/")[2]: path for path in shared}

    @functools.cache
    def has(file: str) -> frozenset[fit.Symbol] | None:
        if file not in inside:
            return None
        own = raw.get(inside[file])
        return fit.read_symbols(own or base.wheel.entries[base.outputs[inside[file]]].checked())[1]

    fitted = functools.partial(
        fit.fit_to_base, bundled=bundled, policies=policies, has=has, patchelf=session.patchelf
    )
    for path in libraries:
        name = base.outputs.get(path)
        old = base.wheel.entries[name].checked() if name else None
        contents[path] = fitted(path, raw[path], old)
    needed = frozenset(v for path in libraries for v in fit.read_library(contents[path]).versions)
    if not all(policies.admits(tag, needed) for tag in platforms):
        others = [base.wheel.entries[name] for path, name in shared.items() if path not in raw]
        theirs = frozenset(v for e in others for v in fit.read_library(e.content()).versions)
        platforms = fit.platform_tags(platforms, needed, theirs, policies)
    return contents, f"{tags}-{'.'.join(platforms)}"
