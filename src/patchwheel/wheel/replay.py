"""Makes modules by the steps in the inventory, in an environment with only what those need."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from patchwheel.build import IN_BUILD_DIR
from patchwheel.kit import BuildError, read_untrusted
from patchwheel.plan import included
from patchwheel.wheel.fit import MAGIC, PYTHON, read_symbols

if TYPE_CHECKING:
    from patchwheel.build import BuildSession
    from patchwheel.plan import Plan


class NotReplayedError(BuildError):
    """The noted steps do not make a module of the patched tree: it takes a configured project."""


def replay_modules(session: BuildSession, plan: Plan) -> dict[str, bytes]:
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
        raw = {n: read_untrusted(work, f"{out}/{n}") for n in steps}
    except (BuildError, FileNotFoundError) as err:
        why = err.message if isinstance(err, BuildError) else str(err)
        raise NotReplayedError(f"{session.fork.name}: {why}", log=session.log) from err
    for output in plan.built:
        name = output.source.removeprefix(IN_BUILD_DIR)
        if included(read.get(name, ())) != graph.outputs[output.path].included:
            problem = f"{session.fork.name}: {name} reads other files than the pin's"
            raise NotReplayedError(problem, log=session.log)
        if omitted and (lost := _unresolved(raw[name])):
            raise NotReplayedError(f"{session.fork.name}: {name} links {lost}", log=session.log)
    return {o.path: raw[o.source.removeprefix(IN_BUILD_DIR)] for o in plan.built}


def _present(word: str, versions: dict[str, str]) -> str | None:
    """Return a word of a command; None for what is linked from a distribution that is not there."""
    if not word.startswith("@"):
        return word
    name, _, plain = word[1:].partition(":")
    return plain if name in versions else None


def _unresolved(library: bytes) -> str:
    """Return a symbol that no library has that it was linked with, and Python does not have."""
    needs = read_symbols(library)[0] if library.startswith(MAGIC) else {}
    return min((n for n, version in needs if not version and not PYTHON.match(n)), default="")
