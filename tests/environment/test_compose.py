import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Never
from zipfile import ZipFile

import pytest
from packaging.pylock import Pylock

from patchwheel.build.inputs import OwnWheel
from patchwheel.environment.compose import (
    Environment,
    check_environment,
    compose_environment,
    compose_for_tests,
)
from patchwheel.environment.link import added_to
from patchwheel.guest import INSPECT_ENVIRONMENT, inspect_environment
from patchwheel.kit import uv
from patchwheel.kit.context import Context
from patchwheel.kit.errors import BuildError, CheckError, InputError, MachineError
from patchwheel.kit.interpreter import Interpreter, uv_bin
from patchwheel.kit.store import Store
from patchwheel.kit.uv import Distribution, IndexConfig
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.lock import EnvironmentLock, Lock, environment_inputs
from patchwheel.manifest.model import Manifest
from tests.fixtures.contexts import GivenProject, make_context
from tests.fixtures.support import Recorder, make_index, make_manifest, make_wheel, sha256

PIN = f'version = "1.0"\nsdist = {{ filename = "x-1.0.tar.gz", sha256 = "{"0" * 64}" }}\n'
CUPY = PIN + 'upstream-wheel = { distribution = "cupy-cuda13x" }\n'
SHOWS = "def show_config():\n    print('no GPU')\n"


def ours(
    folder: Path,
    fork: str,
    name: str,
    files: dict[str, str],
    *,
    requires: Sequence[str] = (),
    version: str = "1.0+arrayapi.h0123abcd",
) -> OwnWheel:
    path = make_wheel(folder, name, version, files, requires=requires)
    return OwnWheel(fork=fork, path=path, sha256=sha256(path), version=version)


@dataclass
class Set:
    """Two forks, a dependency and a group, and everything that composing them needs."""

    folder: Path
    store: Store
    interpreter: Interpreter
    report: Recorder = field(default_factory=Recorder)
    wheels: list[OwnWheel] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        loose = self.folder / "loose"
        files = [
            make_wheel(loose, "pw-base", "1.0", {"pwbase.py": "x = 1\n"}),
            make_wheel(loose, "pw-more", "2.0", {"pwmore.py": "x = 1\n"}),
        ]
        self.base, self.more = (
            Distribution(
                name=f.name.split("-")[0].replace("_", "-"),
                version=f.name.split("-")[1],
                hashes=(sha256(f),),
            )
            for f in files
        )
        extra = {"pwextra.py": "import pwfork, pwmore\n"}
        needs = ["pw-fork", "pw-base", "pw-more"]
        files += [
            # What would be taken without constraints.
            make_wheel(loose, "pw-base", "1.1", {"pwbase.py": "x = 2\n"}),
            make_wheel(loose, "pw-fork", "1.2", {"pwfork/__init__.py": ""}),
            *(
                make_wheel(loose, "pw-extra", "1.0", extra, requires=needs, tag=tag)
                for tag in ("py3-none-any", "py3-none-manylinux_2_34_x86_64")
            ),
        ]
        self.config = IndexConfig(urls=(make_index(self.folder / "simple", *files),))
        self.manifest: Manifest = load_manifest(
            make_manifest(self.folder, {"pw-fork": PIN, "cupy": CUPY})
        )
        self.wheels = [
            ours(
                self.folder / "w",
                "pw-fork",
                "pw-fork",
                {"pwfork/__init__.py": "import pwbase\n"},
                requires=["pw-base"],
            ),
            ours(
                self.folder / "w",
                "cupy",
                "cupy-cuda13x",
                {"cupy/__init__.py": SHOWS, "cupyx/__init__.py": ""},
            ),
        ]
        self.link = self.folder / ".venv-forks"

    def compose(
        self, link: Path | None = None, groups: Sequence[str] = (), *, layered: bool = False
    ) -> Environment:
        if layered:
            return compose_for_tests(self.project, self.wheels, groups=groups)
        return compose_environment(self.project, self.wheels, link=link or self.link, groups=groups)

    @property
    def project(self) -> GivenProject:
        entry = EnvironmentLock(
            inputs=environment_inputs(self.manifest),
            packages=(self.base,),
            groups={"gpu": (self.more,)},
        )
        lock = Lock(
            path=self.folder / "forks.lock", environments={self.interpreter.python: entry}, forks={}
        )
        context = CountingContext(self)
        return GivenProject(context, self.manifest, lock=lock)

    def put_in(self, made: Environment, wheel: Path) -> None:
        uv.install(
            make_context(self.store, interpreter=self.interpreter, offline=True),
            made.python,
            [f"{wheel.name.split('-')[0]} @ {wheel.as_uri()} --hash=sha256:{sha256(wheel)}"],
            log=self.folder / "log",
        )

    def check(self, made: Environment) -> str:
        with pytest.raises(CheckError) as caught:
            check_environment(self.project, made)
        return str(caught.value)


