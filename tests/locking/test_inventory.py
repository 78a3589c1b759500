import importlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from patchwheel.build.requirements import (
    build_environment,
    parse_build_system,
    static_build_requirements,
)
from patchwheel.guest import inspect_build, watch_reads
from patchwheel.kit import uv
from patchwheel.kit.context import Context, SandboxMode
from patchwheel.kit.errors import BuildError, MachineError
from patchwheel.kit.interpreter import Interpreter
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store
from patchwheel.kit.uv import load_index_config
from patchwheel.locking.inventory import built_with, inventory_of_pin
from patchwheel.manifest.inventory import BuildInventory
from patchwheel.manifest.model import Fork, Sdist, UpstreamWheel
from patchwheel.source.fetch import Source
from patchwheel.wheelfile.read import read_wheel
from tests.fixtures import support
from tests.fixtures.contexts import make_context
from tests.fixtures.projects import package_files
from tests.fixtures.support import Recorder

# What meson-python shows of itself, without meson: files that are copied, and one that ninja makes.
MESONPY = """\
import json, os, pathlib

class Project:
    def build(self):
        raise SystemExit("this would compile")

class _WheelBuilder:
    def _install_path(self, wheel, origin, destination, *more):
        raise SystemExit("this would read what is not built")

def build_wheel(out, settings):
    Project().build()
    build = pathlib.Path(settings["build-dir"])
    (build / "meson-info").mkdir(parents=True)
    read = [os.path.abspath("meson.build")]
    (build / "meson-info" / "intro-buildsystem_files.json").write_text(json.dumps(read))
    (build / "build.ninja").write_text(
        "build x.c: CUSTOM_COMMAND gen.py\\n"
        "build x.so: c_LINKER x.c\\n"
        "build meson-internal__clean: CUSTOM_COMMAND PHONY\\n"
        "build clean: phony meson-internal__clean\\n"
        "build all: phony x.so\\n"
    )
    open("pyproject.toml").close()
    open("README.md").close()
    for name in ("a.py", "both.py"):
        destination = pathlib.PurePath("pw_demo", name)
        _WheelBuilder()._install_path(None, os.path.abspath(name), destination, 1, 2)
    _WheelBuilder()._install_path(None, build / "x.so", pathlib.PurePath("pw_demo/x.so"))
    return "pw_demo-1.0-py3-none-any.whl"
"""
NINJA = """\
#!/usr/bin/env python3
import json, os, runpy, subprocess, sys
build, words = sys.argv[2], sys.argv[3:]
source = os.environ["PATCHWHEEL_INSPECT_ROOT"]
python = os.path.join(os.path.dirname(os.path.abspath(__file__)), "python")
command = [python, source + "/gen.py", source + "/both.py"]
made = {"x.c": " ".join(command), "x.so": "gcc x.c", "meson-internal__clean": "python clean.py"}
if words[:2] == ["-t", "compdb"]:
    rules = {"x.c": "CUSTOM_COMMAND", "x.so": "c_LINKER", "meson-internal__clean": "CUSTOM_COMMAND"}
    found = [output for output in made if not words[2:] or rules[output] in words[2:]]
    print(json.dumps([{"output": output, "command": made[output]} for output in found]))
elif words == ["-t", "targets", "all"]:
    print("x.so: c_LINKER\\nx.c: CUSTOM_COMMAND\\nmeson-internal__clean: CUSTOM_COMMAND")
elif words[:3] == ["-t", "commands", "all"]:
    print(made["x.c"]); print(made["x.so"])
elif words == ["-t", "inputs", "all"]:
    print("x.c"); print(os.path.relpath(source + "/fast.h", build))
elif words == ["-k", "0", "x.c"]:
    sys.exit(subprocess.call(command, cwd=build))
else:
    sys.exit(f"unexpected {words}")
"""
FILES = {
    "pyproject.toml": '[build-system]\nbuild-backend = "mesonpy"\nrequires = []\n',
    "meson.build": "project('pw-demo')\n",
    "README.md": "demo\n",
    "a.py": "a = 1\n",
    "both.py": "table = 1\n",
    "fast.h": "#define X\n",
    "helper.py": "import json\n",
    "data/more.txt": "1\n",
    "unused.py": "",
    "gen.py": "import subprocess, sys, helper\nopen(sys.argv[1]).close()\n"
    "open(helper.__file__.replace('helper.py', 'data/more.txt')).close()\n"
    "subprocess.run(['cython', '-o', 'x.c'], check=True)\nassert open('x.c').read() == ''\n",
}
FORK = Fork(
    name="pw-demo",
    version="1.0",
    patches=Path("/nowhere"),
    upstream_wheel=UpstreamWheel(distribution="pw-demo"),
)


