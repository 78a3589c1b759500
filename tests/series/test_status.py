from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from patchwheel.cli import tables
from patchwheel.kit.errors import InputError
from patchwheel.series.status import ForkStatus, fork_status, newest_version
from tests.fixtures.contexts import make_context
from tests.fixtures.patches import ONE, Files, Kit, mail, numbered

if TYPE_CHECKING:
    from typing import TypeAlias

    # All files, or only a.
    State: TypeAlias = Files | bytes | tuple[str, bytes]

LINES = numbered(1, 40)


def change(kit: Kit, **lines: str) -> bytes:
    return kit.diff({"a": LINES}, {"a": numbered(1, 40, **lines)})


def test_a_fork_whose_patches_apply(kit: Kit) -> None:
    base: Files = {"a": b"new\n\n" + LINES}
    trailers = ["Requires: demo/0010-p", "Upstream-Status: Submitted [https://example.org/1]"]
    first = mail(kit.diff({"b": b""}, {"b": b"", "c": b"1\n"}))
    second = mail(change(kit, l9="x"), subject="ENH: x", trailers=trailers)
    source = kit.source({**base, "b": b""})
    status = fork_status(source, kit.series(first, second), store=kit.store)
    one, two = status.patches
    assert (one.state, one.offset, one.upstream, one.paths) == ("clean", 0, "Pending", ("c",))
    assert (two.state, two.offset, two.subject) == ("offset", 2, "ENH: x")
    assert two.requires == ("demo/0010-p",)
    assert two.upstream == "Submitted [https://example.org/1]"
    assert status.ok
    assert status.tree
    assert "c" in kit.content(status.tree)
    assert (status.fork, status.version, status.commit, status.commit_verified) == (
        "demo",
        "1.0",
        None,
        False,
    )
    assert (status.newest, status.outdated, status.wheel) == (None, False, None)


def test_every_patch_is_tried_also_after_one_that_fails(kit: Kit) -> None:
    source = kit.source({"a": numbered(1, 40, l9="other", l35="done")})
    status = fork_status(
        source,
        kit.series(
            mail(change(kit, l9="x")),
            mail(change(kit, l35="done")),
            mail(ONE, trailers=()),
            mail(change(kit, l20="z")),
        ),
        store=kit.store,
    )
    assert [p.state for p in status.patches] == ["fails", "landed", "malformed", "clean"]
    assert "hunk 1 does not match a at line 6" in str(status.patches[0].problem)
    assert str(status.patches[0].where).endswith("0010-p.patch:14")
    assert "already applied" in str(status.patches[1].problem)
    assert "Upstream-Status" in str(status.patches[2].problem)
    assert not status.ok
    assert status.tree is None


