"""P18: a wheel states every member, and none runs by itself that the pin's own wheel lacks."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patchwheel.release import check_release
from patchwheel.wheelfile import (
    Entry,
    check_record,
    make_entry,
    read_wheel,
    write_archive,
    write_wheel,
)
from tests.fixtures import support
from tests.fixtures.projects import Site
from tests.security.hostile import RELEASE, make_attack

Entries = dict[str, "Entry"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = make_attack(tmp_path_factory.mktemp("members")).site
    for words in (("lock",), RELEASE):
        status, said = made.tried(*words)
        assert status == 0, said
    return made


@pytest.fixture
def wheel(site: Site, tmp_path: Path) -> Path:
    [made] = (site.root / "dist/release").glob("*.whl")
    copy = tmp_path / made.name
    copy.write_bytes(made.read_bytes())
    return copy


def changed(wheel: Path, edit: Callable[[Entries, str], None]) -> None:
    """Change the members, with a RECORD that is true for what is there then."""
    found = read_wheel(wheel)
    entries = dict(found.entries)
    edit(entries, found.dist_info)
    del entries[f"{found.dist_info}/RECORD"]
    write_wheel(wheel, found.dist_info, entries.values())


def adding(name: str, content: str = "import os\n") -> Callable[[Entries, str], None]:
    def edit(entries: Entries, info: str) -> None:
        full = name.replace("INFO", info).replace("DATA", info.replace(".dist-info", ".data"))
        date = next(iter(entries.values())).date
        entries[full] = make_entry(full, content.encode(), mode=0o644, date=date)

    return edit


def executable(entries: Entries, info: str) -> None:
    entries["demo.py"] = replace(entries["demo.py"], mode=0o755)


def requires(entries: Entries, info: str) -> None:
    old = entries[f"{info}/METADATA"]
    text = old.content().replace(b"Version:", b"Requires-Dist: evil\nVersion:", 1)
    entries[old.name] = make_entry(old.name, text, mode=old.mode, date=old.date)


RUNS = {
    "a path file": adding("evil.pth"),
    "a path file in the data folder": adding("DATA/purelib/evil.pth"),
    "a start module": adding("sitecustomize.py"),
    "a start package": adding("usercustomize/__init__.py"),
    "a script": adding("DATA/scripts/pip"),
    "a file outside of site-packages": adding("DATA/data/lib/evil"),
    "a command": adding("INFO/entry_points.txt", "[console_scripts]\npip = demo:main\n"),
}
OTHER = {
    "a module": adding("evil.py"),
    "a file of another folder": adding("demo/patchwheel.json"),
    "a licence": adding("INFO/licenses/LICENSE"),
    "another mode": executable,
    "another requirement": requires,
    "no module": lambda entries, _: entries.pop("demo.py"),
}


@pytest.mark.parametrize("way", [*RUNS, *OTHER])
def test_a_member_that_the_record_does_not_state_is_found(wheel: Path, way: str) -> None:
    assert check_release(wheel).problems == ()
    changed(wheel, {**RUNS, **OTHER}[way])
    # Without the record, the wheel is a sound one.
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
    problems = check_release(wheel).problems
    assert "it holds other files, or with other modes, than its record states" in problems[-1]
    if way in RUNS:
        assert "would run by itself, and its record does not state it" in problems[0]


def folder(wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.mkdir("evil")


def signature_of_record(wheel: Path) -> None:
    found = read_wheel(wheel)
    name = f"{found.dist_info}/RECORD.jws"
    extra = make_entry(name, b"hidden", mode=0o644, date=(2024, 1, 1, 0, 0, 0))
    write_archive(wheel, [*found.entries.values(), extra])


def made_by(wheel: Path) -> None:
    data = wheel.read_bytes()
    at = data.index(b"PK\1\2")
    wheel.write_bytes(data[: at + 4] + b"\x15" + data[at + 5 :])


@pytest.mark.parametrize("edit", [folder, signature_of_record, made_by])
def test_a_wheel_is_packed_in_one_way(wheel: Path, edit: Callable[[Path], None]) -> None:
    edit(wheel)
    # For an installer it is sound.
    check_record(read_wheel(wheel))
    assert check_release(wheel).problems != ()


TRAPS = {
    "a path file": {"evil.pth": "import os\n"},
    "a start module": {"sitecustomize.py": ""},
    "a script": {"demo-1.0.data/scripts/pip": "#!python\n"},
}


@pytest.mark.parametrize("way", TRAPS)
def test_no_wheel_is_made_with_what_runs_by_itself(tmp_path: Path, way: str) -> None:
    trap = support.make_wheel(tmp_path / "trap", "demo", "1.0", {"demo.py": "", **TRAPS[way]})
    code = f"pathlib.Path(out, WHEEL).write_bytes({trap.read_bytes()!r})"
    site = make_attack(tmp_path, code={"act": code}).site
    assert site.tried("lock")[0] == 0
    status, said = site.tried("build", "--from-source")
    assert status == 6, said
    assert "would run by itself, and the pin's own wheel has no such file" in said
    assert not (site.root / "dist/release").exists()


def test_what_the_pin_has_may_run_and_is_said(tmp_path: Path) -> None:
    files = {"demo.py": "", "demo.pth": "import demo\n", "demo-1.0.data/scripts/run": "#!python\n"}
    own = support.make_wheel(tmp_path / "own", "demo", "1.0", files)
    code = f"pathlib.Path(out, WHEEL).write_bytes({own.read_bytes()!r})"
    site = make_attack(tmp_path, code={"inspect": code, "act": code}).site
    assert site.tried("lock")[0] == 0
    wheel = site.build("--from-source")
    record = read_wheel(wheel).record
    data = f"{read_wheel(wheel).name.stem}.data"
    assert record.runs == (f"{data}/scripts/run", "demo.pth")
    assert check_release(wheel).problems == ()
    assert site.run("verify", str(wheel)).count("runs by itself") == 2


def test_one_wheel_says_what_it_cannot_tell(site: Site, wheel: Path) -> None:
    told = site.run("verify", str(wheel))
    assert told.count("not checked") == 3
    assert "`patchwheel verify demo --rebuild` does" in told
    [statement] = (site.root / "dist/release").glob("*.intoto.json")
    beside = json.loads(site.run("verify", str(statement.parent / wheel.name), "--json"))
    assert len(beside["unchecked"]) == 1
    assert check_release(site.root / "dist/release").unchecked == ()
