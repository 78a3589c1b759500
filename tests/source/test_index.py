import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchwheel.kit import process, uv
from patchwheel.kit.errors import InputError, redacted
from patchwheel.kit.uv import IndexConfig, index_arguments, load_index_config
from patchwheel.source import index
from patchwheel.source.download import find_sdist, latest_version
from patchwheel.source.index import JSON_API, find_file, project_files
from tests.fixtures import web
from tests.fixtures.support import make_index, make_sdist, make_wheel, sha256, write
from tests.fixtures.web import instead, serving, status

HTML = """<!DOCTYPE html><html><head><base href="/elsewhere/"></head><body>
<a href="../../files/the_thing-1.0.tar.gz#sha256={sha}"
 data-requires-python="&gt;=3.8">the_thing-1.0.tar.gz</a>
<a href="https://files.example.org/the_thing-1.1%2Bx-py3-none-any.whl"
 data-yanked="broken">whatever</a>
<a href="the_thing-1.2.tar.gz" data-yanked>x</a><a name="top">no link</a>
<a href="../">up</a></body></html>"""


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "RETRIES", 2)
    monkeypatch.setattr(index, "BACKOFF", 0)
    monkeypatch.setattr(uv, "PIP_SYSTEM", ())
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server() -> Iterator[web.Server]:
    with serving() as running:
        yield running


def config(*urls: str, find_links: tuple[str, ...] = ()) -> IndexConfig:
    return IndexConfig(urls=urls, find_links=find_links)


def test_json_pages_are_read(server: web.Server) -> None:
    server.offer("the-thing", "the_thing-1.0.tar.gz", b"data", size=4, yanked="why")
    (file,) = project_files(config(f"{server.url}/simple/"), "The.Thing")
    assert file.filename == "the_thing-1.0.tar.gz"
    assert file.url == f"{server.url}/files/the_thing-1.0.tar.gz"
    assert (file.sha256, file.size, file.yanked) == (sha256(b"data"), 4, True)
    assert "simple.v1+json" in server.seen[0][1]["Accept"]


def test_html_pages_are_read(server: web.Server) -> None:
    server.put("/simple/the-thing/", HTML.format(sha="a" * 64))
    files = project_files(config(f"{server.url}/simple"), "the_thing")
    assert [(f.filename, f.url, f.sha256, f.yanked) for f in files] == [
        ("the_thing-1.0.tar.gz", f"{server.url}/files/the_thing-1.0.tar.gz", "a" * 64, False),
        (
            "the_thing-1.1+x-py3-none-any.whl",
            "https://files.example.org/the_thing-1.1%2Bx-py3-none-any.whl",
            None,
            True,
        ),
        ("the_thing-1.2.tar.gz", f"{server.url}/elsewhere/the_thing-1.2.tar.gz", None, True),
    ]


@pytest.mark.parametrize(
    "page", ["no json", "[]", '{"files": 3}', '{"files": [{"url": "x"}]}', '{"files": ["x"]}']
)
def test_a_page_that_breaks_the_protocol_is_an_error(server: web.Server, page: str) -> None:
    server.put("/simple/x/", page, "application/vnd.pypi.simple.v1+json")
    with pytest.raises(InputError, match="simple API"):
        project_files(config(f"{server.url}/simple"), "x")


def test_an_index_without_the_project_is_passed_over(server: web.Server, tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path, "thing", "1.0", {})
    local = make_index(tmp_path / "index", sdist)
    found = find_file(config(f"{server.url}/simple", local), "thing", sdist.name)
    assert found.url == sdist.as_uri()
    assert found.sha256 == sha256(sdist)


def test_the_first_index_wins_and_the_rest_is_not_asked(server: web.Server) -> None:
    server.offer("thing", "thing-1.0.tar.gz", b"main")
    other = server.put("/other/thing/", '<a href="/o/thing-1.0.tar.gz">x</a>')
    both = config(f"{server.url}/simple", other.removesuffix("/thing/"))
    assert find_file(both, "thing", "thing-1.0.tar.gz").sha256 == sha256(b"main")
    assert server.asked("/other/thing/") == []
    assert [f.sha256 for f in project_files(both, "thing")] == [sha256(b"main")]


def test_a_server_that_recovers_is_waited_for(server: web.Server) -> None:
    server.offer("thing", "thing-1.0.tar.gz", b"data")
    server.script["/simple/thing/"] = [status(503), web.cut(3)]
    assert len(project_files(config(f"{server.url}/simple"), "thing")) == 1


@pytest.mark.parametrize("code", [500, 403])
def test_a_server_that_does_not_is_an_error(server: web.Server, code: int) -> None:
    server.script["/simple/thing/"] = [status(code)] * 3
    with pytest.raises(InputError, match=f"answered {code}"):
        project_files(config(f"{server.url}/simple"), "thing")