class CountingContext(Context):
    """A context that counts how often the index is asked for."""

    def __init__(self, forks: Set) -> None:
        super().__init__(forks.store, forks.report, python=forks.interpreter.python)
        vars(self)["interpreter"] = forks.interpreter
        self.forks = forks

    @property
    def index(self) -> IndexConfig:
        self.forks.asked += 1
        return self.forks.config


@pytest.fixture
def forks(tmp_path: Path, store: Store, interpreter: Interpreter) -> Set:
    return Set(tmp_path, store, interpreter)


def test_wheels_and_lock_become_one_environment_behind_a_link(forks: Set) -> None:
    made = forks.compose()
    assert not made.cached
    assert forks.link.readlink() == made.path
    script = "import pwfork, cupy, importlib.metadata as m; print(m.version('pw-fork'))"
    said = subprocess.check_output([forks.link / "bin" / "python", "-c", script])
    assert said == b"1.0+arrayapi.h0123abcd\n"
    assert made.to_json()["wheels"] == {w.fork: w.version for w in forks.wheels}


def test_the_environment_carries_a_lock_of_what_is_in_it(forks: Set) -> None:
    made = forks.compose()
    text = (made.path / "pylock.toml").read_text()
    found = Pylock.from_dict(tomllib.loads(text))
    assert {str(p.name): str(p.version) for p in found.packages} == {
        "cupy-cuda13x": "1.0+arrayapi.h0123abcd",
        "pw-base": "1.0",
        "pw-fork": "1.0+arrayapi.h0123abcd",
    }


def test_a_second_time_nothing_is_done(forks: Set) -> None:
    first = forks.compose()
    said, asked = len(forks.report.lines), forks.asked
    again = forks.compose()
    assert again == replace(first, cached=True)
    assert forks.asked == asked
    assert len(forks.report.lines) == said


def test_another_wheel_is_another_environment_and_the_link_moves(forks: Set) -> None:
    first = forks.compose()
    changed = {"pwfork/__init__.py": "import pwbase\nnew = 1\n"}
    forks.wheels[0] = ours(forks.folder / "w2", "pw-fork", "pw-fork", changed)
    second = forks.compose()
    assert second.path != first.path
    assert first.path.exists()
    assert forks.link.readlink() == second.path


def test_in_layers_only_a_changed_wheel_is_made_anew(forks: Set) -> None:
    script = "import pwfork, cupy, pwbase, pwmore, importlib.metadata as m; "
    script += "print(pwfork.__file__, m.version('pw-fork'))"

    def shown(made: Environment) -> str:
        return subprocess.check_output([made.python, "-c", script], text=True)

    first = forks.compose(groups=["gpu"], layered=True)
    assert shown(first) == f"{first.places['pw-fork']}/pwfork/__init__.py 1.0+arrayapi.h0123abcd\n"
    changed = {"pwfork/__init__.py": "import pwbase\nnew = 1\n"}
    forks.wheels[0] = ours(forks.folder / "w2", "pw-fork", "pw-fork", changed)
    asked = forks.asked
    second = forks.compose(groups=["gpu"], layered=True)
    assert forks.asked == asked
    assert second.places["cupy"] == first.places["cupy"]
    assert second.places["pw-fork"] != first.places["pw-fork"]
    assert "new" in (second.places["pw-fork"] / "pwfork/__init__.py").read_text()
    assert shown(second).startswith(str(second.places["pw-fork"]))
    assert forks.compose(groups=["gpu"], layered=True).cached


