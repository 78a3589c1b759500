"""P21: what a shared store answers is used only if a trusted key signed it, and it is sound."""

from __future__ import annotations

import errno
import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patchwheel.kit import InputError, MachineError
from patchwheel.remote import Remote, parse_shared, sign
from tests.fixtures import support, web
from tests.fixtures.shared import ELF, Team, make_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchwheel.kit import Interpreter
    from patchwheel.remote import SharedWheel
    from patchwheel.series.apply import PatchedTree
    from tests.fixtures.grafts import Bench


@pytest.fixture
def team(
    team_bench: tuple[Bench, PatchedTree],
    tmp_path: Path,
    interpreter: Interpreter,
    monkeypatch: pytest.MonkeyPatch,
    server: web.Server,
) -> Team:
    """A team whose CI has added a signed wheel to a web server."""
    made = Team(*team_bench, tmp_path, server.url, interpreter, monkeypatch)
    made.trust = {"ci": make_key(tmp_path / "key.pem")}
    made.add(write=str(tmp_path / "key.pem"))
    return made


def names(server: web.Server) -> tuple[str, str]:
    """Return the paths of the only record and the only file."""
    [record] = [path for path in server.content if path.startswith("/ac/")]
    [blob] = [path for path in server.content if path.startswith("/cas/")]
    return record, blob


def answer(server: web.Server) -> SharedWheel:
    return parse_shared(server.content[names(server)[0]])


def drip(handler: web.Handler) -> None:
    """Send a byte now and then, for ever."""
    handler.head(200)
    while True:
        handler.send(b"x")
        time.sleep(0.1)


def redirect(place: str) -> Callable[[web.Handler], None]:
    return lambda handler: handler.head(302, Location=place, Content_Length=0)


def endless(handler: web.Handler) -> None:
    handler.head(200)
    while True:
        handler.send(b"x" * (1 << 16))


AWAY: dict[str, tuple[Callable[[web.Handler], None], str]] = {
    "slow": (drip, "no whole answer within 0.6 s"),
    "error": (web.status(500), "the server answered 500"),
    "forbidden": (web.status(403), "the server answered 403"),
    "to a file": (redirect("file:///etc/passwd"), "the server answered 302"),
    "reset": (web.reset(10), "Connection"),
}


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("fault", AWAY)
def test_a_store_that_does_not_answer_is_left_after_one_try(
    team: Team, server: web.Server, fault: str, part: int
) -> None:
    behave, said = AWAY[fault]
    team.limit = 0.6
    path = names(server)[part]
    server.script[path] = [behave] * 5
    before = len(server.seen)
    project = team.project("laptop")
    from patchwheel.wheel.shared import take_shared

    start = time.monotonic()
    for _ in range(3):
        assert take_shared(project, team.plan(project, None)) is None
    assert time.monotonic() - start < 5
    assert len(server.script[path]) == 4
    assert len(server.seen) - before <= part + 2 + part
    told = [line for line in team.said.lines if "not used in this run" in line]
    assert len(told) == 1
    assert said in told[0]
    assert server.url in told[0]


def test_a_server_that_is_not_there(team: Team) -> None:
    team.url = "http://127.0.0.1:9/store"
    assert team.take() is None
    assert "http://127.0.0.1:9/store: not used in this run" in team.said.lines[-1]
    team.url = (team.folder / "nowhere").as_uri()
    assert team.take("other") is None
    assert "No such file or directory" in team.said.lines[-1]


def test_a_redirection_to_another_host_is_not_followed(team: Team, server: web.Server) -> None:
    with web.serving() as other:
        other.content, other.types = dict(server.content), dict(server.types)
        server.script[names(server)[1]] = [redirect(other.url + names(server)[1])]
        assert team.take() is None
        assert other.seen == []


OTHERS: dict[str, Callable[[web.Handler], None]] = {
    "cut": web.cut(10),
    "other bytes": web.instead(b"PK other"),
    "nothing": web.instead(b""),
    "cut without saying so": web.unannounced(100),
    "without an end": endless,
}


@pytest.mark.parametrize("fault", OTHERS)
def test_a_file_that_is_not_the_signed_one_is_refused(
    team: Team, server: web.Server, fault: str
) -> None:
    server.script[names(server)[1]] = [OTHERS[fault]]
    assert team.take() is None
    assert "its bytes are not those that were signed" in team.said.lines[-1]
    assert not list((team.folder / "stores/laptop").glob("shared/*"))
    # The next time it is taken.
    assert team.take()


@pytest.mark.parametrize("fault", ["without an end", "other bytes", "cut"])
def test_a_record_that_is_none(team: Team, server: web.Server, fault: str) -> None:
    server.script[names(server)[0]] = [OTHERS[fault]]
    assert team.take() is None
    assert "a record cannot be read; it is not used" in team.said.lines[-1]


def signed(team: Team, record: SharedWheel, key: str = "key.pem") -> bytes:
    record = record.unsigned
    signer, text = sign(record.to_bytes(), team.folder / key)
    return replace(record, signer=signer, signature=text).to_bytes()