def source_of(folder: Path, files: Mapping[str, str | bytes], fork: Fork) -> Source:
    repo = Repository.bare(folder / "git")
    rows = ((n, "100644", t.encode() if isinstance(t, str) else t) for n, t in files.items())
    return Source(
        fork=fork,
        git_dir=repo.git_dir,
        tree=repo.import_files(rows),
        epoch=support.EPOCH,
    )


class Bench:
    """Inspects projects with the stand-in for meson-python."""

    def __init__(self, folder: Path, store: Store, interpreter: Interpreter) -> None:
        self.folder, self.store, self.interpreter = folder, store, interpreter
        self.env = folder / "env"
        uv.make_venv(self.env, interpreter, log=folder / "venv.log")
        packages = next(self.env.glob("lib/python3*/site-packages"))
        support.write(packages, {"mesonpy.py": MESONPY})
        support.write(self.env, {"bin/ninja": NINJA})
        (self.env / "bin" / "ninja").chmod(0o755)

    def inspect(
        self,
        files: Mapping[str, str],
        base: Mapping[str, str] | Path | None = None,
        context: Context | None = None,
    ) -> tuple[BuildInventory, str | None]:
        if base is not None and not isinstance(base, Path):
            base = support.make_wheel(self.folder / "base", "pw-demo", "1.0", base)
        source, wheel = source_of(self.folder, files, FORK), read_wheel(base) if base else None
        return inventory_of_pin(context or self.context, source, self.env, base=wheel)

    @property
    def context(self) -> Context:
        return make_context(self.store, interpreter=self.interpreter, sandbox="none")

    @property
    def contained(self) -> Context:
        return make_context(self.store, interpreter=self.interpreter, sandbox="required")


@pytest.fixture
def bench(tmp_path: Path, store: Store, interpreter: Interpreter) -> Bench:
    return Bench(tmp_path, store, interpreter)


@pytest.mark.sandbox
def test_an_inspection_finds_outputs_and_everything_that_is_read(bench: Bench) -> None:
    found, mismatch = bench.inspect(FILES, context=bench.contained)
    assert mismatch is None
    assert found.verbatim == {"pw_demo/a.py": "a.py", "pw_demo/both.py": "both.py"}
    assert found.built == {"pw_demo/x.so"}
    # gen.py says none of helper.py and data/more.txt to ninja.
    assert found.reads == {
        "meson.build",
        "README.md",
        "both.py",
        "fast.h",
        "gen.py",
        "helper.py",
        "data/more.txt",
    }


def test_without_a_sandbox_scripts_of_the_project_are_left_alone(bench: Bench) -> None:
    ran = bench.folder / "ran"
    context, recorder = bench.context, support.Recorder()
    context.progress = recorder
    found, _ = bench.inspect(
        {**FILES, "gen.py": FILES["gen.py"] + f"open({str(ran)!r}, 'w').close()\n"},
        context=context,
    )
    assert not ran.exists()
    assert found.unwatched == ["gen.py"]
    assert found.built == {"pw_demo/x.so"}
    # What the commands name is known all the same.
    assert {"meson.build", "both.py", "fast.h", "gen.py"} <= found.reads
    assert "data/more.txt" not in found.reads
    [line] = [line for line in recorder.lines if "gen.py" in line]
    assert "not run without bubblewrap" in line


@pytest.mark.sandbox
def test_a_script_that_reads_pyproject_is_seen(bench: Bench) -> None:
    more = "open(sys.argv[1].replace('both.py', 'pyproject.toml')).close()\n"
    found, _ = bench.inspect({**FILES, "gen.py": FILES["gen.py"] + more}, context=bench.contained)
    assert "pyproject.toml" in found.reads