def test_a_redirect_changes_what_links_are_relative_to(server: web.Server) -> None:
    def moved(handler: web.Handler) -> None:
        handler.head(301, Location="/deep/er/thing/", Content_Length=0)

    server.script["/simple/thing/"] = [moved]
    server.put("/deep/er/thing/", '<a href="thing-1.0.tar.gz">x</a>')
    (file,) = project_files(config(f"{server.url}/simple"), "thing")
    assert file.url == f"{server.url}/deep/er/thing/thing-1.0.tar.gz"


def test_credentials_are_sent_and_never_shown(server: web.Server) -> None:
    server.script["/simple/thing/"] = [status(401)]
    url = server.url.replace("://", "://user:pass%2Fword@") + "/simple"
    with pytest.raises(InputError, match="401") as caught:
        find_file(config(url), "thing", "thing-1.0.tar.gz")
    assert "Authorization" in server.seen[0][1]
    with pytest.raises(InputError, match="no index has") as missing:
        find_file(config(url), "thing", "thing-1.0.tar.gz")
    for text in (str(caught.value), str(missing.value)):
        assert "pass" not in text
        assert "127.0.0.1" in text


@pytest.mark.parametrize("kind", ["json", "html"])
def test_credentials_go_to_the_server_of_the_index_alone(server: web.Server, kind: str) -> None:
    host = server.url.removeprefix("http://")
    links = {
        f"http://{host}/a-1.0.tar.gz": f"http://me:s%40cret@{host}/a-1.0.tar.gz",
        "http://127.0.0.1:1/b-1.0.tar.gz": None,
        "http://127.0.0.1:no-port/g-1.0.tar.gz": None,
        f"http://localhost:{server.server_address[1]}/c-1.0.tar.gz": None,
        f"https://{host}/d-1.0.tar.gz": None,
        f"http://own:key@{host}/e-1.0.tar.gz": None,
        "../../f-1.0.tar.gz": f"http://me:s%40cret@{host}/f-1.0.tar.gz",
    }
    rows = [{"filename": link.rpartition("/")[2], "url": link} for link in links]
    if kind == "json":
        server.put("/simple/thing/", json.dumps({"files": rows}), JSON_API)
    else:
        anchors = "".join(f'<a href="{link}">x</a>' for link in links)
        server.put("/simple/thing/", anchors)
    index = f"http://me:s%40cret@{host}/simple"
    found = [file.url for file in project_files(config(index), "thing")]
    assert found == [expected or link for link, expected in links.items()]


def test_a_zip_is_passed_over_and_said_where_it_is_alone(server: web.Server) -> None:
    names = ("thing-1.0.zip", "thing-2.0.zip", "thing-2.0.tar.gz")
    rows = [{"filename": n, "url": n, "hashes": {"sha256": "0" * 64}} for n in names]
    server.put("/simple/thing/", json.dumps({"files": rows}), JSON_API)
    offers = config(f"{server.url}/simple")
    assert find_sdist(offers, "thing", "2").filename == "thing-2.0.tar.gz"
    with pytest.raises(InputError, match=r"source of release 1\.0 is thing-1\.0\.zip alone"):
        find_sdist(offers, "thing", "1.0")


def test_redaction_keeps_the_rest() -> None:
    assert (
        redacted("at https://u:p@host/simple/?token=1#x, then ssh://git@host/y")
        == "at https://host/simple/ then ssh://host/y"
    )


def test_a_wrong_address_is_one_clear_error() -> None:
    with pytest.raises(InputError, match="asking gopher://host/simple/thing/"):
        project_files(config("gopher://host/simple"), "thing")


def test_a_missing_file_is_reported_with_near_names_and_places(server: web.Server) -> None:
    server.offer("thing", "thing-1.0.1.tar.gz", b"data")
    with pytest.raises(InputError, match="no index has thing") as caught:
        find_file(config(f"{server.url}/simple"), "thing", "thing-1.0.tar.gz")
    assert "thing-1.0.1.tar.gz" in str(caught.value)
    assert server.url in str(caught.value)
    assert caught.value.exit_code == 4


def test_no_index_at_all_is_said() -> None:
    with pytest.raises(InputError, match="no index is configured"):
        find_file(config(), "thing", "thing-1.0.tar.gz")


def test_a_folder_index_without_pages_lists_its_files(tmp_path: Path) -> None:
    sdist = make_sdist(tmp_path / "thing", "thing", "1.0", {})
    (file,) = project_files(config(tmp_path.as_uri()), "thing")
    assert (file.url, file.size) == (sdist.as_uri(), sdist.stat().st_size)


def test_find_links_give_only_the_projects_files(tmp_path: Path, server: web.Server) -> None:
    make_sdist(tmp_path, "the-thing", "1.0", {})
    make_wheel(tmp_path, "the-thing", "1.1", {})
    make_wheel(tmp_path, "the-thing-too", "2.0", {})
    write(tmp_path, {"index.html": "", "sub/x": ""})
    page = server.put("/links.html", '<a href="the_thing-3.tar.gz">3</a><a href="z.whl">')
    places = (str(tmp_path), page, str(tmp_path / "gone"))
    names = {f.filename for f in project_files(config(find_links=places), "the-thing")}
    assert names == {"the_thing-1.0.tar.gz", "the_thing-1.1-py3-none-any.whl", "the_thing-3.tar.gz"}


