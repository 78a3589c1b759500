"""Configures a tree: which files its wheel will hold, what they are made from, and what deciding that reads.

A configured meson build folder is kept in the store: the next change of a source file builds in a copy of it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from patchwheel.build import toolchain
from patchwheel.build.backend import compilers, rename_project
from patchwheel.build.ninja import MADE, Edge, located, parse_ninja
from patchwheel.build.requirements import parse_build_system
from patchwheel.build.sandbox import detect_sandbox
from patchwheel.guest import SURVEY_BUILD
from patchwheel.kit.digest import digest, file_sha256
from patchwheel.kit.errors import BuildError
from patchwheel.kit.progress import Quiet
from patchwheel.kit.repo import Repository
from patchwheel.manifest.lock import build_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from patchwheel.build.backend import BuildSession
    from patchwheel.build.inputs import BuildInputs
    from patchwheel.manifest.model import Fork
    from patchwheel.source.fetch import Source

KIND: Final = "configured"
# Raised whenever the same inputs would be configured in another way, or written down in one.
LAYOUT = 2
# What Meson writes for itself and for tools; no step of a build reads it.
OWN = ("meson-info/", "meson-logs/", "meson-private/", "build.ninja", "compile_commands.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """`outputs` maps the wheel's files to source files, or marked to files of the build folder.

    `reads` are source files that decide what is made; `opened` those that the project's own scripts opened,
    by script, beside what their commands name. `steps` are the extension modules of setuptools, where it builds.
    """

    outputs: Mapping[str, str]
    reads: frozenset[str]
    opened: Mapping[str, frozenset[str]]
    steps: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """A configured tree in the store; `made` are the files that configuring made, with their sha256.

    With setuptools the edges are described, and the project's own Python carries them out: it is `scripted`.
    """

    path: Path
    observed: Observed
    edges: tuple[Edge, ...]
    made: Mapping[str, str]

    @property
    def scripted(self) -> bool:
        return self.observed.steps is not None

    def text(self, path: str) -> str:
        """Return the text of a file of the build folder."""
        file = self.path / "meson" / path.removeprefix(MADE)
        return file.read_text(encoding="utf-8", errors="replace")


def observe(session: BuildSession, *, generate: bool) -> Observed:
    """Run the surveyor in the room, which holds the sources.

    Raises BuildError when the project cannot be configured.
    """
    build_dir, work = session.build_dir, session.build_dir.work
    text = SURVEY_BUILD.read_text(encoding="utf-8")
    trace = work / "trace"
    trace.mkdir()
    log = trace / "log"
    log.touch()
    for file in (work / "survey_build.py", trace / "sitecustomize.py"):
        file.write_text(text, encoding="utf-8")
    system, inside = session.system(), build_dir.path_inside(session.source)
    places = [build_dir.path_inside(trace), *(inside / path for path in system.backend_path)]
    variables = {
        "PYTHONPATH": ":".join(map(str, places)),
        "PATCHWHEEL_SURVEY_LOG": str(build_dir.path_inside(log)),
        "PATCHWHEEL_SURVEY_ROOT": str(inside),
    }
    # The backend counts the files that it would pack: nothing that is worth showing as progress.
    watched = replace(session, report=Quiet(), variables={**session.variables, **variables})
    out = work / "out"
    watched.step(
        [
            *(session.python, build_dir.path_inside(work / "survey_build.py")),
            *(system.backend, build_dir.path_inside(out)),
            *(json.dumps(session.settings()), "generate" if generate else "configure"),
        ],
        what="the project cannot be configured",
    )
    answer = json.loads((out / "survey.json").read_text(encoding="utf-8"))
    if not answer["outputs"]:
        raise BuildError(
            f"{session.fork.name}: its backend names no files for the wheel", log=session.log
        )
    opened: dict[str, set[str]] = {}
    for row in log.read_bytes().decode(errors="surrogateescape").split("\0")[:-1]:
        script, _, path = row.partition("\n")
        opened.setdefault(script, set()).add(path)
    return Observed(
        outputs=answer["outputs"],
        reads=frozenset({*answer["read"], *opened.get("", ())}),
        opened={s: frozenset(paths) for s, paths in opened.items() if s},
        steps=answer["steps"],
    )


def can_follow(source: Source) -> bool:
    """Say whether a project's build can be followed to its outputs: that of meson-python and setuptools can."""
    repo = Repository(source.git_dir)
    blob = repo.files(source.tree).get("pyproject.toml")
    content = repo.read([blob.oid])[blob.oid] if blob else b""
    system = parse_build_system(content.decode())
    return system.is_meson or system.is_setuptools