def test_layers_that_were_pruned_are_made_again(forks: Set) -> None:
    made = forks.compose(layered=True)
    forks.store.remove("unpacked", made.places["cupy"].name)
    again = forks.compose(layered=True)
    assert again.cached
    assert (again.places["cupy"] / "cupy/__init__.py").exists()


def test_a_group_is_added_on_demand(forks: Set) -> None:
    plain = forks.compose()
    gpu = forks.compose(groups=["gpu"])
    assert gpu.path != plain.path
    assert [d.name for d in gpu.packages] == ["pw-base", "pw-more"]


def test_packages_are_added_under_the_lock_and_the_plain_environment_stays(forks: Set) -> None:
    plain = forks.compose()
    files = sorted(p for p in plain.path.rglob("*") if p.name != "links")
    wanted = ("pw-extra >= 1", "pw-fork")
    made = compose_environment(forks.project, forks.wheels, link=forks.link, added=wanted)
    assert {d.name: d.version for d in made.packages} == {
        "pw-base": "1.0",
        "pw-more": "2.0",
        "pw-extra": "1.0",
    }
    check_environment(forks.project, made)
    script = "import pwextra, importlib.metadata as m; print(m.version('pw-fork'))"
    said = subprocess.check_output([forks.link / "bin" / "python", "-c", script], text=True)
    assert said == "1.0+arrayapi.h0123abcd\n"
    assert added_to(forks.link) == "'pw-extra >= 1' pw-fork"
    # Without them it is the plain one again.
    assert forks.compose() == replace(plain, cached=True)
    assert sorted(p for p in plain.path.rglob("*") if p.name != "links") == files
    assert added_to(forks.link) == ""


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ("pw-base>1", "next: what is locked stays; `patchwheel lock --upgrade NAME` moves it"),
        ("pw-fork>1.1", "next: what is locked stays"),
        ("pw-nothing", "next: correct the name"),
        ("./pw-extra", "expected: a name with versions, extras and markers"),
    ],
)
def test_what_cannot_be_added_leaves_the_link(forks: Set, wanted: str, problem: str) -> None:
    plain = forks.compose()
    with pytest.raises(InputError) as caught:
        compose_environment(forks.project, forks.wheels, link=forks.link, added=[wanted])
    assert problem in str(caught.value)
    assert forks.link.readlink() == plain.path


def test_an_environment_that_a_link_points_to_is_not_pruned(forks: Set) -> None:
    made = forks.compose()
    os.utime(made.path / "entry.json", (0, 0))
    forks.store.prune(older_than_days=1)
    assert made.path.exists()
    forks.link.unlink()
    forks.store.prune(older_than_days=1)
    assert not made.path.exists()


def test_an_environment_can_have_several_links(forks: Set) -> None:
    made = forks.compose()
    other = forks.folder / "deep" / "env"
    assert forks.compose(link=other).path == made.path
    assert (made.path / "links").read_text() == f"{forks.link}\n{other}\n"


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_what_is_not_our_link_stays_and_says_what_to_do(forks: Set, what: str) -> None:
    match what:
        case "folder":
            forks.link.mkdir()
        case "file":
            forks.link.write_text("mine")
        case _:
            forks.link.symlink_to(forks.folder)
    with pytest.raises(MachineError, match="was not created by patchwheel") as caught:
        forks.compose()
    assert "move it away" in str(caught.value.hint)
    assert forks.asked == 0
    assert what != "file" or forks.link.read_text() == "mine"


def test_a_link_that_points_nowhere_any_more_is_ours_to_replace(forks: Set) -> None:
    forks.link.symlink_to(forks.folder / "old-store" / "environments" / ("a" * 64))
    assert forks.link.resolve() != forks.compose().path.parent
    assert (forks.link / "bin" / "python").exists()


@pytest.mark.parametrize(
    ("place", "above", "why"),
    [
        ("file/env", "file", "Not a directory"),
        # It lets root write, and takes nothing new.
        ("/proc/env", "/proc", "No such file or directory"),
        ("/proc/a/b/env", "/proc", "No such file or directory"),
    ],
)
def test_a_link_that_cannot_be_written_is_an_error_of_the_machine(
    forks: Set, place: str, above: str, why: str
) -> None:
    (forks.folder / "file").write_text("")
    with pytest.raises(MachineError, match=f"link cannot be written there: {why}") as caught:
        forks.compose(link=forks.folder / place)
    assert caught.value.where == forks.folder / above
    assert "name another place" in str(caught.value.hint)
    assert forks.asked == 0


