"""Configure a tree: which files its wheel will hold, and what they are made from.

The store keeps the build folder: the next change of a source file builds in a copy of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from patchwheel import kit
from patchwheel.build import toolchain
from patchwheel.build.backend import BuildSession
from patchwheel.build.backends import BackendKind
from patchwheel.build.inputs import BuildInputs
from patchwheel.build.ninja import IN_BUILD_DIR, Edge, parse_ninja
from patchwheel.build.requirements import parse_build_system
from patchwheel.build.sandbox import detect_sandbox
from patchwheel.guest import WATCH_READS
from patchwheel.manifest import build_settings
from patchwheel.source import Source

KIND: Final = "configured"
# Raised whenever the same inputs would be configured in another way, or written down in one.
LAYOUT = 9
# So many trees are looked at for one with the same files that decide what is built.
KEPT = 3
# What Meson writes for itself and for tools; no step of a build reads it.
OWN = ("meson-info/", "meson-logs/", "meson-private/", "build.ninja", "compile_commands.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedOutputs:
    """What a project's build system says of its build."""

    # The wheel's files, each with its source file, or with its file of the build folder, marked.
    outputs: dict[str, str]
    # The source files that decide what is made.
    reads: frozenset[str]
    # What each of the project's scripts opened, beside what its command names. Of one that was not
    # run, it is ANYTHING.
    opened_by_script: dict[str, frozenset[str]]
    # The extension modules, where setuptools builds, and static libraries, which have no output.
    steps: tuple[Edge, ...] | None = None
    # The file name of the wheel, where one was built.
    wheel: str = ""
    # What METADATA says besides requirements, and whether symbols are stripped, with CMake.
    metadata: str = ""
    stripped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """A configured tree; `made` are the files that configuring made, with their sha256.

    `inside` is the build directory as commands name it.
    """

    path: Path
    inside: str = "/build"
    observed: ListedOutputs
    edges: tuple[Edge, ...]
    made: Mapping[str, str]

    @property
    def scripted(self) -> bool:
        """Whether the project's own Python carries out the edges, as with setuptools."""
        return self.observed.steps is not None

    def text(self, path: str) -> str:
        """Return the text of a file of the build folder; it names files of both without folders."""
        file = self.path / "meson" / path.removeprefix(IN_BUILD_DIR)
        text = file.read_text(encoding="utf-8", errors="replace")
        return text.replace(f"{self.inside}/src/", "").replace(f"{self.inside}/meson/", "")


def list_outputs(session: BuildSession, *, generate: bool) -> ListedOutputs:
    """List what the backend makes of the sources; BuildError when it cannot configure them.

    To `generate` runs the project's generators, to see what they read; only in a sandbox.
    """
    build_dir, work = session.build_dir, session.build_dir.work
    watcher = session.script(WATCH_READS, "sitecustomize.py")
    # The watched processes write it.
    log = work / "opened.log"
    log.touch(exist_ok=False)
    variables = {
        "PYTHONPATH": str(watcher.parent),
        "PATCHWHEEL_INSPECT_LOG": str(build_dir.path_inside(log)),
        "PATCHWHEEL_INSPECT_ROOT": str(build_dir.path_inside(session.source)),
    }
    listed_by = session.system().kind.listed_by
    if session.cache and listed_by == "cmake":
        # It writes down where it found a compiler, and whoever builds there may have no cache.
        variables["PATH"] = session.variables["PATH"].partition(":")[2]
    contained = build_dir.sandbox.level == "bwrap"
    mode = ("generate" if contained else "list") if generate else "configure"
    what = f"the project cannot be {'configured' if listed_by else 'built'}"
    watched = replace(session, variables={**session.variables, **variables})
    listed = watched.ask(ListedOutputs, mode, listed_by, what=what)
    if not listed.outputs:
        problem = "its backend names no files for the wheel"
        raise kit.BuildError(f"{session.fork.name}: {problem}", log=session.log)
    return listed


