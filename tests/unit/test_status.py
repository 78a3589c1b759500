from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from patchkit import ONE, Files, Kit, mail, numbered

from patchwheel.errors import InputError
from patchwheel.status import ForkStatus, fork_status

if TYPE_CHECKING:
    from pathlib import Path

LINES = numbered(1, 40)


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


def change(kit: Kit, **lines: str) -> bytes:
    return kit.diff({"a": LINES}, {"a": numbered(1, 40, **lines)})


def test_a_fork_whose_patches_apply(kit: Kit) -> None:
    base: Files = {"a": b"new\n\n" + LINES}
    trailers = [
        "Requires: demo/0010-p",
        "Upstream-Status: Submitted [https://example.org/1]",
    ]
    first = mail(kit.diff({"b": b""}, {"b": b"", "c": b"1\n"}))
    second = mail(change(kit, l9="x"), subject="ENH: x", trailers=trailers)
    source = kit.source({**base, "b": b""})
    status = fork_status(source, kit.series(first, second), store=kit.store)
    one, two = status.patches
    assert (one.state, one.offset, one.upstream, one.paths) == (
        "clean",
        0,
        "Pending",
        ("c",),
    )
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
    assert [p.state for p in status.patches] == [
        "fails",
        "landed",
        "malformed",
        "clean",
    ]
    assert "hunk 1 does not match a at line 6" in str(status.patches[0].problem)
    assert str(status.patches[0].where).endswith("0010-p.patch:14")
    assert "already applied" in str(status.patches[1].problem)
    assert "Upstream-Status" in str(status.patches[2].problem)
    assert not status.ok
    assert status.tree is None


def test_pin_wheel_and_upstream(kit: Kit) -> None:
    source, series = kit.source({"a": LINES}), kit.series()
    pinned = replace(source, fork=replace(source.fork, commit="1" * 40, tag="v1.0"))

    def status(newest: str | None, commit: str | None = None) -> ForkStatus:
        return fork_status(
            pinned,
            series,
            store=kit.store,
            commit=commit,
            wheel="demo-1.0.whl",
            newest=lambda: newest,
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
    def offline() -> str:
        raise InputError("no index")

    status = fork_status(
        kit.source({"a": LINES}), kit.series(), store=kit.store, newest=offline
    )
    assert status.newest is None
    assert not status.outdated


def test_it_can_be_printed_as_json(kit: Kit) -> None:
    status = fork_status(
        kit.source({"a": LINES}), kit.series(mail(change(kit, l9="x"))), store=kit.store
    )
    data = json.loads(json.dumps(status.to_json()))
    assert data["ok"] is True
    assert data["patches"][0]["state"] == "clean"