def test_the_base_is_compared(bench: Bench) -> None:
    base = {"pw_demo/a.py": "a = 1\n", "pw_demo/both.py": "published otherwise\n"}
    base |= {"pw_demo/x.so": "_cython_3_2_9\0 (NumPy 1.25)", "pw_demo.libs/a.so": ""}
    found, mismatch = bench.inspect(FILES, base)
    assert mismatch == "its pw_demo/both.py is not the pin's both.py"
    assert found.verbatim == {"pw_demo/a.py": "a.py"}
    # The plan, which compares names, finds it too.
    assert found.built == {"pw_demo/x.so"}
    _, mismatch = bench.inspect(
        FILES, {**base, "pw_demo/both.py": "table = 1\n", "pw_demo/extra.py": ""}
    )
    assert mismatch == "it has pw_demo/extra.py"


def test_a_list_that_names_none_of_the_wheels_modules_is_not_its_own(
    bench: Bench, report: Recorder
) -> None:
    context = replace(bench.context, progress=report)
    base = {"pw_demo/a.py": "a = 1\n", "pw_demo/both.py": "table = 1\n"}
    said = "pw-demo names no module of its wheel: that says what it holds"
    found, mismatch = bench.inspect(
        FILES, {**base, "pw_demo/y.so": "", "pw_demo/z.so": ""}, context
    )
    assert mismatch is None
    assert found.verbatim == {"pw_demo/a.py": "a.py", "pw_demo/both.py": "both.py"}
    assert found.built == {"pw_demo/y.so", "pw_demo/z.so"}
    assert said in report.lines
    report.lines.clear()
    # One of them that is there says that the list is this wheel's.
    _, mismatch = bench.inspect(FILES, {**base, "pw_demo/x.so": "", "pw_demo/y.so": ""}, context)
    assert mismatch == "it has pw_demo/y.so"
    assert bench.inspect(FILES, base, context)[1] == "it lacks pw_demo/x.so"
    assert said not in report.lines


def test_a_file_that_upstream_changed_on_purpose_can_be_named(bench: Bench) -> None:
    wheel = UpstreamWheel(distribution="pw-demo", only_in_base=("pw_demo/b*.py",))
    base = {"pw_demo/a.py": "a = 1\n", "pw_demo/both.py": "stamped\n", "pw_demo/x.so": ""}
    path = support.make_wheel(bench.folder / "base", "pw-demo", "1.0", base)
    source = source_of(bench.folder, FILES, replace(FORK, upstream_wheel=wheel))
    found, mismatch = inventory_of_pin(bench.context, source, bench.env, base=read_wheel(path))
    assert mismatch is None
    assert found.built == {"pw_demo/both.py", "pw_demo/x.so"}


def test_a_project_that_cannot_be_configured(bench: Bench) -> None:
    files = {n: t for n, t in FILES.items() if n != "README.md"}
    with pytest.raises(BuildError, match="the project cannot be configured") as caught:
        bench.inspect(files)
    assert "README.md" in str(caught.value)


FAILING = """
raise SystemExit("geos-config is not there")
"""
PACKAGED = {
    "pyproject.toml": '[build-system]\nbuild-backend = "own"\nbackend-path = ["tools"]\n'
    "requires = []\n",
    "tools/own.py": FAILING,
    "setup.py": "from helper import version\nexec(open('src/pw/_version.py').read())\n",
    "helper.py": "",
    "src/pw/_version.py": "v = 1\n",
    "src/pw/text.py": "x = 1\n",
    "src/pw/same.py": "x = 1\n",
    "src/pw/made.py": "x = 2\n",
    "src/pw/meson.build": "run('same.py')\npy.install_sources(\n  ['text.py', 'x.py'])\n",
}


def test_a_build_that_cannot_be_asked_is_known_by_its_wheel(bench: Bench, report: Recorder) -> None:
    files = {"pw/text.py": "x = 1\n", "pw/same.py": "x = 1\n", "pw/made.py": "x = 3\n"}
    files |= {"pw/_version.py": "v = 1\n", "helper.py": "", "pw/fast.so": "elf"}
    files |= {"pw_demo.libs/libgeos-0.so": "elf"}
    wheel = support.make_wheel(bench.folder / "w", "pw-demo", "1.0", files)
    sdist = Sdist(filename="pw_demo-1.0.tar.gz", sha256="0" * 64)
    source = source_of(bench.folder, PACKAGED, replace(FORK, sdist=sdist))
    context = make_context(
        bench.store, interpreter=bench.interpreter, sandbox="none", progress=report
    )
    # From git the file that is another would be another commit's.
    from_git = replace(source, fork=FORK)
    _, mismatch = inventory_of_pin(context, from_git, bench.env, base=read_wheel(wheel))
    assert mismatch == "its pw/made.py is not the pin's"
    report.lines.clear()
    found, mismatch = inventory_of_pin(context, source, bench.env, base=read_wheel(wheel))
    assert mismatch is None
    # Equal files are told apart by their places.
    assert found.verbatim == {
        "pw/text.py": "src/pw/text.py",
        "pw/same.py": "src/pw/same.py",
        "pw/_version.py": "src/pw/_version.py",
        "helper.py": "helper.py",
    }
    assert found.built == {"pw/made.py", "pw/fast.so"}
    # What setup.py opens or imports decides more than itself.
    read = {"src/pw/_version.py", "helper.py", "src/pw/made.py", "src/pw/same.py"}
    assert found.reads == read
    said = "pw-demo: the project cannot be built (geos-config is not there): "
    said += "its wheel says what it holds"
    assert said in report.lines
    with pytest.raises(BuildError, match="pw-demo: the project cannot be built") as caught:
        inventory_of_pin(context, source, bench.env, base=None)
    assert caught.value.log
    assert "geos-config" in caught.value.log.read_text()


