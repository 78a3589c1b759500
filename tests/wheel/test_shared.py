from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import patchwheel.plan.plan as planning
from patchwheel.kit import Distribution
from patchwheel.remote import Remote, parse_shared
from patchwheel.wheelfile import check_record, make_entry, read_wheel
from tests.fixtures.grafts import BUILT
from tests.fixtures.shared import ELF, Team, make_key

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.build import BuildInputs
    from patchwheel.kit import Interpreter
    from patchwheel.series.apply import PatchedTree
    from tests.fixtures.grafts import Bench


@pytest.fixture
def team(
    team_bench: tuple[Bench, PatchedTree],
    tmp_path: Path,
    interpreter: Interpreter,
    monkeypatch: pytest.MonkeyPatch,
) -> Team:
    (tmp_path / "shared").mkdir()
    return Team(*team_bench, tmp_path, (tmp_path / "shared").as_uri(), interpreter, monkeypatch)


def records(team: Team) -> list[Path]:
    return sorted((team.folder / "shared/ac").iterdir())


def test_a_machine_without_a_compiler_takes_the_wheel_that_another_built(team: Team) -> None:
    made = team.add()
    taken = team.take()
    assert taken
    assert (taken.sha256, taken.version) == (made.sha256, made.version)
    assert taken.path.read_bytes() == made.path.read_bytes()
    assert taken.node_key == made.node_key
    assert taken.version == f"1.0+arrayapi.h{made.node_key[:8]}.graft"
    [told] = [line for line in team.said.lines if "taken from" in line]
    assert "made by somebody with gcc 12, level bwrap" in told
    [blob] = (team.folder / "shared/cas").iterdir()
    assert blob.name == made.sha256
    # The second time nothing is asked.
    for path in [blob, *records(team)]:
        path.unlink()
    again = team.take()
    assert again
    assert again.path == taken.path


def test_a_release_never_finds_it(team: Team) -> None:
    """Neither in the shared store, nor what came from there."""
    made = team.add()
    assert team.take()
    project = team.project("laptop")
    assert project.store.find("wheels", made.node_key) is None
    del project.__dict__["remote"]
    for options in ({"release": True}, {"compile_cache": "off"}):
        for name in ("release", "compile_cache"):
            project.__dict__.pop(name, None)
        project.__dict__.update({"release": False, "compile_cache": "write"} | options)
        assert project.remote is None
        del project.__dict__["remote"]


def test_what_a_configured_tree_would_tell_is_in_the_answer(team: Team) -> None:
    made = team.add()
    taken = team.take(undecided=True)
    assert taken
    assert taken.sha256 == made.sha256
    assert not taken.plan.pending
    assert taken.plan.node_key == made.node_key


def test_a_graft_for_which_only_a_tree_was_configured_is_shared_too(team: Team) -> None:
    team.idle = True
    made = team.add()
    assert read_wheel(made.path).record.compiled is None
    taken = team.take(undecided=True)
    assert taken
    assert taken.sha256 == made.sha256
    assert "made by somebody with no compiler, level" in team.said.lines[-1]


