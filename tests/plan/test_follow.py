"""What a plan says that a change reaches contains the files that each step of a real build opens.

The pin of each fork is built once under strace, with compilers that only preprocess: what they open
is the same, and a compile takes ten times as long. It needs strace, and takes minutes a fork.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
import random
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from patchwheel.build.backend import BuildSession
from patchwheel.build.configure import Configured, configure_tree
from patchwheel.build.inputs import BuildInputs
from patchwheel.build.ninja import IN_BUILD_DIR
from patchwheel.build.requirements import rename_project
from patchwheel.kit.context import Progress
from patchwheel.kit.repo import Blob, Change, Repository
from patchwheel.kit.store import Store
from patchwheel.manifest.model import Fork
from patchwheel.plan.base import upstream_base
from patchwheel.plan.plan import Planner
from patchwheel.plan.records import Plan
from patchwheel.plan.trace import Tracer
from patchwheel.project import Project
from patchwheel.series.apply import PatchedTree
from patchwheel.series.worktree import patched_tree
from patchwheel.wheel.build import Made, build_needs
from tests.conftest import Stack

pytestmark = [pytest.mark.network, pytest.mark.heavy, pytest.mark.xdist_group("forks")]

LOG = logging.getLogger(__name__)
KINDS = ("py", "pyx", "pxd", "pxi", "c", "cpp", "h", "hpp", "in", "build")
# A built output is made of a source at least, and itself.
SOME = 2
STRACE = (
    "strace",
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-y",
    "-z",
    "-s",
    "1000000",
    "-e",
    "trace=open,openat,execve,clone,clone3,fork,vfork",
    "-e",
    "signal=none",
)
# Stands for gcc, g++ and gfortran: preprocesses what it shall compile, and opens what it shall
# link. Fortran, of which there is little, is compiled: its includes are not the preprocessor's.
COMPILER = """#!/bin/sh
name=${0##*/}; real=$(PATH=${PATH#*:} command -v "$name"); out=; next=; compile=
for word; do
  [ -z "$next" ] || { out=$word; next=; continue; }
  case $word in -o) next=1;; -c) compile=1;; esac
done
case $name$compile$out in
  gcc1*.o | g++1*.o)
    for word; do
      shift
      [ -z "$next" ] || { next=; continue; }
      [ "$word" != -o ] && set -- "$@" "$word" || next=1
    done
    "$real" "$@" -E -o /dev/null || exit; : > "$out";;
  *.so) set -- "$@" $(for word; do case $word in @*) cat "${word#@}";; esac; done)
    for word; do word=${word##*[,=]}; [ -f "$word" ] && : < "$word"; done; : > "$out";;
  *) exec "$real" "$@";;