def test_without_a_wheel_what_is_missing_is_said_and_whose(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchwheel.build.missing_tools", lambda _fork: ["gcc"])
    files = {n: t for n, t in FILES.items() if n != "README.md"} | {"meson.build": ""}
    with pytest.raises(MachineError, match="pw-demo: cannot be configured: gcc is not installed"):
        bench.inspect(files)


def test_a_backend_without_files(bench: Bench) -> None:
    packages = next(bench.env.glob("lib/python3*/site-packages"))
    text = MESONPY.replace("    for name in", "    return ''\n    for name in")
    support.write(packages, {"mesonpy.py": text})
    with pytest.raises(BuildError, match="names no files"):
        bench.inspect(FILES)


def test_another_backend_builds_and_its_wheel_tells_what_is_a_copy(bench: Bench) -> None:
    backend = "import shutil\ndef build_wheel(out, settings):\n    open('a.py').close()\n"
    backend += "    return shutil.copy('ready.whl', out + '/' + NAME)[len(out) + 1:]\n"
    wheel = support.make_wheel(bench.folder / "w", "pw-demo", "1.0", {"a.py": ""})
    backend = f"NAME = {wheel.name!r}\n" + backend
    text = '[build-system]\nbuild-backend = "own"\nbackend-path = ["tools"]\nrequires = []\n'
    files = {"pyproject.toml": text, "tools/own.py": backend, "a.py": ""}
    source = source_of(bench.folder, {**files, "ready.whl": wheel.read_bytes()}, FORK)
    found, _ = inventory_of_pin(bench.context, source, bench.env, base=None)
    assert found.verbatim == {"a.py": "a.py"}
    assert found.built == set()
    assert found.pure
    assert found.reads == {"a.py", "ready.whl", "tools/own.py"}


def test_nothing_is_compiled_where_upstreams_wheel_tells(bench: Bench, report: Recorder) -> None:
    text = '[build-system]\nbuild-backend = "maturin"\nrequires = []\n'
    files = {"pyproject.toml": text, "python/pw/a.py": "a = 1\n"}
    source = source_of(bench.folder, files, FORK)
    context = make_context(
        bench.store, interpreter=bench.interpreter, sandbox="none", progress=report
    )
    outputs = {"pw/a.py": "a = 1\n", "pw/_x.so": "elf"}
    tag = "cp39-abi3-manylinux_2_17_x86_64"
    base = support.make_wheel(bench.folder / "w", "pw-demo", "1.0", outputs, tag=tag)
    # No maturin is in the environment: to ask it for anything would fail.
    found, mismatch = inventory_of_pin(context, source, bench.env, base=read_wheel(base))
    assert mismatch is None
    assert found.verbatim == {"pw/a.py": "python/pw/a.py"}
    assert found.built == {"pw/_x.so"}
    assert not found.pure
    assert report.lines == []
    with pytest.raises(BuildError, match="pw-demo: the project cannot be built"):
        inventory_of_pin(context, source, bench.env, base=None)
    assert "building pw-demo to see what it builds and reads" in report.lines


def test_a_pure_build_of_what_upstream_compiles_is_said(bench: Bench, report: Recorder) -> None:
    wheel = support.make_wheel(bench.folder / "w", "pw-demo", "1.0", {"a.py": ""})
    backend = "import shutil\ndef build_wheel(out, settings):\n"
    backend += f"    return shutil.copy({wheel.name!r}, out).rpartition('/')[2]\n"
    text = '[build-system]\nbuild-backend = "flit_core.own"\nbackend-path = ["."]\nrequires = []\n'
    files = {"pyproject.toml": text, "flit_core/own.py": backend, "a.py": ""}
    source = source_of(bench.folder, {**files, wheel.name: wheel.read_bytes()}, FORK)
    base = support.make_wheel(
        bench.folder / "b", "pw-demo", "1.0", {"a.py": "", "a.so": "elf"}, tag="cp312-cp312-linux"
    )
    context = make_context(
        bench.store, interpreter=bench.interpreter, sandbox="none", progress=report
    )
    found, mismatch = inventory_of_pin(context, source, bench.env, base=read_wheel(base))
    assert found.pure
    assert mismatch is None
    assert "pw-demo: upstream's wheel has compiled code, a build has none" in report.lines


def test_libraries_reveal_their_makers(tmp_path: Path) -> None:
    files = {
        # As a module of the limited API says it.
        "x/a.so": "_cython_3_2_9\0_cython_3_2_9limited12_vectorcallnofinalize\0(NumPy 1.25)",
        "x/b.so": "_cython_3_2_9\0release 13.2, V13.2.51\0",
        "x/c.so": "_cython_3_1_0a1\0",
        "x/d.py": "_cython_1_1_1\0",
        "x.libs/libopenblas-1.so.0": "OpenBLAS 0.3.31.dev",
        "x.libs/libother.so": "nothing",
    }
    wheel = read_wheel(support.make_wheel(tmp_path, "x", "1.0", files))
    assert built_with(wheel) == {
        "cython": "3.2.9",
        "numpy-target": "1.25",
        "cuda": "13.2",
        "openblas": "0.3.31",
        "blas": "libopenblas-1.so.0",
    }


def run_as(name: str, code: str, env: Mapping[str, str]) -> str:
    text = f"import runpy\nfound = runpy.run_path({watch_reads.__file__!r}, run_name={name!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", text + code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_watches_a_process(tmp_path: Path) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    support.write(root, {"a.txt": "", "b.txt": "", "pyproject.toml": "", "file_util.py": ""})
    log.touch()
    code = f"""
import os
root = {str(root)!r}
for _ in range(2):
    open(root + "/a.txt").close()
open(os.open(root + "/pyproject.toml", os.O_RDONLY)).close()
open({str(tmp_path / "outside")!r}, "w").close()
exec(compile("def copy(path): open(path).close()", root + "/file_util.py", "exec"))
found["watch"].__globals__["shipping"] = True
copy(root + "/b.txt")
"""
    env = {inspect_build.LOG: str(log), inspect_build.ROOT: str(root)}
    run_as("sitecustomize", code, env)
    assert log.read_text().split("\0") == ["\na.txt", ""]


def test_what_a_script_of_the_project_opens_is_noted_beside_its_name(tmp_path: Path) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    code = "import sys, os\nfolder = os.path.dirname(sys.argv[1])\n"
    code += "for name in ('given', 'found'): open(folder + '/' + name).close()\n"
    support.write(root, {"tools/gen.py": code, "tools/given": "", "tools/found": ""})
    trace = tmp_path / "trace"
    source = Path(watch_reads.__file__).read_text()
    support.write(trace, {"sitecustomize.py": source})
    log.touch()
    env = {inspect_build.LOG: str(log), inspect_build.ROOT: str(root), "PYTHONPATH": str(trace)}
    words = [sys.executable, "tools/gen.py", "tools/given"]
    subprocess.run(words, cwd=root, env={**os.environ, **env}, check=True)
    assert log.read_text() == "tools/gen.py\ntools/found\0"


def test_meson_python_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, build = tmp_path / "src", tmp_path / "build"
    support.write(source, {n: t for n, t in FILES.items() if n != "gen.py"})
    support.write(source, {"gen.py": "import sys\nopen(sys.argv[1]).close()\n"})
    ninja = tmp_path / "bin" / "ninja"
    support.write(tmp_path, {"bin/ninja": NINJA})
    ninja.chmod(0o755)
    (ninja.parent / "python").symlink_to(sys.executable)
    module = ModuleType("mesonpy")
    exec(MESONPY, module.__dict__)
    monkeypatch.setitem(sys.modules, "mesonpy", module)
    monkeypatch.chdir(source)
    monkeypatch.setenv("NINJA", str(ninja))
    monkeypatch.setenv(inspect_build.ROOT, str(source))
    monkeypatch.setenv(inspect_build.LOG, str(tmp_path / "log"))
    (tmp_path / "log").touch()
    settings = json.dumps({"build-dir": str(build)})
    words = ["x", "mesonpy", str(tmp_path), settings, "generate", "meson"]
    monkeypatch.setattr(sys, "argv", words)
    inspect_build.main()
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["outputs"]["pw_demo/a.py"] == "a.py"
    assert answer["outputs"]["pw_demo/x.so"] == "//x.so"
    assert {"fast.h", "meson.build"} <= set(answer["reads"])
    stub = tmp_path / "stubs" / "cython"
    for words in (["-o", "1.c"], ["-o2.c"], ["--output-file=3.c", "x.pyx"]):
        subprocess.run([stub, *words], cwd=tmp_path, check=True)
    assert {p.name for p in tmp_path.glob("*.c")} == {"1.c", "2.c", "3.c"}


class Command:
    """A command of setuptools."""

    def __init__(self, name: str, build_lib: str) -> None:
        self.name, self.build_lib, self.ran = name, build_lib, False
        extension = SimpleNamespace(
            name="pw.x",
            sources=["src/x.pyx"],
            depends=[Path("src/x.h")],
            define_macros=[
                ("KEY", "1"),
                ("NUMBER", 2),
                ("NONE", 0),
                ("PLACE", Path("a")),
                ("FLAG", None),
                ("EMPTY", ""),
                ("NOT",),
            ],
            libraries=["m"],
        )
        self.extensions = [extension] if name == "build_ext" else None
        self.libraries = [("low", {"sources": ["src/low.c"]})]

    def ensure_finalized(self) -> None:
        pass

    def get_outputs(self) -> list[str]:
        return [f"{self.build_lib}/pw/x.so"]

    def get_ext_fullpath(self, _name: str) -> str:
        return f"{self.build_lib}/pw/x.so"

    def get_output_mapping(self) -> dict[str, str]:
        return {f"{self.build_lib}/pw/a.py": "src/a.py"}


def test_setuptools_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = tmp_path / "lib"
    seen: list[tuple[str, bool]] = []

    class Distribution:
        def __init__(self) -> None:
            self.have_run: dict[str, bool] = {}

        def get_command_obj(self, name: str) -> Command:
            return Command(name, str(lib))

        def run_command(self, name: str) -> None:
            seen.append((name, watcher.shipping))

    def build_wheel(out: str, settings: Any) -> str:
        for name in ("build_py", "build_clib", "build_ext"):
            Distribution().run_command(name)
        with zipfile.ZipFile(f"{out}/pw.whl", "w") as archive:
            archive.writestr("pw/a.py", "")
            archive.write(lib / "pw" / "x.so", "pw/x.so")
            archive.writestr("pw-1.data/headers/pw/x.h", "int x;")
            archive.writestr("pw-1.data/scripts/tool", "#!python\ntwo\n")
        return "pw.whl"

    watcher: Any = ModuleType("sitecustomize")
    watcher.shipping = False
    modules: dict[str, dict[str, object]] = {
        "setuptools.dist": {"Distribution": Distribution},
        "pw_backend": {"legacy": SimpleNamespace(build_wheel=build_wheel)},
    }
    for name, values in modules.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "sitecustomize", watcher)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(inspect_build.ROOT, str(tmp_path))
    monkeypatch.setenv(inspect_build.LOG, str(tmp_path / "log"))
    (tmp_path / "log").write_bytes(b"gen.py\nsrc/t.in\0\nsrc/low.c\0")
    copies = {"include/x.h": "int x;", "bin/tool": "#!/usr/bin/python\ntwo\n", "src/x.h": ""}
    support.write(tmp_path, {**copies, "build/scripts/tool": "#!python\ntwo\n"})
    out = tmp_path / "out"
    out.mkdir()
    words = ["x", "pw_backend:legacy", str(out), "{}", "generate", "setuptools"]
    monkeypatch.setattr(sys, "argv", words)
    inspect_build.main()
    answer = json.loads((out / "answer.json").read_text())
    assert answer["outputs"] == {
        "pw/a.py": "src/a.py",
        "pw/x.so": "//pw/x.so",
        "pw-1.data/headers/pw/x.h": "include/x.h",
        "pw-1.data/scripts/tool": "//pw-1.data/scripts/tool",
    }
    assert answer["reads"] == ["bin/tool", "src/low.c", "src/x.h", "src/x.pyx"]
    assert answer["opened_by_script"] == {"gen.py": ["src/t.in"]}
    library, extension = answer["steps"]
    assert library == {"outputs": [], "inputs": ["src/low.c"]}
    assert extension["inputs"] == ["src/x.pyx", "src/x.h"]
    assert extension["macros"] == [
        ["KEY", '["1"]'],
        ["NUMBER", "[2]"],
        ["NONE", "[0]"],
        ["PLACE", '["a"]'],
        ["FLAG", "[null]"],
        ["EMPTY", '[""]'],
        ["NOT", "[]"],
    ]
    assert json.loads(extension["command"]) == {"libraries": ["m"], "name": "pw.x"}
    assert seen[0] == ("build_py", True)
    assert not watcher.shipping


