"""A small real project through the command line, with real git, compilers and uv."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import patchwheel.project
from patchwheel.build import toolchain
from patchwheel.kit.entry import sealed, unsealed
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store
from patchwheel.manifest import load_lock, save_lock
from patchwheel.plan.base import Base
from patchwheel.wheel.build import build_wheel
from tests.fixtures import support
from tests.fixtures.projects import (
    VERSION,
    Project,
    make_project,
    package_files,
    publish,
    sdist_table,
)

PATCH = "0010-greet.patch"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

pytestmark = [pytest.mark.network, pytest.mark.compiled, pytest.mark.xdist_group("packages")]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tinyext as a repository whose data folder is a submodule, tagged."""
    folder = tmp_path_factory.mktemp("upstream")
    files: dict[str, str | bytes | None] = {**package_files("tinyext")}
    data = files.pop("src/tinyext/data/weights.txt")
    support.make_upstream(folder / "data", {"weights.txt": data})
    support.make_upstream(folder / "tinyext", files)
    support.git(
        folder / "tinyext",
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        f"file://{folder}/data",
        "src/tinyext/data",
    )
    support.make_upstream(folder / "tinyext", {}, tag=f"v{VERSION}")
    return folder / "tinyext"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="module")
def sdist(upstream: Path, shelf: Path) -> Path:
    """The sdist of the tag: the repository's files, submodule included, and a PKG-INFO."""
    files: dict[str, str | bytes] = {}
    for name in support.git(upstream, "ls-files", "--recurse-submodules").splitlines():
        if name != ".gitmodules":
            files[name] = (upstream / name).read_bytes()
    return support.make_sdist(shelf, "tinyext", VERSION, files)


def change(upstream: Path, path: str, old: str, new: str, subject: str) -> bytes:
    """Return a patch against the tag."""
    support.git(upstream, "checkout", "-q", f"v{VERSION}")
    text = (upstream / path).read_text()
    assert old in text
    why = "Carried for the tests.\n\nUpstream-Status: Inappropriate [a test]\n"
    return support.make_patch(upstream, {path: text.replace(old, new)}, subject=subject, body=why)


@pytest.fixture(scope="module")
def greeting(upstream: Path) -> bytes:
    return change(
        upstream,
        "src/tinyext/__init__.py",
        (upstream / "src/tinyext/__init__.py").read_text(),
        (upstream / "src/tinyext/__init__.py").read_text() + '\nGREETING = "hello"\n',
        "Greet",
    )


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    sdist: Path,
    greeting: bytes,
    packages_store: Path,
    shelf: Path,
) -> Project:
    """A project that compiles, locked."""
    root = tmp_path_factory.mktemp("project")
    made = make_project(root, sdist_table(sdist), {PATCH: greeting}, packages_store, shelf)
    made.run("lock")
    return made


@pytest.fixture(scope="module")
def compiled(project: Project) -> Path:
    return project.build()


