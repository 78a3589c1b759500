from __future__ import annotations

import functools
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from patchwheel.kit.errors import InputError, MachineError
from patchwheel.kit.store import Store
from patchwheel.kit.uv import IndexConfig
from patchwheel.source import index
from patchwheel.source.download import download_file
from tests.fixtures import web
from tests.fixtures.contexts import make_context
from tests.fixtures.support import Recorder, lacking, sha256
from tests.fixtures.web import chunked_cut, cut, instead, reset, serving, status, unannounced

if TYPE_CHECKING:
    Get = Callable[..., Path]

NAME = "thing-1.0.tar.gz"
FILE = f"/files/{NAME}"
DATA = random.Random(1).randbytes(3_000_000)
FLIPPED = DATA[:1000] + bytes([DATA[1000] ^ 1]) + DATA[1001:]
OTHER = DATA[::-1]
HASH = sha256(DATA)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "BACKOFF", 0)
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[web.Server]:
    with serving() as running:
        running.offer("thing", NAME, DATA)
        yield running


@pytest.fixture
def get_from(store: Store, report: Recorder) -> Get:
    def call(*urls: str, sha: str = HASH, name: str = NAME, **options: Any) -> Path:
        index = options.pop("index", IndexConfig(urls=urls))
        context = make_context(store, index=index, progress=report, **options)
        return download_file(context, "thing", name, sha)

    return call


@pytest.fixture
def get(get_from: Get, server: web.Server) -> Get:
    return functools.partial(get_from, f"{server.url}/simple")


def leftovers(store: Store) -> list[Path]:
    files = store.root / "files"
    return [*(store.root / "tmp").iterdir(), *(files.iterdir() if files.exists() else ())]


def test_a_file_is_downloaded_once_and_progress_ends(
    get: Get, server: web.Server, report: Recorder
) -> None:
    path = get()
    assert path.name == NAME
    assert path.read_bytes() == DATA
    assert report.steps[-1] == (NAME, len(DATA), len(DATA))
    assert get() == path
    assert len(server.asked(FILE)) == 1


FAILURES = {
    "cut": cut(1_000_000),
    "reset": reset(1_000_000),
    "chunked": chunked_cut(1_000_000),
    "no length": unannounced(1_000_000),
    "flipped bit": instead(FLIPPED),
    **{str(code): status(code) for code in (500, 503, 429)},
}


@pytest.mark.parametrize("failure", [name for name in FAILURES if name != "500"])
def test_a_passing_failure_is_overcome(get: Get, server: web.Server, failure: str) -> None:
    server.script[FILE] = [FAILURES[failure]]
    assert get().read_bytes() == DATA
    assert len(server.asked(FILE)) == 2


@pytest.mark.parametrize("failure", [n for n in FAILURES if n not in {"503", "429"}])
def test_a_lasting_failure_ends_and_leaves_nothing(
    get: Get, server: web.Server, store: Store, failure: str
) -> None:
    server.script[FILE] = [FAILURES[failure]] * 9
    with pytest.raises(InputError, match=NAME) as caught:
        get()
    assert caught.value.exit_code == 4
    assert caught.value.hint
    assert len(server.asked(FILE)) <= 5
    assert leftovers(store) == []


def test_a_cut_download_is_continued_where_it_ended(get: Get, server: web.Server) -> None:
    server.script[FILE] = [cut(1_000_000)]
    get()
    start = server.asked(FILE)[1]["Range"]
    assert 800_000 < int(start.removeprefix("bytes=").removesuffix("-")) <= 1_000_000


def test_a_server_without_ranges_starts_over(get: Get, server: web.Server) -> None:
    server.script[FILE] = [cut(1_000_000), instead(DATA)]
    assert get().read_bytes() == DATA


def test_a_refused_range_starts_over(get: Get, server: web.Server) -> None:
    server.script[FILE] = [cut(1_000_000), status(416)]
    assert get().read_bytes() == DATA
    assert "Range" not in server.asked(FILE)[2]


def test_a_continuation_of_another_file_is_found_and_started_over(
    get: Get, server: web.Server
) -> None:
    server.content[FILE] = OTHER
    server.script[FILE] = [cut(1_000_000), lambda h: _become(server, h)]
    assert get().read_bytes() == DATA