def real_environment(tree: Path, fork: Fork, interpreter: Interpreter, store: Store) -> Path:
    context = make_context(store, interpreter=interpreter, index=load_index_config(tree))
    system = parse_build_system((tree / "pyproject.toml").read_bytes())
    lines = static_build_requirements(system, fork)
    requires = uv.resolve(context, lines, what=fork.name, log=tree.parent / "resolve.log")
    return build_environment(context, requires, [])


def inspect_really(
    folder: Path, files: Mapping[str, str | bytes], interpreter: Interpreter, store: Store
) -> BuildInventory:
    support.write(folder / "tree", files)
    source = source_of(folder, files, FORK)
    environment = real_environment(folder / "tree", FORK, interpreter, store)
    context = make_context(store, interpreter=interpreter)
    return inventory_of_pin(context, source, environment, base=None)[0]


@pytest.mark.network
@pytest.mark.xdist_group("packages")
def test_a_real_meson_project(
    tmp_path: Path, interpreter: Interpreter, packages_store: Path
) -> None:
    files, store = package_files("tinyext"), Store(packages_store)
    inventory = inspect_really(tmp_path, files, interpreter, store)
    shipped = ("__init__.py", "pure.py", "scale.pxd", "data/weights.txt")
    assert inventory.verbatim == {f"tinyext/{n}": f"src/tinyext/{n}" for n in shipped}
    assert "tinyext/units.py" in inventory.built
    assert [name.partition(".")[0] for name in sorted(inventory.built)] == [
        "tinyext/_fast",
        "tinyext/_pairs",
        "tinyext/units",
    ]
    assert {"src/tinyext/pure.py", "src/tinyext/generate.py"} <= inventory.reads
    assert "src/tinyext/__init__.py" not in inventory.reads