esac
"""
# What CuPy's build_ext gives to Cython.
CUPY = (
    "-3",
    "-X",
    "c_api_binop_methods=True",
    "-E",
    "CUPY_CUFFT_STATIC=False,CUPY_USE_CUDA_PYTHON=False",
    "-E",
    "CUPY_CUDA_VERSION=13020,CUPY_HIP_VERSION=0,CUPY_CYTHON_VERSION=3.2.4",
)
CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (\d+)(?:<(.*)>)?$")
RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>.*= (\d+)(?:<(.*)>)?$")
# The call may be cut in two by what another process does meanwhile.
SHELL = re.compile(r'(\d+) +execve\("(?:/bin/)?sh", \["(?:/bin/)?sh", "-c", "(.*)"\], ')


class Truth(NamedTuple):
    """By built output, the source files that its steps opened, and those that only key it.

    Two of CuPy's modules depend on all of its headers through CUPY_CACHE_KEY, a macro: the reach of
    one configuration does not have them, a plan does.
    """

    opened: dict[str, frozenset[str]]
    keyed: dict[str, frozenset[str]]


@dataclass
class Opened:
    """What the processes of a build opened, by the command of the step that started them."""

    parents: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    files: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def read(cls, log: Path) -> Opened:
        found = cls()
        with log.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if shell := SHELL.match(line):
                    command = codecs.escape_decode(shell[2].encode())[0].decode()
                    found.commands.setdefault(shell[1], command)
                match = CALL.match(line) or RESUMED.match(line)
                if not match:
                    continue
                process, call = match[1], match[2]
                result, path = match.groups()[-2:]
                if call in {"clone", "clone3", "fork", "vfork"}:
                    found.parents[result] = process
                elif path and call in {"open", "openat"} and "O_DIRECTORY" not in line:
                    found.files[process].add(path)
        return found

    def by_command(self, known: Mapping[str, str]) -> dict[str, set[str]]:
        """Return the files by output, `known` being the outputs by command."""
        answer: dict[str, set[str]] = defaultdict(set)
        for process, files in self.files.items():
            step: str | None = process
            while step and self.commands.get(step) not in known:
                step = self.parents.get(step)
            if step:
                answer[known[self.commands[step]]] |= files
        return answer


def fake_compilers(folder: Path) -> Path:
    folder.mkdir()
    for name in ("gcc", "g++", "gfortran"):
        path = folder / name
        path.write_text(COMPILER)
        path.chmod(0o755)
    return folder


def traced(session: BuildSession, words: Sequence[str | Path], *, cwd: Path) -> Opened:
    log = session.build_dir.work / "strace"
    session.step([*STRACE, "-o", log, *words], cwd=cwd)
    return Opened.read(log)


def truth_of_meson(session: BuildSession, configured: Configured) -> Truth:
    """Return the source files that each built output was made from, by what its steps opened."""
    build_dir = session.build_dir
    folder = build_dir.work / "meson"
    shutil.copytree(configured.path / "meson", folder, symlinks=True, copy_function=shutil.copy)
    ninja = session.python.parent / "ninja"
    rows = json.loads(subprocess.check_output([ninja, "-C", folder, "-t", "compdb"], text=True))
    known = {row["command"]: row["output"] for row in rows}
    fakes = fake_compilers(build_dir.work / "fakes")
    path = f"{fakes}:{session.variables['PATH']}"
    faked = replace(session, variables={**session.variables, "PATH": path})
    words: list[str | Path] = [ninja, "-k", "0", *session.ninja_words]
    opened = traced(faked, words, cwd=folder).by_command(known)
    same = {path: edge.outputs for edge in configured.edges for path in edge.outputs}
    steps: dict[str, set[str]] = {}
    for output, files in opened.items():
        for path in same.get(IN_BUILD_DIR + output, (IN_BUILD_DIR + output,)):
            steps[path] = {p for f in files if (p := _place(f, folder, session))}
    truth = {
        output: closure(source, steps)
        for output, source in configured.observed.outputs.items()
        if source.startswith(IN_BUILD_DIR) and source in same
    }
    empty = [output for output, files in truth.items() if len(files) < SOME]
    assert not empty, "nothing is known to have opened their sources"
    return Truth(truth, {})


def _place(path: str, build: Path, session: BuildSession) -> str | None:
    found = os.path.realpath(path)
    if found.startswith(f"{build}/"):
        return IN_BUILD_DIR + found.removeprefix(f"{build}/")
    source = f"{session.source}/"
    return found.removeprefix(source) if found.startswith(source) else None


def closure(origin: str, steps: Mapping[str, set[str]]) -> frozenset[str]:
    seen, todo = set(), [origin]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += steps.get(path, ())
    return frozenset(seen)


def truth_of_setuptools(session: BuildSession, configured: Configured) -> Truth:
    """Run Cython and the preprocessor for each extension module as CuPy's build would."""
    truth = Truth({}, {})
    script = "import sysconfig; print(sysconfig.get_path('include'))"
    python = subprocess.check_output([session.python, "-c", script], text=True)
    for edge in configured.edges:
        settings = json.loads(edge.command)
        include = [f"-I{path}" for path in (*settings["include_dirs"], python.strip())]
        macros = [f"-D{k}={v}" if v else f"-D{k}" for k, v in sorted(edge.macros)]
        files: set[str] = set()
        for source in (p for p in edge.inputs if not p.endswith((".h", ".hpp"))):
            name = source
            if source.endswith(".pyx"):
                name = source.replace(".pyx", ".cpp")
                files |= opened_by(
                    session,
                    session.python,
                    "-m",
                    "cython",
                    "--cplus",
                    source,
                    "-o",
                    name,
                    *CUPY,
                )
            tool = "nvcc" if source.endswith(".cu") else "g++"
            words = (tool, "-E", "-std=c++17", *include, *macros, name)
            files |= opened_by(session, *words, "-o", os.devnull)
        places = {_place(f, session.build_dir.work / "none", session) for f in files}
        inside = {path for path in places if path}
        # A digest of these is a macro; it matters to those whose text uses it.
        texts = (session.source / path for path in inside)
        if any(b"CUPY_CACHE_KEY" in text.read_bytes() for text in texts):
            folder = session.source / "cupy" / "_core" / "include"
            all_files = (path for path in folder.rglob("*") if path.is_file())
            keyed = {str(path.relative_to(session.source)) for path in all_files}
            truth.keyed[edge.outputs[0].removeprefix(IN_BUILD_DIR)] = frozenset(keyed - inside)
        truth.opened[edge.outputs[0].removeprefix(IN_BUILD_DIR)] = frozenset(inside)
    return truth


