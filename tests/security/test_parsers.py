"""P16: whatever is read of others takes time that grows with its length, and has an end."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from patchwheel.kit import IndexConfig, InputError, PatchwheelError, Store, redacted
from patchwheel.manifest.load import line_of, load_manifest
from patchwheel.manifest.lock import load_lock
from patchwheel.manifest.surveys import InventoryFile
from patchwheel.patch import foreign
from patchwheel.patch.file import Patch
from patchwheel.patch.foreign import split_mails, without_crlf
from patchwheel.patch.lint import check_patch, warnings
from patchwheel.patch.matching import nearest, occurrences
from patchwheel.patch.simulate import Simulation
from patchwheel.report.weights import known_weights
from patchwheel.series.files import load_series
from patchwheel.series.worktree import WorkTree
from patchwheel.source import compare, download, index
from patchwheel.source.download import MAX_FILE, _download, download_file
from patchwheel.source.index import IndexFile, from_html, from_json, project_files
from patchwheel.wheelfile import metadata
from tests.fixtures import web
from tests.fixtures.contexts import make_context
from tests.fixtures.support import make_wheel, sha256, write

# A time that grows with the square is longer; the slowest reader takes a tenth of it.
SIZE = 50_000
SECONDS = 1.5
HEAD = b"From: A <a@b.c>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nSubject: x\n\n"
STATUS = b"Upstream-Status: Pending\n"
DIFF = b"---\n a | 1 +\n\ndiff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-a\n+b\n"


@contextlib.contextmanager
def bounded(seconds: float = SECONDS, *, waits: bool = False) -> Iterator[None]:
    """Fail when this process computes for longer, or `waits`."""
    number, timer = (
        (signal.SIGALRM, signal.ITIMER_REAL) if waits else (signal.SIGVTALRM, signal.ITIMER_VIRTUAL)
    )

    def fail(*_: object) -> None:
        pytest.fail(f"it takes more than {seconds} s")

    before = signal.signal(number, fail)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)


def read_patch(data: bytes) -> None:
    """Read a patch as all commands do; a refusal is as good as a result."""
    patch = Patch(path=Path("patches/x/1.patch"), data=data)
    with contextlib.suppress(PatchwheelError):
        check_patch(patch)
        list(warnings([patch], []))


def in_one_line(data: bytes) -> bytes:
    return data.replace(b"\n", b" ")


def compared(path: str) -> Callable[[bytes], object]:
    def compare_files(data: bytes) -> None:
        for other in (data + b"z", data.replace(b"$Format:%H$", b"a") + b"!"):
            compare._why_different(path, data, other)

    return compare_files


def convert(data: bytes) -> None:
    """Convert what other tools wrote, as an import does."""
    for mail in split_mails(data):
        for text in without_crlf(mail):
            foreign.to_git(text, "1.patch", {"a"}, None)


MAIL = [b"---\n", b"--- ", b"From: ", b"Subject: x\n", b" ", b"\n", b"\n\n", b"a", b"-", b"=?a?q?"]
MAIL += [b"=?utf-8?q?x?=", b"(", b"<", b'"', b",", b"@", b"\\", b"Fixes: a\n", b" | 1 +\n", b"1"]
MAIL += [b"diff --git a/a b/a\n", b"+++ b/a\n", b"@@ -1 +1 @@\n", b"+x\n", b"-x\n", b"commit "]
MAIL += [b"Bug: ", b"Origin: ", b">From ", b"Description: a\n", b" .\n", b"\t", b"rename from "]
MAIL += [b"GIT binary patch\n", b"a/", b"new file mode 120000\n", b"\\ No\n", b"[PATCH", b"\0"]
HTML = [b"<a ", b"<a href=", b"<!--", b"-->", b"<!", b"<![", b"</a", b"<?", b"&", b"&#x", b"href"]
HTML += [b"=", b'"', b"'", b">", b"<", b"x", b" ", b"/", b"#sha256=", b"]]>", b"<base href=", b"["]
TEXT = [b"$Format:%H$", b"$Format:", b"a", b"$", b"\n", b" ", b"=", b":", b"[a]\n", b"[egg_info]\n"]
TEXT += [b"#", b";", b"add_dist_script(", b"(", b")", b"'", b"a = 1\n", b"[", b"]", b"{", b'"""']
TEXT += [b"generated ", b"/", b".egg-info/", b"a.", b"Version: 1\n", b"://", b"?", b"@"]
READERS: dict[str, tuple[list[bytes], Callable[[bytes], object]]] = {
    "the author": (MAIL, lambda d: read_patch(b"From: " + in_one_line(d) + HEAD[15:] + DIFF)),
    "the subject": (MAIL, lambda d: read_patch(HEAD[:-2] + in_one_line(d) + b"\n\n" + DIFF)),
    "the date": (MAIL, lambda d: read_patch(HEAD.replace(b"Mon", in_one_line(d)) + DIFF)),
    "the headers": (MAIL, lambda d: read_patch(HEAD[:-1] + d + b"\n\n" + STATUS + DIFF)),
    "the message": (MAIL, lambda d: read_patch(HEAD + d + b"\n\n" + STATUS + DIFF)),
    "the trailers": (MAIL, lambda d: read_patch(HEAD + STATUS + d + DIFF)),
    "the statistics": (MAIL, lambda d: read_patch(HEAD + STATUS + b"---\n" + d + DIFF)),
    "the diffs": (MAIL, lambda d: read_patch(HEAD + STATUS + DIFF + d)),
    "a patch of another tool": (
        [*MAIL, b"Index: a\n", b"--- a\n+++ a\n", b"\r\n", b"From a Mon Jan 1 00:00:00 2024\n"],
        convert,
    ),
    "a page in HTML": (HTML, lambda d: from_html(d, "https://index.example/a/")),
    "pyproject.toml": (TEXT, compared("pyproject.toml")),
    "setup.cfg": (TEXT, compared("setup.cfg")),
    "a file that git archive fills in": (TEXT, compared("a.py")),
    "meson.build": (TEXT, compare.DIST_SCRIPT.findall),
    "the name of a file": (TEXT, lambda d: compare.METADATA.fullmatch(d.decode())),
    "METADATA": (TEXT, lambda d: metadata.set_field(d, ["Version"], [])),
    "forks.toml": (TEXT, lambda d: line_of(d.decode(), ("a", "b"))),
    "a message": (TEXT, lambda d: redacted(d.decode())),
}