# As NumPy does: each command that Meson adds by itself is then a script of the project.
VENDORED = """\
import sys
from mesonbuild.mesonmain import main
sys.exit(main())
"""
TRAPS = {
    "pyproject.toml": '[build-system]\nbuild-backend = "mesonpy"\nrequires = ["meson-python"]\n'
    '[project]\nname = "pw-demo"\nversion = "1.0"\n'
    '[tool.meson-python]\nmeson = "vendored/meson.py"\n',
    "vendored/meson.py": VENDORED,
    ".clang-format": "",
    "meson.build": """\
project('pw-demo', version: '1.0', default_options: ['prefix=@PREFIX@', 'b_coverage=true'])
py = import('python').find_installation(pure: false)
place = py.get_install_dir() / 'pw_demo'
py.install_sources('a.py', subdir: 'pw_demo')
units = custom_target(
  'units', output: ['units.txt', 'units.py'], command: [py, files('gen.py'), '@OUTPUT@'],
  build_by_default: false,
)
custom_target(
  'table', output: 'table.py', command: [py, files('show.py'), units[1]], capture: true,
  install: true, install_dir: place,
)
custom_target(
  'late', output: 'late.py', command: [py, files('gen.py'), '@OUTPUT@'],
  build_by_default: false, install: true, install_dir: place,
)
trap = files('trap.py')
wipe = custom_target(
  'wipe', output: 'wiped.txt', command: [py, trap, '@OUTPUT@'], build_by_default: false,
)
custom_target(
  'again', output: 'again.txt', command: [py, trap, wipe], capture: true, build_by_default: false,
)
publish = run_target('publish', command: [py, trap])
# The very command of a generator.
run_target('twin', command: [py, files('gen.py'), units])
alias_target('everything', publish, wipe)
test('trap', py, args: trap)
benchmark('trap', py, args: trap)
""",
    "a.py": "a = 1\n",
    "gen.py": "import pathlib, sys\n"
    "pathlib.Path(__file__).with_name('units.csv').read_text()\n"
    "for name in sys.argv[1:]: pathlib.Path(name).touch()\n",
    "units.csv": "1\n",
    "show.py": "import pathlib\npathlib.Path(__file__).with_name('names.csv').read_text()\n",
    "names.csv": "1\n",
    "trap.py": "import pathlib, sys\npathlib.Path('@SPRUNG@').touch()\n"
    "for name in sys.argv[1:]: pathlib.Path(name).touch()\n",
}