def test_a_wheel_with_other_bytes_is_refused_and_the_link_stays(forks: Set) -> None:
    first = forks.compose()
    forks.wheels[0] = replace(forks.wheels[0], sha256="0" * 64)
    with pytest.raises(InputError):
        forks.compose()
    assert forks.link.readlink() == first.path


def test_an_index_whose_file_changed_since_is_noticed(
    forks: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[[packages]]\nname = "pw-base"\nversion = "1.0"\n'
    text += f'wheels = [{{ url = "x", hashes = {{ sha256 = "{"1" * 64}" }} }}]\n'
    monkeypatch.setattr(uv, "pylock", lambda *_, **__: text)
    with pytest.raises(CheckError, match="another file for this version"):
        forks.compose()


def test_a_fork_that_does_not_import_never_gets_the_link(forks: Set) -> None:
    broken = {"pwfork/__init__.py": "raise RuntimeError('half a patch')\n"}
    forks.wheels[0] = ours(forks.folder / "w2", "pw-fork", "pw-fork", broken)
    for _ in range(2):
        with pytest.raises(CheckError, match="half a patch"):
            forks.compose()
    assert not forks.link.exists()


def test_a_fork_that_kills_the_interpreter_is_reported(forks: Set) -> None:
    fatal = {"pwfork/__init__.py": "import os; os.abort()\n"}
    forks.wheels[0] = ours(forks.folder / "w2", "pw-fork", "pw-fork", fatal)
    with pytest.raises(CheckError, match="stopped while it imported"):
        forks.compose()


@pytest.mark.sandbox
def test_what_starts_with_the_environment_does_not_run_on_the_host(forks: Set) -> None:
    """The checks run Python in it, and so the path files of what is installed; uv does too."""
    ran = forks.folder / "ran"
    line = f"import os; os.path.isdir({str(ran.parent)!r}) and open({str(ran)!r}, 'w')\n"
    forks.wheels[0] = ours(
        forks.folder / "w2", "pw-fork", "pw-fork", {"pwfork.py": "", "evil.pth": line}
    )
    made = forks.compose()
    check_environment(forks.project, made)
    assert not ran.exists()
    # The control.
    subprocess.run([made.python, "-I", "-c", ""], check=True)
    assert ran.exists()


ANSWERS = {
    "none": "os._exit(0)",
    "no list": "open(sys.argv[2], 'w').write('1'); os._exit(0)",
    "no JSON": "open(sys.argv[2], 'w').write('{'); os._exit(0)",
    "a link": "os.symlink('/etc/ld.so.conf', sys.argv[2]); os._exit(0)",
}


@pytest.mark.parametrize("way", ANSWERS)
def test_an_environment_that_gives_no_answer_is_reported(forks: Set, way: str) -> None:
    files = {"pwfork.py": f"import os, sys\n{ANSWERS[way]}\n"}
    forks.wheels[0] = ours(forks.folder / "w2", "pw-fork", "pw-fork", files)
    with pytest.raises((BuildError, CheckError), match=r"while it imported|be taken"):
        forks.compose()


def test_a_cupy_that_cannot_show_its_configuration_is_reported(forks: Set) -> None:
    forks.wheels[1] = ours(forks.folder / "w2", "cupy", "cupy-cuda13x", {"cupy/__init__.py": ""})
    with pytest.raises(CheckError, match="no attribute 'show_config'"):
        forks.compose()


def test_an_unmet_requirement_is_reported(forks: Set) -> None:
    forks.wheels[0] = ours(
        forks.folder / "w2", "pw-fork", "pw-fork", {"pwfork.py": ""}, requires=["pw-base>5"]
    )
    with pytest.raises(CheckError, match="pw-base>5"):
        forks.compose()


def test_a_requirement_that_nothing_meets_says_how_it_is_locked(forks: Set) -> None:
    forks.wheels[0] = ours(
        forks.folder / "w2", "pw-fork", "pw-fork", {"pwfork.py": ""}, requires=["pw-lacking"]
    )
    with pytest.raises(CheckError, match="requires `pw-lacking`") as caught:
        forks.compose()
    assert "run `patchwheel lock`; add what it misses to environment.requires" in str(
        caught.value.hint
    )


def test_a_wheel_without_the_label_is_reported(forks: Set) -> None:
    forks.wheels[0] = ours(
        forks.folder / "w2", "pw-fork", "pw-fork", {"pwfork.py": ""}, version="1.0"
    )
    with pytest.raises(CheckError, match="does not carry the label arrayapi"):
        forks.compose()


def test_everything_that_is_wrong_is_said_at_once(forks: Set) -> None:
    made = forks.compose()
    loose = forks.folder / "loose"
    for wheel in (
        make_wheel(loose, "cupy-cuda12x", "9.0", {"cupy/extra.py": "", "cupy/__init__.py": SHOWS}),
        make_wheel(loose, "pw-fork", "1.0", {"pwfork/__init__.py": "import nowhere\n"}),
    ):
        forks.put_in(made, wheel)
    twice = make_wheel(loose, "pw-base", "0.9", {})
    subprocess.run(
        ["unzip", "-q", twice, "-d", next(made.path.glob("lib/*/site-packages"))], check=True
    )
    said = forks.check(made)
    for part in (
        "cupy-cuda12x 9.0 does not belong here",
        "cupy-cuda12x overwrites cupy, which is cupy-cuda13x's",
        "pw-fork is 1.0, expected 1.0+arrayapi.h0123abcd",
        "pwfork cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        "pw-base is there twice",
        "remove that folder",
    ):
        assert part in said


def test_a_changed_file_is_found_and_what_was_checked_is_said(forks: Set) -> None:
    forks.compose()
    made = forks.compose()
    check_environment(forks.project, made)
    assert "files of 3 distributions equal RECORD" in "\n".join(forks.report.lines)
    site = next(made.path.glob("lib/*/site-packages"))
    # Installed as links to uv's own files.
    for path, text in ((site / "pwbase.py", b"x = 2\n"), (site / "cupyx/__init__.py", b" ")):
        path.unlink()
        path.write_bytes(text)
    (site / "cupy/__init__.py").unlink()
    said = forks.check(made)
    for part in (
        "pw-base: pwbase.py is not what was installed",
        "cupy-cuda13x: cupyx/__init__.py is not what was installed",
        "cupy-cuda13x: cupy/__init__.py cannot be read: No such file or directory",
    ):
        assert part in said


REMADE = {
    "pwfork/bad.py": "import pwfork.nowhere\n",
    "pwfork/worse.py": "1 / 0\n",
    "pwfork/fine.py": "import pwbase\n",
    "pwfork/more.py": "import pw_not_here.x\n",
    "pwfork/tests/test_a.py": "1 / 0\n",
    "pwfork/__main__.py": "1 / 0\n",
    "pwfork/gone.py": None,
}


def test_each_remade_module_is_imported(forks: Set) -> None:
    rows = [{"path": p, "action": "remake" if t else "remove"} for p, t in REMADE.items()]
    files = {p: text for p, text in REMADE.items() if text} | {
        "pwfork/__init__.py": "",
        "pwfork/libpw.so": "no module",
        "pwfork/_x.abi3.so": "\x7fELF PyInit__x",
        "pwfork/_taken.abi3.so": "\x7fELF PyInit__taken",
        "pw_fork-1.0+arrayapi.h0123abcd.dist-info/patchwheel.json": json.dumps(
            {
                "remade": rows,
                "compiled": {"built": {"pwfork/_x.abi3.so": "", "pwfork/libpw.so": ""}},
            }
        ),
    }
    forks.wheels[0] = ours(forks.folder / "w2", "pw-fork", "pw-fork", files)
    with pytest.raises(CheckError) as caught:
        forks.compose()
    said = str(caught.value)
    assert "pwfork.bad cannot be imported: ModuleNotFoundError: No module named 'pwfork" in said
    assert "pwfork.worse cannot be imported: ZeroDivisionError" in said
    assert "pwfork._x cannot be imported: ImportError" in said
    assert said.count("cannot be imported") == 3
    assert not forks.link.exists()


def test_a_remade_module_that_needs_what_is_not_here_is_noted(forks: Set) -> None:
    rows = [
        {"path": f"pwfork/{n}.py", "action": "add"} for n in ("fine", "more", "gpu", "cu", "nt")
    ]
    # As CuPy says it.
    finds = """raise ImportError('Failure finding "libpwcu.so.3 or libpwcu.so.2": none\\n\\n')"""
    lacks = "raise ImportError('libpwgpu.so.2: cannot open shared object file: No such file')\n"
    files = {p: str(REMADE[p]) for p in ("pwfork/fine.py", "pwfork/more.py")} | {
        "pwfork/__init__.py": "",
        "pwfork/gpu.py": lacks,
        "pwfork/cu.py": finds,
        "pwfork/nt.py": "raise ImportError('pwfork.nt can only be imported on Windows')\n",
        "pw_fork-1.0+arrayapi.h0123abcd.dist-info/patchwheel.json": json.dumps({"remade": rows}),
    }
    forks.wheels[0] = ours(forks.folder / "w2", "pw-fork", "pw-fork", files)
    forks.compose()
    assert forks.report.lines[-5:] == [
        "imported 1 remade module",
        "pwfork.more was not imported: it needs pw_not_here, which is not installed",
        "pwfork.gpu was not imported: it needs libpwgpu.so.2, which is not installed",
        "pwfork.cu was not imported: it needs libpwcu.so.3, which is not installed",
        "pwfork.nt was not imported: it says pwfork.nt can only be imported on Windows",
    ]


def test_what_is_missing_is_said(forks: Set) -> None:
    made = forks.compose()
    subprocess.run([uv_bin(), "pip", "uninstall", "-q", "-p", made.python, "pw-base"], check=True)
    said = forks.check(made)
    assert "pw-base 1.0 is missing" in said
    assert "requires `pw-base`" in said


def test_an_environment_can_be_checked_by_its_own_lock_alone(forks: Set) -> None:
    """As a container does, which has nothing of ours but this one file."""
    made = forks.compose()
    path = made.path
    words = [str(made.python), "-I", str(INSPECT_ENVIRONMENT), str(path / "pylock.toml")]
    assert subprocess.run(words, check=False).returncode == 0
    shutil.rmtree(next(path.glob("lib/*/site-packages/pw_fork-*.dist-info")))
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pw-fork 1.0+arrayapi" in done.stderr
    assert "is missing" in done.stderr


def test_the_inspection_finds_the_same_without_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"pwfine/__init__.py": "", "pwbad.py": "1 / 0\n", "not-a-module/x.py": ""}
    for wheel in (
        make_wheel(tmp_path, "pw-fork", "1.0", files),
        make_wheel(tmp_path, "pw-other", "2.0", {"pwfine/__init__.py": ""}),
        make_wheel(tmp_path, "cupy", "3.0", {"cupy.py": SHOWS}),
    ):
        with ZipFile(wheel) as archive:
            archive.extractall(tmp_path / "site")
    found = list(metadata.distributions(path=[str(tmp_path / "site")]))

    class Raising(metadata.PathDistribution):
        @property
        def metadata(self) -> Never:
            raise FileNotFoundError

    (broken := tmp_path / "site" / "broken-1.dist-info").mkdir()
    found += [metadata.PathDistribution(broken), Raising(broken)]
    monkeypatch.setattr(metadata, "distributions", lambda: [*found, *found[:1]])
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in ("cupy", "pwfine", "pwbad"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    expected = {"pw-fork": "1.0", "cupy": "3.1", "pw-missing": "4"}
    problems = "\n".join(inspect_environment.inspect(expected, ["pw-fork", "cupy"])[0])
    for said in (
        "is there twice",
        "cupy is 3.0, expected 3.1",
        "pw-missing 4 is missing",
        "pw-other 2.0 does not belong here",
        "pw-other overwrites pwfine, which is pw-fork's",
        "pwbad cannot be imported: ZeroDivisionError: division by zero",
        "(no name) (no Version) does not belong here",
        "(no name): has no RECORD of its files",
    ):
        assert said in problems
    assert "cupy cannot be imported" not in problems