def test_a_page_of_names_with_many_tags_is_read_in_its_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tags = ".".join(f"{chr(97 + n // 10)}{n % 10}" for n in range(26))
    names = [f"a-{n}-{tags}-{tags}-{tags}.whl" for n in range(1000)]
    good = "a-1-cp312.cp313-abi3.none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    files = [IndexFile(filename=name, url="") for name in [*names, good]]
    with bounded():
        assert [len(tags) for *_, tags in download._parsed(files)] == [8]
    monkeypatch.setattr(download, "MAX_TAGS", 10**6)
    # Each takes a seventh of a second.
    assert [len(tags) for *_, tags in download._parsed(files[:1])] == [26**3]


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
}
READ: dict[str, Callable[[Path], object]] = {
    "patches/demo/series": lambda path: load_series(path.parent),
    "patches/demo/0010-a.patch": lambda path: load_series(path.parent),
    "forks.lock": load_lock,
    "forks.toml": load_manifest,
    "forks.inventory": InventoryFile.read,
    "work/demo/.git/patchwheel-worktree.json": lambda path: WorkTree(path.parents[1]),
}


@pytest.mark.parametrize("place", READ)
@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_of_a_project_is_one_message(tmp_path: Path, place: str, what: str) -> None:
    """A patch may bring a link, and who sends a project any kind."""
    write(tmp_path, {"patches/demo/series": "0010-a.patch\n", place: ""})
    (tmp_path / place).unlink()
    NO_FILES[what](tmp_path / place)
    with bounded(30, waits=True), pytest.raises(PatchwheelError):
        READ[place](tmp_path / place)


@pytest.mark.parametrize("what", NO_FILES)
def test_costs_that_are_no_file_are_none(tmp_path: Path, store: Store, what: str) -> None:
    """An estimate is worth no error."""
    NO_FILES[what](tmp_path / "forks.costs")
    with bounded(30, waits=True):
        assert known_weights(store, tmp_path, "demo") is None


# More digits than Python reads.
DIGITS = "1" * 5000


def test_a_number_that_python_does_not_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not metadata.same_version(DIGITS, "1")
    offers = [
        IndexFile(filename=f"a-{version}.tar.gz", url="", requires_python=bounds)
        for version, bounds in (("1.0", ">=3"), (DIGITS, ""), ("2.0", f">={DIGITS}"))
    ]
    monkeypatch.setattr(download, "project_files", lambda *_: offers)
    config = IndexConfig()
    assert download.newest_release(config, "a", ["3.12"]) == "2.0"
    assert download.latest_version(config, "a") == "2.0"
    with pytest.raises(InputError, match=r"there is no release 1+\b.*\n.*such as 1\.0, 2\.0"):
        download.find_sdist(config, "a", DIGITS)