def test_what_replayed_steps_built_is_taken_where_they_cannot_be(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build of recorded steps needs fewer requirements; without bubblewrap there is none."""
    cython = Distribution(name="cython", version="3.1", hashes=("1" * 64,))

    def reduced(inputs: BuildInputs, _needs: tuple[str, ...]) -> BuildInputs:
        return replace(inputs, build=replace(inputs.build, build_requires=(cython,)))

    monkeypatch.setattr(planning, "reduced", reduced)
    monkeypatch.setattr(planning, "needs_of", lambda *_: (("cython",), "5" * 64))
    for there, here in ((True, False), (True, True), (False, False)):
        name = f"{there}-{here}"
        team.url = (team.folder / name).as_uri()
        (team.folder / name).mkdir()
        monkeypatch.setattr(planning, "replays", lambda *_, there=there: there)
        made = team.add(f"ci-{name}")
        assert ("steps" in made.plan.key_parts) == there
        monkeypatch.setattr(planning, "replays", lambda *_, here=here: here)
        taken = team.take(f"laptop-{name}")
        assert taken
        assert (taken.sha256, taken.node_key) == (made.sha256, made.node_key)


def test_another_compiler_makes_another_wheel_and_both_are_offered(team: Team) -> None:
    first = team.add("ci", gcc="gcc 12")
    team.built = ELF + b" by 14"
    second = team.add("other", gcc="gcc 14")
    assert first.node_key != second.node_key
    for gcc, made in (("gcc 12", first), ("gcc 14", second), (None, first)):
        taken = team.take(f"laptop {gcc}", gcc)
        assert taken
        assert taken.sha256 == made.sha256
    assert not [line for line in team.said.lines if "warning" in line]


def test_equal_inputs_with_other_bytes_are_an_alarm_and_neither_is_used(team: Team) -> None:
    team.add("ci")
    team.built = ELF + b" on Tuesday"
    other = team.add("other")
    assert len(records(team)) == 2
    alarm = [line for line in team.said.lines if "same inputs with another sha256" in line]
    assert len(alarm) == 1
    assert f"somebody made {other.sha256[:12]} with gcc 12, level bwrap" in alarm[0]
    assert team.take() is None
    assert len({blob.name for blob in (team.folder / "shared/cas").iterdir()}) == 2


def test_the_same_wheel_is_added_once_and_a_blob_that_is_gone_again(team: Team) -> None:
    made = team.add("ci")
    assert team.add("other").sha256 == made.sha256
    [record], blob = records(team), team.folder / "shared/cas" / made.sha256
    blob.unlink()
    assert team.take() is None
    assert "not used: it is gone" in team.said.lines[-1]
    team.add("third")
    assert blob.exists()
    assert records(team) == [record]
    assert team.take()


@pytest.mark.parametrize(("level", "why"), [("none", "this run builds at"), ("bwrap", "")])
def test_a_weaker_sandbox_never_answers_for_a_stronger(team: Team, level: str, why: str) -> None:
    team.add(level=level)
    project = team.project("laptop")
    plan = replace(team.plan(project, None), sandbox="bwrap")
    from patchwheel.wheel.shared import take_shared

    taken = take_shared(project, plan)
    assert (taken is None) == bool(why)
    assert why in team.said.lines[-1]


def test_a_wheel_for_another_platform_is_left(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    team.add()
    monkeypatch.setattr("packaging.tags.platform_tags", lambda: ["macosx_14_0_arm64"])
    assert team.take() is None
    assert "it is for manylinux_2_27_x86_64, which this machine is not" in team.said.lines[-1]


def test_nothing_is_added_unasked_nor_what_nobody_committed(team: Team) -> None:
    team.add(write="")
    assert not (team.folder / "shared/ac").exists()
    tree, team.tree = team.tree, replace(team.tree, dev=True)
    team.add("dev")
    team.tree = tree
    assert not (team.folder / "shared/ac").exists()
    assert team.take() is None


def test_a_graft_that_compiles_nothing_is_not_asked_for(team: Team) -> None:
    project = team.project("laptop")
    plan = team.plan(project, None, tree=team.bench.patched({"src/pw_demo/a.py": "one = 2\n"}))
    assert plan.route == "graft"
    assert plan.node_key
    assert plan.shared_as is None
    # By the inventory or by a configured tree, which not everybody has.
    inputs = team.plan(project, "gcc 12").inputs
    assert inputs
    assert replace(plan, inputs=inputs, configured=plan.tree.tree).shared_as is None
    assert replace(plan, inputs=inputs, configured=plan.tree.tree, tools="1").shared_as


def test_what_was_taken_is_left_when_its_maker_is_no_longer_trusted(team: Team) -> None:
    key = team.folder / "key.pem"
    team.trust = {"ci": make_key(key)}
    team.add(write=str(key))
    assert team.take()
    assert "made by ci with gcc 12" in team.said.lines[-1]
    assert team.take()
    team.trust = {"other": "0" * 64}
    assert team.take() is None
    assert "is signed by the key" in team.said.lines[-1]
    assert not list((team.folder / "stores/laptop/shared").iterdir())


LIES = {
    "pw_demo/a.py": "it is not what its base, the patched tree and what was compiled give",
    "pw_demo/both.py": "it is not what its base, the patched tree and what was compiled give",
    "new.pth": "would run by itself",
}


@pytest.mark.parametrize("name", LIES)
def test_a_trusted_key_decides_on_nothing_but_what_is_compiled(team: Team, name: str) -> None:
    """Whoever signs could add to a wheel what its base and the patched tree do not give."""
    from patchwheel.wheel import make

    true = make.label

    def label(draft, plan):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        extra = {e.name: e for e in draft.entries.values()}
        date = next(iter(extra.values())).date
        extra[name] = make_entry(name, b"import evil\n", mode=0o644, date=date)
        return true(replace(draft, entries=extra), plan)

    with pytest.MonkeyPatch.context() as liar:
        liar.setattr(make, "label", label)
        liar.setattr(make, "check_wheel", lambda *_, **__: None)
        wheel = team.add()
    check_record(read_wheel(wheel.path))
    assert team.take() is None
    assert LIES[name] in team.said.lines[-1]


def test_the_records_name_all_that_was_asked_for(team: Team) -> None:
    key = team.folder / "key.pem"
    public = make_key(key)
    team.trust = {"ci": public}
    made = team.add(write=str(key))
    [path] = records(team)
    found = parse_shared(path.read_bytes())
    assert json.loads(path.read_bytes())["signer"] == public
    assert (found.sha256, found.label) == (made.sha256, made.version)
    assert (found.namespace, found.level) == ("graft", "bwrap")
    assert found.toolchain == {"gcc": "gcc 12"}
    assert found.node_key == made.node_key
    remote = team.project("x").remote
    assert isinstance(remote, Remote)
    assert remote.signer(found) == "ci"
    assert remote.signer(replace(found, level="none")) is None
    assert BUILT in read_wheel(made.path).entries
