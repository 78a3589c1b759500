"""A bucket of a real S3 server: moto's, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import requests

from patchwheel.kit import MachineError, uv_bin
from patchwheel.remote import transport
from tests.fixtures import support
from tests.fixtures.shared import Team, make_bench, make_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patchwheel.kit import Interpreter

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
}


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of a folder in a new bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["tool", "run", "--from", "moto[server]", "moto_server", "-H", "127.0.0.1"]
    log = (tmp_path / "moto.log").open("wb")
    with log, subprocess.Popen([uv_bin(), *words, "-p", str(port)], stdout=log, stderr=log) as moto:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    requests.put(f"{url}/team", timeout=5)
                    break
                except requests.ConnectionError:
                    assert moto.poll() is None, (tmp_path / "moto.log").read_text()
                    time.sleep(0.5)
            for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
                monkeypatch.setenv(name, value)
            yield "s3://team/wheels"
        finally:
            # uv hands the signal on to the server.
            moto.terminate()


@pytest.mark.heavy
@pytest.mark.network
def test_a_bucket_is_a_store(
    bucket: str, tmp_path: Path, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Team(*make_bench(tmp_path / "bench"), tmp_path, bucket, interpreter, monkeypatch)
    team.limit = 60
    key = str(tmp_path / "key.pem")
    team.trust = {"ci": make_key(tmp_path / "key.pem")}
    assert team.take() is None
    assert team.said.lines == []
    made = team.add(write=key)
    taken = team.take()
    assert taken
    assert taken.sha256 == made.sha256
    store = transport.open_transport(bucket)
    blob = f"cas/{made.sha256}"
    # What is there stays, and one that is too large is not read.
    store.put(blob, b"other")
    data = store.get(blob, 1 << 20)
    assert data
    assert support.sha256(data) == made.sha256
    assert len(store.get(blob, 10) or b"") == 11
    # Two that differ are both kept, and neither is used.
    team.built += b" again"
    team.add("other", write=key)
    assert team.take("late") is None
    assert [line for line in team.said.lines if "none is used" in line]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert team.take("lost") is None
    assert "not used in this run" in team.said.lines[-1]


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(MachineError, match="buckets need obstore") as caught:
        transport.open_transport("s3://team")
    assert caught.value.hint == "install patchwheel[remote]"
    assert os.environ.get("AWS_REGION") is None