def test_who_is_not_trusted_is_named_and_not_used(team: Team, server: web.Server) -> None:
    path, record = names(server)[0], answer(server)
    stranger = make_key(team.folder / "stranger.pem")
    for data, said in (
        (signed(team, record, "stranger.pem"), f"signed by the key {stranger[:12]}, which is not"),
        (record.unsigned.to_bytes(), "signed by nobody, who is not trusted"),
        # With the name of the trusted key, and the signature of the other.
        (replace(parse_shared(signed(team, record, "stranger.pem")), signer=record.signer), ""),
    ):
        server.content[path] = data if isinstance(data, bytes) else data.to_bytes()
        assert team.take() is None
        assert said in team.said.lines[-1]
        assert "not trusted" in team.said.lines[-1]
    # Beside one that is trusted, a stranger's is passed over, and can say nothing of it.
    other = replace(record, sha256="0" * 64)
    server.content[path] = signed(team, other, "stranger.pem")
    team.add("ci again", write=str(team.folder / "key.pem"))
    assert team.take()
    # Revoked.
    team.trust = {"new": stranger}
    assert team.take("late") is None


def test_a_record_of_another_key_or_namespace_is_not_used(team: Team, server: web.Server) -> None:
    path, record = names(server)[0], answer(server)
    for other in (replace(record, key="0" * 64), replace(record, namespace="compile")):
        server.content[path] = signed(team, other)
        assert team.take() is None
        assert "a record lies in the place of another; it is not used" in team.said.lines[-1]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"level": "none"}, "built at level none"),
        ({"label": "1.0+arrayapi.h00000000.graft"}, "its record is not what was signed"),
        ({"toolchain": {"gcc": "gcc 15"}}, "its record is not what was signed"),
        ({"filename": "pw_demo-1.0-py3-none-any.whl"}, ""),
        ({"filename": "no wheel.whl"}, "not written as patchwheel writes it"),
        ({"filename": "../x.whl"}, "not written as patchwheel writes it"),
        ({"size": 5 << 30}, "not written as patchwheel writes it"),
        ({"sha256": "0" * 64}, "it is gone"),
    ],
)
def test_what_a_signed_record_says_has_to_be_so(
    team: Team, server: web.Server, changed: dict[str, object], said: str
) -> None:
    record = replace(answer(server), **changed)  # type: ignore[arg-type]
    server.content[names(server)[0]] = signed(team, record)
    assert team.take() is None
    assert said in team.said.lines[-1]


def test_a_hundred_records_and_files_that_were_tampered_with(
    team: Team, server: web.Server
) -> None:
    chance = random.Random(21)
    record, (path, blob) = answer(server), names(server)
    remote = team.project("laptop").remote
    assert isinstance(remote, Remote)
    assert remote.find(record.namespace, record.key) == [record]
    refused = 0
    for number in range(100):
        place = (path, blob)[number % 2]
        true = server.content[place]
        bad = bytearray(true)
        at = chance.randrange(len(bad))
        if number % 10 < 6:
            bad[at] ^= 1 << chance.randrange(8)
        elif number % 10 < 8:
            del bad[at:]
        else:
            bad[at:at] = chance.randbytes(3)
        server.content[place] = bytes(bad)
        if place == path:
            refused += remote.find(record.namespace, record.key) == []
        else:
            with pytest.raises(InputError, match="not those that were signed"):
                remote.fetch(record)
            refused += 1
        server.content[place] = true
    assert refused == 100
    assert remote.find(record.namespace, record.key) == [record]


def test_a_wrong_clock_changes_nothing(
    team: Team, server: web.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(server.content)
    for year in (0, 4e9):
        monkeypatch.setattr(time, "time", lambda year=year: year)
        team.add(f"ci {year}", write=str(team.folder / "key.pem"))
        assert server.content == before
        assert team.take(f"laptop {year}")


def test_of_two_that_add_at_once_both_stay(team: Team, server: web.Server) -> None:
    record = answer(server).unsigned
    server.content.clear()
    remotes = [team.project(n, write=str(team.folder / "key.pem")).remote for n in "ab"]
    made = [ELF, ELF + b" again"]
    start = threading.Barrier(2)

    def add(number: int) -> None:
        remote = remotes[number]
        assert isinstance(remote, Remote)
        data = made[number]
        mine = replace(record, sha256=support.sha256(data), size=len(data))
        start.wait()
        remote.add(mine, data)

    threads = [threading.Thread(target=add, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [parse_shared(d).sha256 for p, d in server.content.items() if p.startswith("/ac/")]
    assert sorted(found) == sorted(support.sha256(data) for data in made)
    assert [line for line in team.said.lines if "none is used" in line]
    assert team.take() is None


def test_a_store_that_takes_nothing_is_still_read(team: Team, server: web.Server) -> None:
    record, blob = names(server)
    server.writable = False
    del server.content[record]
    key = str(team.folder / "key.pem")
    assert team.add("other", write=key).path.exists()
    assert "not written to in this run: the server answered 403" in team.said.lines[-1]
    assert record not in server.content
    assert blob in server.content


def test_a_full_disk_is_one_message(team: Team) -> None:
    shared = team.folder / "shared"
    shared.mkdir()
    team.url, team.trust = shared.as_uri(), {}

    def full(path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.MonkeyPatch.context() as disk:
        disk.setattr("patchwheel.remote.transport.write_atomically", full)
        assert team.add("full").path.exists()
    assert "not written to in this run: [Errno 28] No space left" in team.said.lines[-1]
    team.add("ci")
    store = team.folder / "stores" / "laptop"
    with pytest.MonkeyPatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.raises(MachineError, match="No space left"):
            team.take()
    assert not list(store.glob("shared/*"))
    assert not list((store / "tmp").iterdir())
    assert team.take()