@pytest.mark.parametrize("line", ["!", "a; python_version > ", f"a; {'(' * 9999}"])
def test_a_requirement_of_a_wheel_that_cannot_be_read_is_one_message(
    tmp_path: Path, line: str
) -> None:
    wheel = make_wheel(tmp_path, "demo", "1.0", {}, requires=[line])
    with pytest.raises(InputError, match=r"demo-1.0-py3.*requires .*, which cannot be read: "):
        download.requirements(wheel)


@pytest.mark.parametrize("what", READERS)
def test_time_grows_with_the_length(what: str) -> None:
    words, read = READERS[what]

    @hypothesis.settings(max_examples=hypothesis.settings().max_examples // 5)
    @hypothesis.given(st.lists(st.sampled_from(words), min_size=1, max_size=3))
    def check(parts: list[bytes]) -> None:
        unit = b"".join(parts)
        with bounded(), contextlib.suppress(InputError):
            read(unit * (SIZE // len(unit)))

    check()
    # The words themselves, whatever the examples were.
    for word in words:
        with bounded(), contextlib.suppress(InputError):
            read(word * (SIZE // len(word)))


def test_the_bound_is_reached_without_care() -> None:
    """A pattern for each of the fields, as one would first write it, does not end."""
    template = b"[^\n]*".join([b"a"] * 30)
    with pytest.raises(pytest.fail.Exception, match="it takes more"), bounded(0.2):
        re.fullmatch(template, b"a" * 500 + b"!")


def test_what_git_archive_fills_in_is_found_in_linear_time() -> None:
    line = b"# $Format:%H$ of $Format:%d$;"
    assert compare._why_different("a.py", line, b"# 0123 of (tag: v1);")
    assert compare._why_different("a.py", line, b"# 0123 of (tag: v1)") is None
    assert compare._why_different("a.py", line, b"# 0123 of;") is None
    assert compare._why_different("a.py", line, line + b"\nmore") is None
    assert compare._why_different("a.py", b"a$Format:%H$a", b"a") is None
    with bounded():
        many = b"$Format:%H$a" * 5000
        assert compare._why_different("a.py", many, b"a" * 100_000 + b"!") is None


def test_a_mail_of_dashes_is_read_at_once() -> None:
    started = time.process_time()
    read_patch(HEAD + STATUS + b"---\n" * 200_000 + DIFF)
    assert time.process_time() - started < 2 * SECONDS


def test_lines_that_repeat_are_found_in_linear_time() -> None:
    lines = [b"a\n"] * 60_000
    block = lines[:30_000]
    with bounded():
        assert len(occurrences(lines, block)) == 30_001
        assert occurrences(lines, [*block, b"b\n"]) == []
        assert nearest(lines, block)


@hypothesis.given(
    st.lists(st.sampled_from([b"a\n", b"b\n"]), max_size=30),
    st.lists(st.sampled_from([b"a\n", b"b\n"]), min_size=1, max_size=5),
)
def test_all_occurrences_are_found(lines: list[bytes], block: list[bytes]) -> None:
    size = len(block)
    slow = [n for n in range(len(lines) - size + 1) if lines[n : n + size] == block]
    assert occurrences(lines, block) == slow


def test_a_patch_of_links_and_one_that_repeats_lines_end() -> None:
    link = "diff --git a/{0} b/{0}\nnew file mode 120000\n--- /dev/null\n+++ b/{0}\n"
    link += "@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n"
    with bounded():
        read_patch(HEAD + STATUS + "".join(link.format(f"l{n}") for n in range(5000)).encode())
    rows = b" a\n" * 20_000
    hunk = b"diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -9,20001 +9,20000 @@\n" + rows + b"-a\n"
    patch = Patch(path=Path("patches/x/1.patch"), data=HEAD + STATUS + hunk)
    with bounded(), pytest.raises(PatchwheelError, match="does not apply"):
        Simulation({}, lambda _: {}, []).apply(patch)


def endless(kind: str) -> Callable[[web.Handler], None]:
    def behave(handler: web.Handler) -> None:
        handler.head(200, Content_Type=kind)
        with contextlib.suppress(OSError):
            while True:
                handler.send(b" " * (1 << 16))

    return behave


@pytest.mark.parametrize("kind", ["text/html", "application/vnd.pypi.simple.v1+json"])
def test_a_page_without_an_end_is_read_to_a_limit(
    server: web.Server, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(index, "MAX_PAGE", 2 << 20)
    server.script["/simple/thing/"] = [endless(kind)]
    config = IndexConfig(urls=(f"{server.url}/simple",))
    with pytest.raises(InputError, match="has more than 2 MiB") as caught:
        project_files(config, "thing")
    assert server.url in str(caught.value)


def test_a_page_that_is_compressed_is_read_to_a_limit(
    server: web.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    def bomb(handler: web.Handler) -> None:
        data = gzip.compress(bytes(50 << 20))
        handler.head(200, Content_Encoding="gzip", Content_Length=len(data))
        with contextlib.suppress(OSError):
            handler.send(data)

    monkeypatch.setattr(index, "MAX_PAGE", 2 << 20)
    server.script["/simple/thing/"] = [bomb]
    with pytest.raises(InputError, match="has more than 2 MiB"):
        project_files(IndexConfig(urls=(f"{server.url}/simple",)), "thing")


def dripping(*, head: bool) -> Callable[[web.Handler], None]:
    """Send a byte now and then, of the head or of the body."""

    def behave(handler: web.Handler) -> None:
        if not head:
            handler.head(200, Content_Type="text/html")
        with contextlib.suppress(OSError):
            for _ in range(100):
                handler.send(b"H")
                time.sleep(0.1)

    return behave


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("what", ["page", "file"])
def test_a_server_that_never_ends_is_left(
    server: web.Server, store: Store, monkeypatch: pytest.MonkeyPatch, what: str, *, head: bool
) -> None:
    monkeypatch.setenv("PATCHWHEEL_LIMIT_DOWNLOAD", "1s")
    name, sha = "thing-1.0.tar.gz", "0" * 64
    server.offer("thing", name, b"data", hashes={})
    server.script["/simple/thing/" if what == "page" else f"/files/{name}"] = [dripping(head=head)]
    context = make_context(store, index=IndexConfig(urls=(f"{server.url}/simple",)))
    start = time.monotonic()
    with pytest.raises(InputError, match="it takes longer than 1 s") as caught:
        download_file(context, "thing", name, sha)
    assert time.monotonic() - start < 4
    assert "PATCHWHEEL_LIMIT_DOWNLOAD" in str(caught.value)
    assert server.url in str(caught.value)


@pytest.mark.parametrize("size", [10**30, MAX_FILE + 1])
def test_a_file_that_is_said_to_be_huge_is_not_received(
    server: web.Server, store: Store, size: int
) -> None:
    name = "thing-1.0.tar.gz"
    server.offer("thing", name, b"data", size=size)
    context = make_context(store, index=IndexConfig(urls=(f"{server.url}/simple",)))
    with pytest.raises(InputError, match=f"has {size:,} bytes, more than"):
        download_file(context, "thing", name, sha256(b"data"))


@pytest.mark.parametrize("place", ["file:///dev/zero", "file:///etc/hostname", "ftp://a/x"])
@pytest.mark.parametrize("how", ["JSON", "an anchor", "a base"])
def test_a_server_names_no_file_of_this_machine(server: web.Server, place: str, how: str) -> None:
    name = "thing-1.0.tar.gz"
    server.offer("thing", name, b"data", url=place)
    folder = place.rpartition("/")[0]
    if how != "JSON":
        base = f"<base href='{folder}/'>" if how == "a base" else ""
        link = name if base else f"{folder}/{name}"
        server.put("/simple/thing/", f"{base}<a href='{link}'>x</a>")
    assert project_files(IndexConfig(urls=(f"{server.url}/simple",)), "thing") == []


def test_a_device_is_no_file_of_an_index(tmp_path: Path, store: Store) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        file = IndexFile(filename="thing-1.0.tar.gz", url=place.as_uri())
        with pytest.raises(InputError, match="it is no regular file"):
            _download(make_context(store), file, tmp_path, "0" * 64)


@pytest.mark.parametrize("name", ["../../x-1.tar.gz", "a\0-1.tar.gz", "/x-1.tar.gz", ".-1.whl"])
def test_a_file_that_leads_elsewhere_is_not_listed(name: str) -> None:
    import json
    from urllib.parse import quote

    page = json.dumps({"files": [{"filename": name, "url": "x"}]})
    assert from_json(page.encode(), "https://a/b/") == []
    anchor = f'<a href="x/{quote(name, safe="")}">x</a>'
    assert all("/" not in f.filename for f in from_html(anchor.encode(), "https://a/b/"))
    assert from_html(b"<a href='x-1.tar.gz'>x</a>", "https://a/b/")[0].filename == "x-1.tar.gz"