def opened_by(session: BuildSession, *words: str | Path) -> set[str]:
    opened = traced(session, words, cwd=session.source)
    return {path for files in opened.files.values() for path in files}


@dataclass(frozen=True)
class Subject:
    """A fork with what planning a change of its pin needs."""

    project: Project
    fork: Fork
    made: Made

    @property
    def pin(self) -> PatchedTree:
        tree = patched_tree(self.project, self.fork)
        series = replace(tree.series, patches=())
        return replace(tree, tree=tree.source.tree, series=series, dev=True)

    def planner(self, tree: PatchedTree) -> Planner:
        return Planner(self.project, tree, made=self.made, configure=True)

    @property
    def inputs(self) -> BuildInputs:
        return self.planner(self.pin).inputs(graft=True)

    def configured(self) -> Configured:
        return configure_tree(self.pin.tree, self.pin.source, self.inputs)

    def truth(self) -> Truth:
        source, configured = self.pin.source, self.configured()
        with self.inputs.session("reach") as session:
            Repository(source.git_dir).checkout(source.tree, session.source)
            rename_project(session.source, self.fork)
            run = truth_of_setuptools if configured.scripted else truth_of_meson
            return run(session, configured)

    def files(self) -> dict[str, bytes]:
        """Return the contents of the pin's plain files."""
        repo = Repository(self.pin.source.git_dir)
        blobs = repo.files(self.pin.tree)
        contents = repo.read([b.oid for b in blobs.values() if b.mode.startswith("100")])
        return {path: contents[b.oid] for path, b in blobs.items() if b.oid in contents}

    def changed(self, path: str, text: bytes) -> PatchedTree:
        """Return the pin with one file changed."""
        pin = self.pin
        repo = Repository(pin.source.git_dir)
        blob = repo.git("hash-object", "-w", "--stdin", stdin=text).decode().strip()
        mode = repo.files(pin.tree)[path].mode
        with repo.index(pin.tree) as env:
            repo.git("update-index", "--cacheinfo", f"{mode},{blob},{path}", env=env)
            return replace(pin, tree=repo.text("write-tree", env=env))

    def plan(self, tree: PatchedTree) -> Plan:
        return self.planner(tree).on(upstream_base(self.project, self.fork))

    def reaches(self, files: Iterable[str]) -> tuple[dict[str, set[str]], set[str]]:
        """Return the plan's inputs of each built output, and the files that make it a compile."""
        pin = self.pin
        blob = Blob(mode="100644", oid="")
        changes = [Change(path=p, status="M", old=blob, new=blob) for p in files]
        inputs, present = self.inputs, self.configured().observed.outputs
        tracer = Tracer(changes=changes, present=present, inventory=inputs.build.inventory)
        traced = tracer.by_trees(pin.source, inputs, (pin.tree, pin.tree))
        assert traced is not None
        by = {e.path: set(e.by) for e in traced.effects if e.action == "build"}
        return by, {line.partition(":")[0] for line in traced.unknown}

    def redefined(self, tree: PatchedTree) -> set[str]:
        """Return the files of the build folder whose command another configuration changes."""
        rows = []
        for one in (self.pin, tree):
            found = configure_tree(one.tree, one.source, self.inputs)
            ninja = str(self.inputs.environment / "bin" / "ninja")
            text = subprocess.check_output(
                [ninja, "-t", "compdb"], cwd=found.path / "meson", text=True
            )
            rows.append({row["output"]: row["command"] for row in json.loads(text)})
        names = rows[0].keys() | rows[1].keys()
        return {IN_BUILD_DIR + n for n in names if rows[0].get(n) != rows[1].get(n)}


def kind_of(path: str) -> str | None:
    """Return which of the kinds a file is; a template is one, whatever it makes."""
    suffix = PurePosixPath(path).suffix.removeprefix(".")
    return "in" if suffix == "tp" else suffix if suffix in KINDS else None