def _become(server: web.Server, handler: web.Handler) -> None:
    server.content[FILE] = DATA
    web.whole(handler)


def test_a_wrong_file_of_the_right_size_names_both_hashes(
    get: Get, server: web.Server, store: Store
) -> None:
    server.content[FILE] = OTHER
    with pytest.raises(InputError) as caught:
        get()
    assert sha256(OTHER) in str(caught.value)
    assert HASH in str(caught.value)
    assert len(server.asked(FILE)) == 2
    assert leftovers(store) == []


def test_a_body_without_end_is_cut_off(get: Get, server: web.Server) -> None:
    server.offer("thing", NAME, DATA, size=len(DATA))
    server.script[FILE] = [unannounced()] * 9
    server.content[FILE] = DATA + bytes(20_000_000)
    with pytest.raises(InputError, match="sha256"):
        get()


def test_another_hash_on_the_index_is_refused_before_downloading(
    get: Get, server: web.Server, store: Store
) -> None:
    with pytest.raises(InputError, match="sha256 mismatch: the index lists") as caught:
        get(sha="0" * 64)
    assert HASH in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert server.asked(FILE) == []
    assert leftovers(store) == []


def test_a_file_that_is_gone_is_not_asked_for_again(get: Get, server: web.Server) -> None:
    server.script[FILE] = [status(403)] * 9
    with pytest.raises(InputError, match="403"):
        get()
    assert len(server.asked(FILE)) == 1


def test_offline_uses_the_store_only(get: Get, server: web.Server) -> None:
    with pytest.raises(InputError, match="offline"):
        get(offline=True)
    assert server.seen == []
    path = get()
    assert get(offline=True) == path


def test_a_damaged_entry_is_downloaded_again(get: Get, report: Recorder) -> None:
    path = get()
    path.write_bytes(FLIPPED)
    assert get().read_bytes() == DATA
    assert any("has changed since it was stored" in line for line in report.lines)


def test_equal_bytes_of_another_name_get_that_name(get: Get, server: web.Server) -> None:
    get()
    server.offer("thing", "thing-1.0-py3-none-any.whl", DATA)
    path = get(name="thing-1.0-py3-none-any.whl")
    assert path.name == "thing-1.0-py3-none-any.whl"
    assert path.read_bytes() == DATA


def test_nobody_listening_is_one_clear_error(get_from: Get) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match="Connection refused") as caught:
        get_from(f"http://user:secret@127.0.0.1:{port}/simple")
    assert "secret" not in str(caught.value)
    assert f"127.0.0.1:{port}" in str(caught.value)


def test_a_file_from_a_folder_is_checked_too(tmp_path: Path, get_from: Get) -> None:
    folder = tmp_path / "loose files"
    folder.mkdir()
    (folder / NAME).write_bytes(DATA)
    places = IndexConfig(find_links=(str(folder),))
    assert get_from(index=places).read_bytes() == DATA
    with pytest.raises(InputError, match="sha256 mismatch: the file has") as caught:
        get_from(index=places, sha="1" * 64)
    assert HASH in str(caught.value)


def test_a_listed_file_that_is_not_there_is_named(tmp_path: Path, get_from: Get) -> None:
    page = tmp_path / "index" / "thing" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="{NAME}">{NAME}</a>')
    with pytest.raises(InputError, match="No such file") as caught:
        get_from((tmp_path / "index").as_uri())
    assert caught.value.where == page.parent / NAME


def test_a_full_disk_is_the_machines_fault(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_http: object, _file: object, path: Path, _progress: object) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr("patchwheel.source.download._receive", full)
    with pytest.raises(MachineError, match="No space left"):
        get()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("openssl"):
        lacking("openssl makes the certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-subj", "/CN=localhost", "-days", "2"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".pem.crt").read_text())
    return path


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", None])
def test_the_users_certificate_authority_is_trusted(
    get_from: Get,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if variable:
        monkeypatch.setenv(variable, f"{certificate}.crt")
    with serving(context) as server:
        server.offer("thing", NAME, DATA)
        if variable:
            assert get_from(f"{server.url}/simple").read_bytes() == DATA
        else:
            with pytest.raises(InputError, match="certificate is not trusted"):
                get_from(f"{server.url}/simple")
