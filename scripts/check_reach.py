"""Compare what a plan says that a change reaches with the truth: the files that each step of a real build opens.

The pin is built once under strace, with compilers that only preprocess (what they open is the same), ten times faster
than a compile. Then, for each fork, seeded single-file mutations are planned like any change, one for each kind of file
and more up to `--count`; what the plan builds must contain what opened the file. Beside that, the reach of every output
is compared with all files that its steps opened. `--write` puts the first mutations that can change a compiled file into
the open work tree of the fork, for `patchwheel verify FORK --from-source --dev`, which compares two full compiles.
It needs strace, and takes minutes.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import random
import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from patchwheel.build.backend import rename_project
from patchwheel.build.configure import configure
from patchwheel.build.ninja import MADE
from patchwheel.kit.progress import Quiet
from patchwheel.kit.repo import Blob, Change, Repository
from patchwheel.kit.store import Store
from patchwheel.plan.base import upstream_base
from patchwheel.plan.plan import Planner
from patchwheel.plan.trace import trace_changes
from patchwheel.project import Project
from patchwheel.series.patched import patched_tree
from patchwheel.source.fetch import fetch_source
from patchwheel.wheel.build import build_needs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from patchwheel.build.backend import BuildSession
    from patchwheel.build.configure import Configured
    from patchwheel.build.inputs import BuildInputs
    from patchwheel.manifest.model import Fork
    from patchwheel.plan.plan import Plan
    from patchwheel.series.apply import PatchedTree
    from patchwheel.wheel.make import BuiltWheel

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("py", "pyx", "pxd", "pxi", "c", "cpp", "h", "hpp", "in", "build")
SOME = 2
STRACE = (
    *("strace", "-f", "--seccomp-bpf", "-qq", "-y", "-z", "-s", "1000000"),
    *("-e", "trace=open,openat,execve,clone,clone3,fork,vfork", "-e", "signal=none"),
)
# Stands for gcc, g++ and gfortran: preprocesses what it shall compile, and opens what it shall link. Fortran, of which
# there is little, is compiled: its includes are not the preprocessor's.
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
    *("-3", "-X", "c_api_binop_methods=True"),
    *("-E", "CUPY_CUFFT_STATIC=False,CUPY_USE_CUDA_PYTHON=False"),
    *("-E", "CUPY_CUDA_VERSION=13020,CUPY_HIP_VERSION=0,CUPY_CYTHON_VERSION=3.2.4"),
)
# What outputs depend on only through CUPY_CACHE_KEY: the reach of one configuration does not have it, a plan does.
KEYED: dict[str, set[str]] = {}
CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (\d+)(?:<(.*)>)?$")
RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>.*= (\d+)(?:<(.*)>)?$")
# The call may be cut in two by what another process does meanwhile.
SHELL = re.compile(r'(\d+) +execve\("(?:/bin/)?sh", \["(?:/bin/)?sh", "-c", "(.*)"\], ')


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


def truth_of_meson(session: BuildSession, configured: Configured) -> dict[str, frozenset[str]]:
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
    words: list[str | Path] = [ninja, "-k", "0", f"-j{session.jobs}"]
    opened = traced(faked, words, cwd=folder).by_command(known)
    same = {path: edge.outputs for edge in configured.edges for path in edge.outputs}
    steps: dict[str, set[str]] = {}
    for output, files in opened.items():
        for path in same.get(MADE + output, (MADE + output,)):
            steps[path] = {p for f in files if (p := _place(f, folder, session))}
    truth = {
        output: closure(source, steps)
        for output, source in configured.observed.outputs.items()
        if source.startswith(MADE) and source in same
    }
    if empty := [output for output, files in truth.items() if len(files) < SOME]:
        raise SystemExit(f"nothing is known to have opened sources of {empty}")
    return truth


def _place(path: str, build: Path, session: BuildSession) -> str | None:
    found = os.path.realpath(path)
    if found.startswith(f"{build}/"):
        return MADE + found.removeprefix(f"{build}/")
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


def truth_of_setuptools(session: BuildSession, configured: Configured) -> dict[str, frozenset[str]]:
    """Run Cython and the preprocessor for each extension module as CuPy's build would."""
    found = {}
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
                    *(session.python, "-m", "cython", "--cplus", source),
                    *("-o", name, *CUPY),
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
            KEYED[edge.outputs[0].removeprefix(MADE)] = keyed - inside
        found[edge.outputs[0].removeprefix(MADE)] = frozenset(inside)
    return found


def opened_by(session: BuildSession, *words: str | Path) -> set[str]:
    opened = traced(session, words, cwd=session.source)
    return {path for files in opened.files.values() for path in files}