def content(wheel: Path) -> dict[str, bytes]:
    """Return a wheel's files save label, record and SBOM, without the version."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    kept = {}
    for name, data in found.items():
        if name.endswith(("/RECORD", "/patchwheel.json", "/patchwheel.cdx.json")):
            continue
        kept[re.sub(r"^tinyext-[^/]*\.dist-info", "INFO", name)] = re.sub(
            rb"(?m)^Version: .*$", b"", data
        )
    return kept


def record(wheel: Path) -> dict[str, object]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/patchwheel.json"))
        answer = json.loads(archive.read(name))
    assert isinstance(answer, dict)
    return answer


@pytest.mark.heavy
def test_a_pin_through_git_and_through_an_sdist_give_the_same_content(
    upstream: Path,
    compiled: Path,
    greeting: bytes,
    packages_store: Path,
    shelf: Path,
    tmp_path: Path,
) -> None:
    commit = support.git(upstream, "rev-parse", f"v{VERSION}")
    table = (
        f'version = "{VERSION}"\nupstream-wheel = false\n'
        f'git = "file://{upstream}"\ntag = "v{VERSION}"\ncommit = "{commit}"\n'
    )
    through_git = make_project(tmp_path / "git", table, {PATCH: greeting}, packages_store, shelf)
    through_git.run("lock")
    wheel = through_git.build()
    assert wheel.name != compiled.name
    assert content(wheel) == content(compiled)
    assert record(wheel)["pin"] != record(compiled)["pin"]


def test_a_series_is_followed_to_branches_and_to_releases(
    upstream: Path,
    project: Project,
    greeting: bytes,
    packages_store: Path,
    shelf: Path,
    tmp_path: Path,
) -> None:
    commit = support.git(upstream, "rev-parse", f"v{VERSION}")
    init = "src/tinyext/__init__.py"
    support.git(upstream, "checkout", "-q", "-B", "next", f"v{VERSION}")
    stopped = support.make_upstream(upstream, {init: '"""Another."""\n'})
    table = f'version = "{VERSION}"\nupstream-wheel = false\n'
    table += f'git = "file://{upstream}"\ntag = "v{VERSION}"\ncommit = "{commit}"\n'
    root = tmp_path / "p"
    other = make_project(root, table, {PATCH: greeting}, packages_store, shelf)
    words = ("status", "tinyext", "--against", "next", "--against", VERSION)
    page = tmp_path / "page.html"
    told = json.loads(other.run(*words, "--json", "--html", str(page)))["tinyext"]
    [[conflict], [clean]] = [ref["patches"] for ref in told]
    assert (conflict["state"], conflict["commit"]["oid"]) == ("conflict", stopped)
    assert clean["state"] == "clean"
    assert stopped[:12] in page.read_text()
    again = json.loads(other.run(*words, "--json", "--changes"))["tinyext"]
    assert [ref["patches"] for ref in again] == [[], []]
    # Without a repository the release is read from its sdist.
    released = ("status", "tinyext", "--against", VERSION, "--json")
    [told] = json.loads(project.run(*released))["tinyext"]
    assert (told["commit"], told["patches"][0]["state"]) == (None, "clean")
    message = project.run("status", "tinyext", "--against", "9.9", status=4)
    assert "the pin names no repository; only releases can be had" in message
    assert "tinyext: there is no release 9.9" in message
    message = project.run("status", "tinyext", "--changes", status=2)
    assert "--changes, --html and --fail-on need --against" in message


def test_a_wheel_built_again_in_other_folders_is_bit_identical(
    project: Project, compiled: Path, tmp_path: Path
) -> None:
    shutil.copytree(project.root, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("dist"))
    other = replace(project, root=tmp_path / "elsewhere").with_store(tmp_path / "store")
    page = tmp_path / "report.html"
    wheel = other.build("--report", str(page))
    assert wheel.name == compiled.name
    assert wheel.read_bytes() == compiled.read_bytes()
    told = json.loads(page.with_suffix(".json").read_text())
    [made] = told["made"]
    assert (made["state"], made["file"]) == ("made", wheel.name)
    chain = [told["events"][n] for n in told["critical"]]
    assert [step["kind"] for step in chain][-2:] == ["compile", "link"]
    kinds = {event["kind"] for event in told["events"]}
    assert kinds >= {"transpile", "compile", "link", "run", "phase"}
    phases = {event["what"] for event in told["events"]}
    assert phases >= {"building tinyext", "tinyext: packing"}
    # The next is estimated by this one.
    assert not json.loads(other.run("plan", "--json"))[0]["estimate"]
    [key] = [e.key for e in Store(other.store).entries() if (e.path / wheel.name).exists()]
    Store(other.store).remove("wheels", key)
    cost = json.loads(other.run("plan", "--json"))[0]["estimate"]
    assert cost["here"]
    assert 0 < cost["wall"] <= cost["cpu"]


def test_a_replayed_compile_gives_the_wheel_of_a_compile(
    project: Project, compiled: Path, tmp_path: Path
) -> None:
    other, store = project.copied(tmp_path / "p"), Store(project.store)

    def again(*words: str) -> dict[str, int]:
        # A user's own settings of ccache and Cython change nothing.
        own = {"CCACHE_DISABLE": "1", "CCACHE_DIR": "/nowhere", "CYTHON_FORCE_REGEN": "1"}
        told = other.run("build", "--json", *words, status=0, **own)
        [wheel] = json.loads(told)
        assert not wheel["cached"]
        assert Path(wheel["path"]).read_bytes() == compiled.read_bytes()
        made = json.loads((store.path("wheels", key) / "made.json").read_text())
        counts: dict[str, int] = made["compile_cache"]
        return counts

    [key] = [e.key for e in store.entries() if (e.path / compiled.name).exists()]
    store.remove("wheels", key)
    # Two of the compilers', Cython's, and Meson's two checks of Cython.
    assert again() == {"hits": 5, "misses": 0}
    # What was replayed is no answer for who asked for a compile.
    assert again("--no-compile-cache") == {}


def test_the_environment_holds_the_labelled_wheel_and_the_patch_works(
    project: Project, compiled: Path
) -> None:
    answer = json.loads(project.run("env", "--json"))
    python = project.root / ".venv-forks" / "bin" / "python"
    assert Path(answer["link"]) == project.root / ".venv-forks"
    code = (
        "import tinyext, importlib.metadata as m; from tinyext import _fast, _pairs; "
        "print(tinyext.GREETING, m.version('tinyext'))"
    )
    greeting, version = support.run(python, "-c", code, status=0).stdout.split()
    assert greeting == "hello"
    assert version == compiled.name.split("-")[1]
    assert re.fullmatch(rf"{re.escape(VERSION)}\+arrayapi\.h[0-9a-f]{{8}}", version)


@pytest.fixture(scope="module")
def grafting(
    tmp_path_factory: pytest.TempPathFactory,
    sdist: Path,
    greeting: bytes,
    packages_store: Path,
    shelf: Path,
    project: Project,
) -> Project:
    """A project whose upstream published a wheel; it was locked without a series, then got one."""
    plain = replace(project, root=tmp_path_factory.mktemp("plain"))
    shutil.copytree(
        project.root,
        plain.root,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("dist", ".venv-forks"),
    )
    (plain.patches / PATCH).unlink()
    (plain.patches / "series").write_text("")
    published = publish(plain.build(), shelf)
    support.make_index(shelf / "simple", sdist, published)
    root = tmp_path_factory.mktemp("grafting")
    made = make_project(root, sdist_table(sdist, ""), {PATCH: greeting}, packages_store, shelf)
    made.run("lock")
    return made


def test_a_python_patch_is_grafted_and_the_rest_is_upstreams(
    grafting: Project, shelf: Path, compiled: Path
) -> None:
    [plan] = json.loads(grafting.run("plan", "--json"))
    assert plan["route"] == "graft"
    [output] = plan["outputs"]
    assert (output["path"], output["why"]) == ("tinyext/__init__.py", PATCH)
    wheel = grafting.build()
    assert wheel.name.split("-")[1].endswith(".graft")
    published = next(shelf.glob("tinyext-*.whl"))
    ours, theirs = content(wheel), content(published)
    assert {n for n in ours if ours[n] != theirs[n]} == {"tinyext/__init__.py"}
    # What a graft makes is what a compile of the same tree makes.
    assert ours == content(compiled)
    made = record(wheel)
    assert made["base"]["sha256"] == support.sha256(published)  # type: ignore[index]


def test_nothing_changed_means_nothing_is_made_and_a_renamed_patch_is_a_hit(
    grafting: Project,
) -> None:
    wheel = grafting.build()
    before = wheel.stat()
    [again] = json.loads(grafting.run("build", "--json"))
    assert again["cached"]
    assert wheel.stat().st_mtime_ns == before.st_mtime_ns
    (grafting.patches / PATCH).rename(grafting.patches / "0500-renamed.patch")
    (grafting.patches / "series").write_text("0500-renamed.patch\n")
    try:
        [renamed] = json.loads(grafting.run("build", "--json"))
    finally:
        (grafting.patches / "0500-renamed.patch").rename(grafting.patches / PATCH)
        (grafting.patches / "series").write_text(f"{PATCH}\n")
    assert renamed["cached"]
    assert renamed["sha256"] == again["sha256"]


def test_without_patches_the_wheel_is_the_pins_and_goes_beside_the_others(
    grafting: Project,
) -> None:
    patched = grafting.build()
    plain = grafting.build("--without-patches")
    assert plain.parent == patched.parent / "unpatched"
    assert patched.exists()
    assert record(plain)["patches"] == []
    assert support.sha256(grafting.build()) == support.sha256(patched)


FAST, PAIRS = (f"tinyext/{name}{SUFFIX}" for name in ("_fast", "_pairs"))
UNITS = "tinyext/units.py"
TARGET = "py.extension_module('_fast', '_fast.pyx', install: true, subdir: 'tinyext')\n"


def another(grafting: Project, folder: Path, patch: bytes) -> Project:
    """Copy a project, with another series of one patch; the store is the same."""
    other = grafting.copied(folder)
    support.make_series(other.patches, {PATCH: patch})
    return other


@pytest.mark.parametrize(
    ("path", "old", "new", "outputs"),
    [
        pytest.param(
            *("src/tinyext/_fast.pyx", "\n", "\n# patched\n", {FAST: "build"}),
            marks=pytest.mark.heavy,
        ),
        (
            "src/tinyext/scale.pxd",
            "\n",
            "\n# patched\n",
            {FAST: "build", "tinyext/scale.pxd": "remake"},
        ),
        ("src/tinyext/pairs.cpp", "\n", "\n// patched\n", {PAIRS: "build"}),
        (
            "src/tinyext/pure.py",
            "\n",
            "\n# patched\n",
            {UNITS: "build", "tinyext/pure.py": "remake"},
        ),
        pytest.param(
            *("src/tinyext/generate.py", "\n", "\n# patched\n", {UNITS: "build"}),
            marks=pytest.mark.heavy,
        ),
        ("src/tinyext/meson.build", "\n", "\n# patched\n", {}),
        ("src/tinyext/meson.build", "optimization=1", "optimization=2", {PAIRS: "build"}),
        ("src/tinyext/meson.build", "'pure.py', ", "", {"tinyext/pure.py": "remove"}),
        ("src/tinyext/meson.build", TARGET, "", {FAST: "remove"}),
    ],
)
def test_only_what_a_change_reaches_is_remade(
    grafting: Project,
    upstream: Path,
    tmp_path: Path,
    path: str,
    old: str,
    new: str,
    outputs: dict[str, str],
) -> None:
    patch = change(upstream, path, old, new, "Touch")
    plan = another(grafting, tmp_path / "p", patch).decided()
    assert plan["route"] == "graft", plan["why"]
    assert {o["path"]: o["action"] for o in plan["outputs"]} == outputs
    assert all(PATCH in output["why"] for output in plan["outputs"])


@pytest.mark.parametrize(
    ("old", "new"), [("'pure.py', ", ""), ("optimization=1", "optimization=2")]
)
def test_what_configuring_told_of_a_locked_series_is_not_asked_again(
    grafting: Project, upstream: Path, tmp_path: Path, old: str, new: str
) -> None:
    path = "src/tinyext/meson.build"
    other = another(grafting, tmp_path / "p", change(upstream, path, old, new, "Touch"))
    known = other.decided()
    other.run("lock")
    elsewhere = replace(other, store=tmp_path / "store")
    [plan] = json.loads(elsewhere.run("plan", "--json"))
    assert (plan["outputs"], plan["undecided"]) == (known["outputs"], [])
    assert plan["node-key"] == known["node-key"]
    assert not (elsewhere.store / "configured").exists()
    # Of another series it says nothing, until that is locked.
    again = change(upstream, path, "\n", "\n# again\n", "Touch")
    support.make_series(other.patches, {PATCH: again})
    [plan] = json.loads(elsewhere.run("plan", "--json"))
    assert plan["undecided"]
    other.run("lock")
    [plan] = json.loads(elsewhere.run("plan", "--json"))
    assert (plan["outputs"], plan["undecided"]) == ([], [])


def added(upstream: Path, **more: str) -> bytes:
    """Return a patch that adds a module, as meson.build says, and lines to other files."""
    folder, why = "src/tinyext", "Carried.\n\nUpstream-Status: Inappropriate [a test]\n"
    support.git(upstream, "checkout", "-q", f"v{VERSION}")
    texts = {n: (upstream / folder / n).read_text() for n in ("meson.build", *more)}
    texts["meson.build"] = texts["meson.build"].replace("'pure.py', ", "'pure.py', 'more.py', ")
    texts |= {name: texts[name] + line for name, line in more.items()} | {"more.py": "x = 1\n"}
    files = {f"{folder}/{name}": text for name, text in texts.items()}
    return support.make_patch(upstream, files, subject="Add more", body=why)


@pytest.mark.heavy
@pytest.mark.parametrize("builds", [False, True])
def test_a_source_that_changes_after_the_definition_is_followed_by_the_last_configuration(
    grafting: Project, upstream: Path, tmp_path: Path, *, builds: bool
) -> None:
    other = replace(grafting.copied(tmp_path / "p"), store=tmp_path / "store")

    def plan(patch: bytes, *words: str) -> Any:
        support.make_series(other.patches, {PATCH: patch})
        return json.loads(other.run("plan", *words, "--json"))[0]

    patch = added(upstream)
    assert plan(patch)["undecided"]
    other.build()
    configured = sorted((other.store / "configured").iterdir())
    patch = added(upstream, **{"_fast.pyx": "# patched\n"})
    found = plan(patch)
    assert found["undecided"] == []
    actions = {o["path"]: o["action"] for o in found["outputs"]}
    assert actions == {"tinyext/more.py": "add", FAST: "build"}
    if builds:
        [wheel] = json.loads(other.run("build", "--json"))
        assert sorted((other.store / "configured").iterdir()) == configured
        elsewhere = replace(other, store=tmp_path / "another")
        # Where everything is configured anew, the decision is the same, and so is the wheel.
        truth = elsewhere.decided()
        keys = ("outputs", "why", "taken", "node-key")
        assert [truth[key] for key in keys] == [wheel["plan"][key] for key in keys]
        [again] = json.loads(elsewhere.run("build", "--json"))
        assert again["sha256"] == wheel["sha256"]
    # Other definitions, and another file, may be built in any way.
    more = {"_fast.pyx": "# patched\n", "meson.build": "\n# patched\n"}
    assert plan(added(upstream, **more))["undecided"]


def test_the_inventory_names_no_place_of_this_machine(grafting: Project) -> None:
    text = (grafting.root / "forks.inventory").read_text()
    assert f"_fast.{{abi}}{SUFFIX[SUFFIX.index('-x86') :]}" in text
    for place in (grafting.store, grafting.root, Path(sys.executable).resolve().parents[1]):
        assert str(place) not in text


def test_a_graft_asks_each_question_once(
    grafting: Project, upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = change(upstream, "src/tinyext/pairs.cpp", "\n", "\n// once\n", "Touch")
    other = another(grafting, tmp_path / "p", patch)
    for name, value in other.index.items():
        monkeypatch.setenv(name, value)
    asked: Counter[object] = Counter()

    def count(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counting(*args: Any, **options: Any) -> Any:
            trees = args[1:] if name == "changes" else ()
            # What applying changed in the index is a question of its own.
            if "--cached" not in trees:
                asked[name, *trees] += 1
            return real(*args, **options)

        monkeypatch.setattr(owner, name, counting)

    count(Base.wheel, "func")  # that reads it
    count(toolchain, "identify")
    count(Repository, "changes")
    store = Store(other.store)
    project = patchwheel.project.Project(other.root / "forks.toml", store, support.Recorder())
    wheel = build_wheel(project, project.manifest.forks["tinyext"])
    assert [output.path for output in wheel.plan.built] == [PAIRS]
    tree = wheel.plan.tree
    questions = {("func",), ("identify",), ("changes", tree.source.tree, tree.tree)}
    assert asked == dict.fromkeys(questions, 1)


def test_a_plan_needs_no_compiler_and_makes_no_wheel(
    grafting: Project, upstream: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "git").symlink_to(str(shutil.which("git")))
    for path, old, new in (
        ("src/tinyext/pairs.cpp", "\n", "\n// plain\n"),
        ("src/tinyext/meson.build", "optimization=1", "optimization=2"),
    ):
        patch = change(upstream, path, old, new, "Touch")
        other = another(grafting, tmp_path / Path(path).name, patch)
        other = replace(other, store=tmp_path / "store")
        python = str(Path(sys.executable).resolve())
        [plan] = json.loads(other.run("plan", "--json", PATH=str(bare), PATCHWHEEL_PYTHON=python))
        assert (plan["route"], plan["node-key"]) == ("graft", None)
        assert "gcc" in plan["pending"][0]
        found = plan["candidates"] or [o["path"] for o in plan["outputs"]]
        assert PAIRS in found
        assert bool(plan["undecided"]) == (path == "src/tinyext/meson.build")
        [source] = json.loads(
            other.run("plan", "--from-source", "--json", PATH=str(bare), PATCHWHEEL_PYTHON=python)
        )
        assert (source["route"], source["node-key"]) == ("compile", None)
        assert not (other.store / "wheels").exists()
        assert not (other.store / "configured").exists()
        save_lock(load_lock(other.root / "forks.lock"))
        [plan] = json.loads(other.run("plan", "--json", PATH=str(bare), PATCHWHEEL_PYTHON=python))
        advice = "`patchwheel lock` writes it where the project can be configured"
        assert plan["why"] == [f"forks.inventory lacks this pin: {advice}"]
        assert PAIRS in plan["candidates"]
        (other.root / "forks.inventory").unlink()
        assert "lacks the entry tinyext" in other.run("plan", status=2)


def test_a_graft_of_built_outputs_is_what_a_compile_makes_and_a_corrupted_plan_is_found(
    grafting: Project, upstream: Path, tmp_path: Path
) -> None:
    old, new = "return ", "return 0.5 + "
    patch = change(upstream, "src/tinyext/_fast.pyx", old, new, "Add a half")
    other = another(grafting, tmp_path / "p", patch)
    start = time.time() - 1
    wheel = other.build()
    made = record(wheel)
    assert [row["path"] for row in made["remade"]] == [FAST]  # type: ignore[attr-defined]
    proof = json.loads(other.run("verify", "tinyext", "--from-source", "--json"))
    assert proof["differences"] == []
    assert proof["unnecessary"] == []
    assert proof["equal"] > 1
    python = tmp_path / "env"
    other.run("env", str(python))
    script = "import tinyext; print(tinyext.total([1.0, 2.0]))"
    out = subprocess.check_output([python / "bin" / "python", "-c", script], text=True)
    assert float(out) != 6.0
    # The plan loses its one output, as if following the change had missed it.
    memos = [
        path
        for path in (other.store / "memo" / "plan").iterdir()
        if path.stat().st_mtime >= start and FAST in path.read_text()
    ]
    assert memos
    for memo in memos:
        place = f"plan/{memo.stem}"
        answer = {**unsealed(memo, place)["answer"], "outputs": []}
        memo.write_bytes(sealed(place, {"answer": answer}))
    message = other.run("verify", "tinyext", "--from-source", status=6)
    assert FAST in message


def test_a_proof_that_cannot_be_had_is_refused_before_the_graft_is_made(
    grafting: Project, upstream: Path, tmp_path: Path
) -> None:
    patch = change(upstream, "src/tinyext/__init__.py", "\n", "\n# Touch\n", "Touch")
    other = another(grafting, tmp_path / "p", patch)
    other = replace(other, store=tmp_path / "store")
    words = ("verify", "tinyext", "--from-source")
    message = other.run(*words, status=7, CC="pw-no-such-cc")
    assert "cannot compile: gcc is not installed" in message
    assert not list((other.store / "wheels").glob("*/*.whl"))


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        ("src/tinyext/meson.build", "py.extension", "py.extensoin", "meson.build:15"),
        ("src/tinyext/_fast.pyx", "cdef double", "cdef doubel", "_fast.pyx:6"),
    ],
)
def test_a_graft_that_cannot_be_built_is_an_error_and_leaves_nothing(
    grafting: Project, upstream: Path, tmp_path: Path, path: str, old: str, new: str, said: str
) -> None:
    other = another(grafting, tmp_path / "p", change(upstream, path, old, new, "Break"))
    message = other.run("build", status=5)
    assert said in message
    log = re.search(r"log: (.*)", message)
    assert log
    assert said in Path(log[1]).read_text()
    assert not list(other.root.glob("dist/*"))


def test_a_configured_tree_that_was_damaged_is_made_again(
    grafting: Project, upstream: Path, tmp_path: Path
) -> None:
    patch = change(upstream, "src/tinyext/pairs.cpp", "\n", "\n// 3\n", "Touch")
    other = another(grafting, tmp_path / "p", patch).with_store(tmp_path / "store")
    wheel = other.build().read_bytes()
    for file in (other.store / "configured").glob("*/meson/build.ninja"):
        file.write_text(file.read_text()[:-2000])
    shutil.rmtree(other.store / "wheels")
    done = other.done("build")
    out, err = done.stdout, done.stderr
    assert Path(out.strip()).read_bytes() == wheel
    assert "build.ninja has changed since it was stored" in err


def test_a_compile_is_the_base_of_the_next_change(
    grafting: Project, upstream: Path, tmp_path: Path
) -> None:
    one = change(upstream, "src/tinyext/_fast.pyx", "\n", "\n# one\n", "One")
    two = change(upstream, "src/tinyext/pairs.cpp", "\n", "\n// two\n", "Two")
    other = another(grafting, tmp_path / "p", one)
    compiled = other.build("--from-source")
    # Also one that nobody asked for, as nothing else could be done, has that key and bytes.
    assert record(compiled)["why"] == []
    support.make_series(other.patches, {PATCH: one, "0020-two.patch": two})
    [plan] = json.loads(other.run("plan", "--json"))
    assert plan["base"]["kind"] == "built"
    assert plan["base"]["filename"] == compiled.name
    assert [o["path"] for o in plan["outputs"]] == [PAIRS]
    proof = json.loads(other.run("verify", "tinyext", "--from-source", "--json"))
    assert (proof["differences"], proof["taken"]) == ([], 0)


def test_a_compile_makes_only_what_is_installed(
    grafting: Project, compiled: Path, upstream: Path, tmp_path: Path
) -> None:
    broken = "executable('unused', 'pairs.cpp', cpp_args: ['-include', 'no-such-header.h'])"
    path = "src/tinyext/meson.build"
    patch = change(
        upstream, path, "py.extension_module(\n", f"{broken}\npy.extension_module(\n", "Add"
    )
    other = another(grafting, tmp_path / "p", patch)
    files = content(other.build("--from-source"))
    touched = "tinyext/__init__.py"
    assert {n: d for n, d in files.items() if n != touched} == {
        n: d for n, d in content(compiled).items() if n != touched
    }


@pytest.mark.heavy
def test_a_machine_without_a_compiler_takes_what_another_built(
    grafting: Project, upstream: Path, tmp_path: Path
) -> None:
    """Both a change that the inventory follows, and one that only a configured tree would tell."""
    shared, bare = tmp_path / "shared", tmp_path / "bin"
    for folder in (shared, bare):
        folder.mkdir()
    for name in ("git", "bwrap", "setpriv", "unshare", "env", "sh"):
        if found := shutil.which(name):
            (bare / name).symlink_to(found)
    here: dict[str, Any] = {"PATCHWHEEL_REMOTE": shared.as_uri()}
    python = str(Path(sys.executable).resolve())
    there = {**here, "PATH": str(bare), "PATCHWHEEL_PYTHON": python, "CC": "", "CXX": ""}
    for path, old, new in (
        ("src/tinyext/pairs.cpp", "\n", "\n// shared\n"),
        ("src/tinyext/meson.build", "optimization=1", "optimization=2"),
    ):
        patch = change(upstream, path, old, new, "Touch")
        ci = another(grafting, tmp_path / Path(path).name, patch)
        laptop = replace(ci.copied(tmp_path / f"laptop {Path(path).name}"), store=tmp_path / "new")
        none = replace(laptop, store=tmp_path / "none")
        assert "gcc" in none.run("build", status=7, **there)
        made = Path(ci.run("build", **here, PATCHWHEEL_REMOTE_WRITE="unsigned").strip())
        taken = Path(laptop.run("build", **there).strip())
        assert (taken.name, taken.read_bytes()) == (made.name, made.read_bytes())
        [plan] = json.loads(laptop.run("plan", "--json", **there))
        assert plan["state"] == "stored"
        for kind in ("wheels", "build-envs", "configured"):
            assert not (laptop.store / kind).exists()
        # Without the store, or for a release, it is not there.
        assert "gcc" in laptop.run("build", status=7, **there, PATCHWHEEL_COMPILE_CACHE="0")
        assert "gcc" in laptop.run("build", status=7, **{**there, "PATCHWHEEL_REMOTE": ""})
        assert "gcc" in laptop.run("build", "--release", "--sandbox=auto", status=7, **there)


@pytest.mark.heavy
def test_a_compile_is_shared_by_its_whole_key(project: Project, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    here: dict[str, Any] = {"PATCHWHEEL_REMOTE": (tmp_path / "shared").as_uri()}
    build = ("build", "--from-source")
    made = Path(project.run(*build, **here, PATCHWHEEL_REMOTE_WRITE="unsigned").strip())
    other = replace(project.copied(tmp_path / "other"), store=tmp_path / "store")
    taken = Path(other.run(*build, **here).strip())
    assert (taken.name, taken.read_bytes()) == (made.name, made.read_bytes())
    assert (other.store / "shared").is_dir()
    assert not (other.store / "wheels").exists()


def test_a_readme_changes_nothing(grafting: Project, upstream: Path, tmp_path: Path) -> None:
    other = grafting.copied(tmp_path / "p")
    touched = change(upstream, "README.md", "tinyext", "tiny extension", "Reword")
    support.make_series(other.patches, {PATCH: touched})
    [plan] = json.loads(other.run("plan", "--json"))
    assert (plan["route"], plan["outputs"]) == ("graft", [])


def test_dev_edit_build_export_round_trip(grafting: Project, tmp_path: Path) -> None:
    other = grafting.copied(tmp_path / "p")
    before = (other.patches / PATCH).read_bytes()
    other.run("dev", "tinyext")
    work = other.root / "work" / "tinyext"
    assert support.git(work, "log", "--format=%s", "-1") == "Greet"
    other.run("export", "tinyext")
    module = work / "src/tinyext/__init__.py"
    module.write_text(module.read_text().replace('"hello"', '"good day"'))
    [built] = json.loads(other.run("build", "--dev", "--json"))
    assert Path(built["path"]).parent == other.root / "dist"
    with zipfile.ZipFile(built["path"]) as archive:
        assert b"good day" in archive.read("tinyext/__init__.py")
    assert "__init__.py" in other.run("export", "tinyext", "--check", status=3)
    support.git(work, "commit", "-q", "-a", "--amend", "--no-edit")
    other.run("export", "tinyext", "--check", status=6)
    other.run("export", "tinyext")
    after = (other.patches / PATCH).read_bytes()
    assert after != before
    assert b"good day" in after
    assert "would be" not in other.run("export", "tinyext", "--check")
    assert json.loads(other.run("build", "--json"))[0]["cached"]


def test_a_series_is_rebased_onto_the_next_release(
    project: Project, sdist: Path, upstream: Path, tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    support.git(upstream, "checkout", "-q", f"v{VERSION}")
    names = support.git(upstream, "ls-files", "--recurse-submodules").splitlines()
    files: dict[str, str | bytes] = {
        name: (upstream / name).read_bytes() for name in names if name != ".gitmodules"
    }
    init, build = "src/tinyext/__init__.py", "meson.build"
    files[init] = b"# Of the next release.\n" + bytes(files[init])  # type: ignore[arg-type]
    files[build] = bytes(files[build]).replace(b"1.2.0", b"1.3.0")  # type: ignore[arg-type]
    next_one = support.make_sdist(shelf, "tinyext", "1.3.0", files)
    support.make_index(shelf / "simple", sdist, next_one)
    other = replace(project.copied(tmp_path / "p"), shelf=shelf)
    before = (other.patches / PATCH).read_bytes()
    old = (other.root / "forks.toml").read_text()
    words = ("rebase", "tinyext", "--onto", "1.3.0")
    [told] = json.loads(other.run(*words, "--dry-run", "--json"))
    assert told["state"] == "offset"
    assert (other.root / "forks.toml").read_text() == old
    assert "--continue" in other.run("rebase", "tinyext", status=2)
    assert "no rebase" in other.run("rebase", "tinyext", "--continue", status=3)
    result = json.loads(other.run(*words, "--json"))
    assert (result["kept"], result["written"]) == ([PATCH], [])
    assert (other.patches / PATCH).read_bytes() == before
    assert 'version = "1.3.0"' in (other.root / "forks.toml").read_text()
    assert not list(other.root.glob(".rebase-*"))
    wheel = other.build()
    assert wheel.name.startswith("tinyext-1.3.0+arrayapi")
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("tinyext/__init__.py")
    assert text.startswith(b"# Of the next release.\n")
    assert b"hello" in text
    other.run("export", "tinyext", "--check")


def test_killed_at_any_instant_the_next_run_makes_the_same_wheel(
    grafting: Project, tmp_path: Path
) -> None:
    expected = grafting.build().read_bytes()
    other = replace(grafting.copied(tmp_path / "p"), store=tmp_path / "store")
    for step in range(6):
        victim = other.start("build")
        time.sleep(0.1 + 0.2 * step)
        os.killpg(victim.pid, signal.SIGKILL if step % 2 else signal.SIGINT)
        victim.communicate()
    assert other.build().read_bytes() == expected
    assert other.run("cache", "verify") == ""


def test_two_runs_at_once_make_each_thing_once(grafting: Project, tmp_path: Path) -> None:
    other = replace(grafting.copied(tmp_path / "p"), store=tmp_path / "store")
    both = [other.start("build", "--json") for _ in range(2)]
    answers = []
    for one in both:
        out, err = one.communicate(timeout=300)
        assert one.returncode == 0, err
        answers += json.loads(out)
    assert answers[0]["sha256"] == answers[1]["sha256"]
    assert len({row["seconds"] for row in answers}) == 1
    assert len(list((other.store / "wheels").iterdir())) == 1


def test_offline_a_warm_store_is_enough_and_a_cold_one_is_a_clear_error(
    grafting: Project, tmp_path: Path
) -> None:
    grafting.build()
    grafting.run("build", "--offline")
    cold = replace(grafting, store=tmp_path / "store")
    message = cold.run("build", "--offline", status=4)
    assert "offline" in message


def test_a_failing_build_shows_its_last_lines_and_its_log(
    project: Project, upstream: Path, tmp_path: Path
) -> None:
    other = project.copied(tmp_path / "p")
    broken = change(upstream, "src/tinyext/pairs.cpp", "{", "{ this is no C++;", "Break")
    support.make_series(other.patches, {PATCH: broken})
    message = other.run("build", status=5)
    assert "this is no C++" in message or "error:" in message
    log = re.search(r"log: (.*)", message)
    assert log
    assert Path(log[1]).exists()
    assert not list(other.root.glob("dist/*"))


def test_a_truncated_sdist_is_refused(project: Project, sdist: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / sdist.name).write_bytes(sdist.read_bytes()[:-100])
    other = replace(project, store=tmp_path / "store", shelf=shelf)
    message = other.run("build", status=4)
    assert support.sha256(sdist) in message
    assert not list((tmp_path / "store").glob("files/*"))


def test_sdist_members(sdist: Path) -> None:
    """The fixture is what it says: the submodule's file is in the sdist."""
    with tarfile.open(fileobj=io.BytesIO(sdist.read_bytes())) as archive:
        assert f"tinyext-{VERSION}/src/tinyext/data/weights.txt" in archive.getnames()