def test_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", denied)
    with pytest.raises(InputError, match="Permission denied") as caught:
        project_files(config(find_links=(str(tmp_path),)), "thing")
    assert caught.value.where == tmp_path


def test_latest_version_is_final_and_not_yanked(server: web.Server) -> None:
    files = [
        {"filename": f"thing-{version}", "url": f"thing-{version}", "yanked": yanked}
        for version, yanked in [
            ("1.9.tar.gz", False),
            ("1.10-py3-none-any.whl", False),
            ("1.11.tar.gz", True),
            ("2.0rc1.tar.gz", False),
            ("nonsense", False),
        ]
    ]
    server.put("/simple/thing/", json.dumps({"files": files}), "application/json")
    assert latest_version(config(f"{server.url}/simple"), "thing") == "1.10"
    assert latest_version(config(f"{server.url}/simple"), "unknown") is None


def test_an_empty_page_that_is_not_html_offers_nothing(server: web.Server) -> None:
    server.script["/simple/thing/"] = [instead(b"\xff\x00 not html")]
    assert project_files(config(f"{server.url}/simple"), "thing") == []


# The settings of uv and pip


def test_without_settings_uv_says_which_index_it_uses(tmp_path: Path) -> None:
    found = load_index_config(tmp_path)
    assert len(found.urls) == 1
    assert found.urls[0].startswith("https://")
    assert not found.find_links
    assert not found.equal


def test_uvs_variables_and_files_are_honoured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path,
        {"uv.toml": '[pip]\nfind-links = ["./links", "https://l.example.org"]\n', "links/x": ""},
    )
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://u:p@main.example.org/simple")
    monkeypatch.setenv("UV_INDEX", "https://a.example.org/s named=https://b.example.org/s")
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example.org/simple")
    assert load_index_config(tmp_path) == IndexConfig(
        urls=(
            "https://u:p@main.example.org/simple",
            "https://a.example.org/s",
            "https://b.example.org/s",
        ),
        find_links=(str(tmp_path / "links"), "https://l.example.org"),
    )


def test_a_broken_uv_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"uv.toml": "index = 3\n"})
    with pytest.raises(InputError, match="uv cannot use its index settings") as caught:
        load_index_config(tmp_path)
    assert caught.value.tail


def test_pips_files_are_used_where_uv_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "venv"))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "named.conf"))
    monkeypatch.setattr(uv, "PIP_SYSTEM", (tmp_path / "system.conf",))
    write(
        tmp_path,
        {
            "system.conf": "[global]\nindex-url = https://system.example.org/s\n",
            "home/.pip/pip.conf": "[global]\nindex_url = https://home.example.org/s\n",
            "home/.config/pip/pip.conf": "not a pip.conf",
            "venv/pip.conf": (
                f"[global]\nfind-links =\n  {tmp_path}\n  /nowhere\n  https://x.example.org/l\n"
            ),
            "named.conf": (
                "[install]\nextra-index-url = file:///a/simple\n  https://b.example.org/s\n"
            ),
        },
    )
    found = load_index_config(tmp_path)
    assert found == IndexConfig(
        urls=("https://home.example.org/s", "file:///a/simple", "https://b.example.org/s"),
        find_links=(str(tmp_path), "/nowhere", "https://x.example.org/l"),
        equal=True,
    )


def test_pips_variables_come_after_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"named.conf": "[global]\nextra-index-url = https://file.example.org/s\n"})
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "named.conf"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://variable.example.org/s")
    found = load_index_config(tmp_path)
    assert found.urls[1:] == ("https://variable.example.org/s",)
    assert found.urls[0].startswith("https://")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL")
    assert not load_index_config(tmp_path).equal


def test_pip_without_an_index_uses_folders_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    found = load_index_config(tmp_path)
    assert found == IndexConfig(find_links=(str(tmp_path),), equal=True)
    assert index_arguments(found)[0] == "--no-index"


def test_uv_gets_the_indexes_in_its_own_words() -> None:
    words = index_arguments(
        IndexConfig(urls=("https://main", "https://extra"), find_links=("/",), equal=True)
    )
    assert words == [
        "--default-index",
        "https://main",
        "--index",
        "https://extra",
        "--find-links",
        "/",
        "--index-strategy",
        "unsafe-best-match",
    ]


def test_no_log_shows_the_credentials_of_an_index(tmp_path: Path) -> None:
    url = "https://user:secret@main.example.org/simple"
    words = ["false", *index_arguments(IndexConfig(urls=(url,)))]
    log = tmp_path / "log"
    with pytest.raises(process.CommandError) as caught:
        process.logged(words, cwd=tmp_path, env=process.base_env(), log=log)
    for text in (str(caught.value), log.read_text()):
        assert "https://main.example.org/simple" in text
        assert "secret" not in text