def mutate(path: str, text: str, mark: str) -> str:
    """Return the text with one change that means something: a symbol, or a setting of the build."""
    kind = kind_of(path)
    inner = kind_of(path.removesuffix(".tp").removesuffix(".in")) if kind == "in" else kind
    if inner in {"py", "pyx", "pxi"}:
        return f"{text}\n\ndef {mark}():\n    return 1\n"
    if inner == "pxd":
        return f"{text}\n\ncdef enum:\n    {mark.upper()} = 1\n"
    if inner in {"c", "cpp", "h", "hpp"}:
        # Guarded, since even sources are included more than once.
        used = f"static int __attribute__((used)) {mark}(void) {{ return 1; }}"
        guarded = f"#ifndef {mark.upper()}\n#define {mark.upper()}\n{used}\n#endif"
        return f"{text}\n{guarded}\n"
    if inner == "build":
        return mutate_definition(text)
    return f"{text}\n"


def mutate_definition(text: str) -> str:
    """Give the first extension module a macro, or take away the first installed Python file."""
    head, call, rest = text.partition("extension_module(")
    if not call:
        return re.sub(r"(?m)^\s*'\w+\.py',?\n", "", text, count=1)
    block, end, tail = rest.partition("\n)")
    for name in ("c_args", "cpp_args"):
        macro = f"{name}: ['-DPW_REACH=1']"
        if f"{name}:" in block:
            block = re.sub(rf"{name}:\s*", f"{macro} + ", block, count=1)
        else:
            block = f"{block.rstrip().rstrip(',')},\n  {macro},"
    return head + call + block + end + tail


def draw(files: Mapping[str, bytes], seed: str, count: int) -> list[str]:
    """Give one file of each kind, then others; tests and files of other projects are left out."""
    chance = random.Random(seed)
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in sorted(files):
        if (kind := kind_of(path)) and not re.search(r"(^|/)(tests?|docs?|benchmarks)/", path):
            kinds[kind].append(path)
    drawn: list[str] = []
    while len(drawn) < count:
        for kind in KINDS:
            if kinds[kind] and len(drawn) < count:
                path = chance.choice(kinds[kind])
                kinds[kind].remove(path)
                drawn.append(path)
    return drawn


@pytest.fixture(
    scope="module", params=["scipy", "scikit-learn", "scikit-image", "cupy"], name="subject"
)
def make_subject(request: pytest.FixtureRequest, stack: Stack) -> Subject:
    manifest = stack.project / "forks.toml"
    # Compilers in front of ccache would be found again by it.
    store = Store(stack.store)
    project = Project(manifest, store, Progress(), sandbox="none", compile_cache="off")
    fork = project.manifest.forks[request.param]
    made = Made()
    build_needs(project, fork, made=made)
    return Subject(project, fork, made)


@pytest.fixture(scope="module", name="truth")
def find_truth(subject: Subject) -> Truth:
    return subject.truth()


def test_the_reach_of_each_output_contains_what_its_steps_open(
    subject: Subject, truth: Truth
) -> None:
    files = subject.files()
    reach, compiles = subject.reaches(files)
    missed = {
        output: lacks
        for output, opened in truth.opened.items()
        if (lacks := (opened & files.keys()) - reach.get(output, set()) - compiles)
    }
    true = sum(len(opened & files.keys()) for opened in truth.opened.values())
    thought = sum(len(reach.get(output, ())) for output in truth.opened)
    LOG.info("%d outputs opened %d files; the reach has %d", len(truth.opened), true, thought)
    assert not missed


def test_what_opened_a_changed_file_is_built(subject: Subject, truth: Truth) -> None:
    files = subject.files()
    missed = {}
    for path in draw(files, f"2026 {subject.fork.name}", 10):
        mark = "pw_" + re.sub(r"\W", "_", path)
        tree = subject.changed(path, mutate(path, files[path].decode(), mark).encode())
        plan = subject.plan(tree)
        hit = subject.redefined(tree) if kind_of(path) == "build" else {path}
        built = {output.path for output in plan.built}
        needed = {o for o, f in truth.opened.items() if (f | truth.keyed.get(o, set())) & hit}
        LOG.info("%s: truth %d, planned %d, %s", path, len(needed), len(built), plan.route)
        if plan.route == "graft" and needed - built:
            missed[path] = needed - built
    assert not missed