@pytest.mark.network
@pytest.mark.sandbox
def test_no_target_beside_the_build_is_run_for_a_project_that_brings_its_meson(
    tmp_path: Path, interpreter: Interpreter, store: Store
) -> None:
    sprung, prefix = tmp_path / "sprung", tmp_path / "prefix"
    files = {
        name: text.replace("@SPRUNG@", str(sprung)).replace("@PREFIX@", str(prefix))
        for name, text in TRAPS.items()
    }
    support.write(tmp_path / "tree", files)
    environment = real_environment(tmp_path / "tree", FORK, interpreter, store)
    source, log = source_of(tmp_path, files, FORK), store.root / "logs" / FORK.name / "inspect.log"

    def run_inspection(sandbox: SandboxMode) -> tuple[BuildInventory, list[str]]:
        context = make_context(store, interpreter=interpreter, sandbox=sandbox)
        found, _ = inventory_of_pin(context, source, environment, base=None)
        assert not sprung.exists()
        assert not prefix.exists()
        text = log.read_text()
        assert "meson-internal__" not in text
        return found, sorted(re.findall(r"(?m)^\[\d+/\d+\] ([A-Z]\w+ \w+)", text))

    # Without a sandbox, what is run can install files anywhere.
    unguarded, steps = run_inspection("none")
    assert steps == []
    assert unguarded.unwatched == ["gen.py", "vendored/meson.py"]
    found, steps = run_inspection("required")
    assert steps == ["Generating late", "Generating table", "Generating units"]
    assert unguarded.built == found.built
    assert found.verbatim == {"pw_demo/a.py": "a.py"}
    assert found.built == {"pw_demo/late.py", "pw_demo/table.py"}
    assert found.opened["gen.py"] == {"units.csv"}
    # Meson itself starts what writes to its standard output.
    assert "names.csv" in found.reads
    assert found.opened.keys() == {"gen.py", "show.py", "vendored/meson.py"}