def backend_kind(source: Source) -> BackendKind:
    """Return the kind of a project's backend."""
    repo = kit.Repository(source.git_dir)
    blob = repo.files(source.tree).get("pyproject.toml")
    content = repo.read([blob.oid])[blob.oid] if blob else b""
    return parse_build_system(content, f"{source.fork.name}: pyproject.toml").kind


def configure_tree(tree: str, source: Source, inputs: BuildInputs) -> Configured:
    """Return a configured tree of a fork, from the store if it is there; BuildError if it fails."""
    fork, context, store = inputs.fork, inputs.context, inputs.context.store
    _ = inputs.environment
    if found := find_configured(tree, source, inputs):
        return found

    @context.progress.step(f"configuring {fork.name} to see what its changes reach")
    def make(folder: Path) -> None:
        with inputs.session("configure", serial=True) as session:
            session.checkout(source, tree)
            observed = list_outputs(session, generate=False)
            build = session.build_dir.work / "meson"
            if build.is_dir():
                kit.copy_untrusted_tree(build, folder / "meson")
            inside = str(session.build_dir.inside)
        text = json.dumps([inside, asdict(observed)], default=sorted)
        (folder / "configured.json").write_text(text)

    parts, older = _parts(inputs), _configured_before(inputs)
    made = store.get(KIND, kit.digest(*parts, tree), make)
    store.remember(KIND, kit.digest(*parts), {"trees": [tree, *older][:KEPT]})
    return _load(made)


def find_configured(tree: str, source: Source, inputs: BuildInputs) -> Configured | None:
    """Return what the store has of a tree, or of one with the same files that decide the build."""
    repo, store = kit.Repository(source.git_dir), inputs.context.store
    try:
        parts = _parts(inputs) if inputs.has_environment else []
    except kit.MachineError:
        parts = []
    for known in dict.fromkeys([tree, *_configured_before(inputs)]) if parts else ():
        if path := store.find(KIND, kit.digest(*parts, known), hashed=True):
            if known == tree:
                return _load(path)
            changes = repo.changes(known, tree) if repo.has(known) else None
            # To read one takes a while.
            if changes is not None and same_build(changes, ()):
                found = _load(path)
                if same_build(changes, found.observed.reads):
                    return found
    return None


def same_build(changes: Iterable[kit.Change], reads: Collection[str]) -> bool:
    """Whether changes neither add nor remove files, nor touch what decides what is built."""
    return all(change.status == "M" and change.path not in reads for change in changes)


def _parts(inputs: BuildInputs) -> list[object]:
    """Return all that a configuration depends on besides the tree."""
    level = detect_sandbox(inputs.context.sandbox).level
    tools, settings = toolchain.key(inputs.compilers), build_settings(inputs.fork)
    return [LAYOUT, inputs.environment.name, tools, settings, inputs.epoch, level]


def _configured_before(inputs: BuildInputs) -> list[str]:
    """Return the trees that were configured last with the same inputs, the newest first."""
    memo = inputs.context.store.memo(KIND, kit.digest(*_parts(inputs))) or {}
    trees = memo.get("trees", [])
    return [t for t in trees if isinstance(t, str)] if isinstance(trees, list) else []


def _load(path: Path) -> Configured:
    data = json.loads((path / "configured.json").read_bytes())
    where, observed = kit.PlainReader().structure(data, tuple[str, ListedOutputs])
    inside, build = PurePosixPath(where), path / "meson"
    edges = observed.steps or ()
    if (build / "build.ninja").exists():
        files = (build / "CMakeFiles/rules.ninja", build / "build.ninja")
        texts = [f.read_text(encoding="utf-8", errors="replace") for f in files if f.exists()]
        # Without bubblewrap each build directory has another name, and CMake writes it everywhere.
        text = "\n".join(texts).replace(f"{inside}/", "/build/")
        edges = parse_ninja(text, PurePosixPath("/build/meson"), PurePosixPath("/build/src"))
    names = {f.relative_to(build).as_posix(): f for f in build.rglob("*") if f.is_file()}
    made = {IN_BUILD_DIR + n: kit.file_sha256(f) for n, f in names.items() if not n.startswith(OWN)}
    return Configured(path=path, inside=where, observed=observed, edges=tuple(edges), made=made)