@dataclass(frozen=True)
class Subject:
    """A fork with what planning a change of its pin needs."""

    project: Project
    fork: Fork
    made: dict[str, BuiltWheel]

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
        return configure(self.pin.tree, self.pin.source, self.inputs)

    def truth(self) -> dict[str, frozenset[str]]:
        source, configured = self.pin.source, self.configured()
        with self.inputs.session("reach") as session:
            Repository(source.git_dir).checkout(source.tree, session.source)
            rename_project(session.source, self.fork)
            run = truth_of_setuptools if configured.scripted else truth_of_meson
            return run(session, configured)

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
        present = self.configured().observed.outputs
        traced = trace_changes(
            pin.source, self.inputs, changes, (pin.tree, pin.tree), present=present
        )
        by = {e.path: set(e.by) for e in traced.effects if e.action == "build"}
        return by, {line.partition(":")[0] for line in traced.unknown}

    def redefined(self, tree: PatchedTree) -> set[str]:
        """Return the files of the build folder whose command another configuration changes."""
        rows = []
        for one in (self.pin, tree):
            found = configure(one.tree, one.source, self.inputs)
            ninja = str(self.inputs.environment / "bin" / "ninja")
            text = subprocess.check_output(
                [ninja, "-t", "compdb"], cwd=found.path / "meson", text=True
            )
            rows.append({row["output"]: row["command"] for row in json.loads(text)})
        names = rows[0].keys() | rows[1].keys()
        return {MADE + n for n in names if rows[0].get(n) != rows[1].get(n)}


def kind_of(path: str) -> str | None:
    """Return which of the kinds a file is; a template is one, whatever it makes."""
    suffix = PurePosixPath(path).suffix.removeprefix(".")
    return "in" if suffix == "tp" else suffix if suffix in KINDS else None


def mutate(path: str, text: str, mark: str) -> str:
    """Return the text with one change that means something: a new symbol, or another setting of the build."""
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
    """Give the first extension module of a meson.build a macro, or take away the first Python file that it installs."""
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


def compare(
    subject: Subject, truth: Mapping[str, frozenset[str]], files: Mapping[str, bytes]
) -> list[str]:
    """Compare the reach of every output with all that its steps opened; return what the reach lacks."""
    reach, compiles = subject.reaches(files)
    missed, true, thought = [], 0, 0
    for output, opened in truth.items():
        inside = {path for path in opened if path in files}
        lacks = inside - reach.get(output, set()) - compiles
        missed += [f"{output} reads {path}" for path in sorted(lacks)]
        true += len(inside)
        thought += len(reach.get(output, ()))
    print(f"{len(truth)} built outputs opened {true} files in all; the reach has {thought}")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fork")
    parser.add_argument("--seed", default="2026")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--truth", type=Path, help="keep the truth here, or take it")
    parser.add_argument("--write", type=int, metavar="N", help="see above")
    parser.add_argument("--manifest", type=Path, default=ROOT / "forks.toml")
    given = parser.parse_args()
    store = os.environ.get("PATCHWHEEL_STORE", "~/.cache/patchwheel")
    project = Project(
        given.manifest.resolve(), Store(Path(store).expanduser()), Quiet(), sandbox="none"
    )
    fork = project.manifest.forks[given.fork]
    made: dict[str, BuiltWheel] = {}
    build_needs(project, fork, made=made)
    subject = Subject(project, fork, made)
    repo = Repository(fetch_source(project, fork).git_dir)
    blobs = repo.files(subject.pin.tree)
    contents = repo.read([b.oid for b in blobs.values() if b.mode.startswith("100")])
    files = {p: contents[b.oid] for p, b in blobs.items() if b.oid in contents}
    drawn = draw(files, f"{given.seed} {fork.name}", given.count)

    def mutated(path: str) -> bytes:
        mark = "pw_" + re.sub(r"\W", "_", path)
        return mutate(path, files[path].decode(), mark).encode()

    if given.write:
        folder = project.work_folder(fork)
        for path in [p for p in drawn if kind_of(p) not in {"py", "build"}][: given.write]:
            (folder / path).write_bytes(mutated(path))
            print(folder / path)
        return
    if given.truth and given.truth.exists():
        read, keyed = json.loads(given.truth.read_text())
        truth = {output: frozenset(paths) for output, paths in read.items()}
        KEYED.update({output: set(paths) for output, paths in keyed.items()})
    else:
        truth = subject.truth()
        if given.truth:
            rows = [
                {output: sorted(paths) for output, paths in found.items()}
                for found in (truth, KEYED)
            ]
            given.truth.write_text(json.dumps(rows))
    missed = compare(subject, truth, files)
    print("| file | truth | planned | route |\n| --- | --- | --- | --- |")
    for path in drawn:
        tree = subject.changed(path, mutated(path))
        plan = subject.plan(tree)
        hit = subject.redefined(tree) if kind_of(path) == "build" else {path}
        due = {o for o, opened in truth.items() if (opened | KEYED.get(o, set())) & hit}
        built = {output.path for output in plan.built}
        if plan.route == "graft":
            missed += [f"{path} reaches {output}" for output in sorted(due - built)]
        count = len(built) if plan.route == "graft" else "all"
        print(f"| {path} | {len(due)} | {count} | {plan.route} |")
    if missed:
        raise SystemExit("\n".join(["the plan misses:", *missed]))


if __name__ == "__main__":
    main()