@pytest.mark.network
def test_a_real_setuptools_project(tmp_path: Path, interpreter: Interpreter, store: Store) -> None:
    files = {
        "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\n'
        'build-backend = "setuptools.build_meta"\n'
        '[project]\nname = "pw-demo"\nversion = "1.0"\nreadme = "README.md"\n',
        "README.md": "demo\n",
        "setup.py": "import sys\nfrom setuptools import Extension, setup\n"
        "from setuptools.command.build_py import build_py\n"
        "numbers = open('numbers.txt').read()\n"
        "class Stamp(build_py):\n"
        "    def run(self):\n"
        "        super().run()\n"
        "        open(self.build_lib + '/pw/stamp.py', 'w').write('v = 1')\n"
        "setup(packages=['pw'], package_data={'pw': ['x.json']}, cmdclass={'build_py': Stamp}, "
        "ext_modules=[Extension('pw.fast', ['pw/fast.c'])])\n",
        "numbers.txt": "1\n",
        "pw/__init__.py": "",
        "pw/stamp.py": "v = 0",
        "pw/x.json": "{}",
        "pw/fast.c": "this does not compile",
        "tests/test_pw.py": "",
    }
    inventory = inspect_really(tmp_path, files, interpreter, store)
    # setuptools itself ships the sources of extension modules that lie in a package.
    shipped = ("pw/__init__.py", "pw/fast.c", "pw/x.json")
    assert inventory.verbatim == {n: n for n in shipped}
    built, stamped = sorted(inventory.built)
    assert built.startswith("pw/fast.")
    # It stands at its place, and the build writes something else into it.
    assert stamped == "pw/stamp.py"
    assert inventory.reads == {"README.md", "numbers.txt", "setup.py", "pw/fast.c", "pw/stamp.py"}