CUT = LINES.replace(b"line 20\nline 21\n", b"")
GONE = LINES.replace(b"line 20\n", b"")
TWO = numbered(50, 60)
# The state that the patch was made for, its result, what is there now, and whether it landed.
LANDED: dict[str, tuple[State, State, State, str]] = {
    "removed": (LINES, CUT, CUT, "landed"),
    "the context is elsewhere, the lines are there": (
        LINES,
        CUT,
        numbered(1, 40, l18="x") + CUT,
        "fails",
    ),
    "one line, and the context is elsewhere": (
        LINES,
        GONE,
        numbered(1, 40, l18="x") + GONE,
        "fails",
    ),
    "the lines moved": (LINES, CUT, CUT + b"line 20\nline 21\n", "fails"),
    "what it adds is elsewhere, what it removes is there": (
        LINES,
        numbered(1, 40, l20="x"),
        numbered(1, 40, l18="y") + numbered(1, 40, l20="x"),
        "fails",
    ),
    "a line of which others stay": (
        numbered(1, 40, l20="return None"),
        GONE,
        GONE + b"return None\n",
        "landed",
    ),
    "a bracket": (numbered(1, 40, l20="}"), GONE, GONE + b"}\nx\n}\n", "landed"),
    "a bracket that is there": (
        numbered(1, 40, l20="}"),
        GONE,
        numbered(1, 40, l18="x", l20="}") + GONE,
        "fails",
    ),
    "a line that the patch moves": (
        LINES,
        GONE.replace(b"line 23\n", b"line 23\nline 20\n"),
        GONE.replace(b"line 23\n", b"line 23\nline 20\n"),
        "landed",
    ),
    "all lines": (LINES, b"", b"", "landed"),
    "all lines, and others are there": (LINES, b"", TWO, "fails"),
    "the file": ({"a": LINES, "b": TWO}, {"b": TWO}, {"b": TWO}, "landed"),
    "the file, which changed": ({"a": LINES, "b": TWO}, {"b": TWO}, {"a": GONE, "b": TWO}, "fails"),
    "a rename": (LINES, {"b": LINES}, {"b": LINES}, "landed"),
    "a rename that left the old file": (LINES, {"b": LINES}, {"a": LINES, "b": LINES}, "fails"),
    "a rename with the lines": (LINES, {"b": CUT}, {"b": numbered(1, 40, l18="x") + CUT}, "fails"),
    "a mode": (LINES, ("100755", CUT), ("100755", CUT), "landed"),
    "lines without the mode": (LINES, ("100755", CUT), CUT, "fails"),
    "another file has the lines": (
        {"a": LINES, "b": TWO},
        {"a": CUT, "b": TWO},
        {"a": CUT, "b": LINES},
        "landed",
    ),
}


@pytest.mark.parametrize("case", LANDED)
def test_a_patch_landed_if_what_it_adds_is_there_and_what_it_removes_is_gone(
    kit: Kit, case: str
) -> None:
    *states, state = LANDED[case]
    old, new, now = (x if isinstance(x, dict) else {"a": x} for x in states)
    series = kit.series(mail(kit.diff(old, new)))
    [status] = fork_status(kit.source(now), series, store=kit.store).patches
    assert status.state == state


def test_pin_wheel_and_upstream(kit: Kit) -> None:
    source, series = kit.source({"a": LINES}), kit.series()
    pinned = replace(source, fork=replace(source.fork, commit="1" * 40, tag="v1.0"))

    def status(newest: str | None, commit: str | None = None) -> ForkStatus:
        return fork_status(
            pinned, series, store=kit.store, commit=commit, wheel="demo-1.0.whl", newest=newest
        )

    assert (status("1.10").newest, status("1.10").outdated) == ("1.10", True)
    assert not status("1.0").outdated
    assert not status("1.0").commit_verified
    assert status("1.0", "1" * 40).commit_verified
    assert status(None).wheel == "demo-1.0.whl"
    assert status(None).tree == source.tree
    cloned = fork_status(replace(pinned, commit="2" * 40), series, store=kit.store)
    assert (cloned.commit, cloned.commit_verified) == ("2" * 40, True)


def test_without_an_index_the_newest_version_is_unknown(kit: Kit) -> None:
    def unreachable(*_: object) -> str:
        raise InputError("no index")

    fork = kit.source({"a": LINES}).fork
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("patchwheel.series.status.latest_version", unreachable)
        assert newest_version(make_context(kit.store, offline=False), fork) is None


def test_it_can_be_printed_as_json(kit: Kit) -> None:
    status = fork_status(
        kit.source({"a": LINES}), kit.series(mail(change(kit, l9="x"))), store=kit.store
    )
    data = json.loads(json.dumps(asdict(status)))
    assert data["ok"] is True
    assert data["patches"][0]["state"] == "clean"


def test_a_patch_says_when_it_may_go(kit: Kit, capsys: pytest.CaptureFixture[str]) -> None:
    source = kit.source({"a.txt": b"one\ntwo\nthree\n"})
    data = mail(ONE, trailers=["Drop-When: 1.19 is the pin", "Upstream-Status: Pending"])
    found = fork_status(source, kit.series(data), store=kit.store)
    assert found.patches[0].drop_when == "1.19 is the pin"
    tables.status([found])
    assert "Pending, drop when 1.19 is the pin" in capsys.readouterr().out