def without_missing_tools(fork: Fork) -> Fork:
    """Return the fork as a graft builds it here: without the tools that it can do without and this machine lacks."""
    gone = [tool for tool in toolchain.missing(compilers(fork)) if tool in fork.without]
    settings = dict(fork.config_settings)
    for tool in gone:
        for key, value in fork.without[tool].items():
            old, new = settings.get(key, ()), value
            lists = [(v,) if isinstance(v, str) else v for v in (old, new)]
            settings[key] = (*lists[0], *lists[1])
    programs = tuple(tool for tool in fork.programs if tool not in gone)
    return replace(fork, config_settings=settings, programs=programs)


def configure(tree: str, source: Source, inputs: BuildInputs) -> Configured:
    """Return a tree of a fork configured in its build environment, from the store if it is there.

    Raises BuildError when it cannot be configured.
    """
    fork, context = inputs.fork, inputs.context
    parts = [tree, inputs.environment.name, toolchain.key(inputs.compilers), build_settings(fork)]
    key = digest(LAYOUT, *parts, inputs.epoch, detect_sandbox(context.sandbox).level)

    def make(folder: Path) -> None:
        context.progress.say(f"configuring {fork.name} to see what its changes reach")
        with inputs.session("configure") as session:
            Repository(source.git_dir).checkout(tree, session.source)
            rename_project(session.source, fork)
            observed = observe(session, generate=False)
            build = session.build_dir.work / "meson"
            if build.is_dir():
                shutil.copytree(build, folder / "meson", symlinks=True)
            inside = PurePosixPath(session.build_dir.inside)
        data = {
            "inside": str(inside),
            "outputs": dict(observed.outputs),
            "reads": sorted(observed.reads),
            "opened": {s: sorted(paths) for s, paths in observed.opened.items()},
            "steps": observed.steps,
        }
        (folder / "configured.json").write_text(json.dumps(data))

    path = context.store.get(KIND, key, make)
    return _load(path)


def _load(path: Path) -> Configured:
    data = json.loads((path / "configured.json").read_text())
    inside, build = PurePosixPath(data["inside"]), path / "meson"
    steps, text = data["steps"], build / "build.ninja"
    edges = [_edge(step) for step in steps or ()]
    if text.exists():
        read = parse_ninja(text.read_text(encoding="utf-8"))
        edges = [located(edge, inside / "meson", inside / "src") for edge in read]
    names = {f.relative_to(build).as_posix(): f for f in build.rglob("*") if f.is_file()}
    return Configured(
        path=path,
        observed=Observed(
            outputs=data["outputs"],
            reads=frozenset(data["reads"]),
            opened={s: frozenset(paths) for s, paths in data["opened"].items()},
            steps=steps,
        ),
        edges=tuple(edges),
        made={MADE + n: file_sha256(f) for n, f in names.items() if not n.startswith(OWN)},
    )


def _edge(step: Mapping[str, Any]) -> Edge:
    """Take an extension module as a step; a static library of the project has no output in the wheel."""
    return Edge(
        outputs=(MADE + step["output"],) if "output" in step else (),
        inputs=tuple(step["inputs"]),
        command=step.get("command", ""),
        macros=frozenset((name, value) for name, value in step.get("macros", ())),
    )
