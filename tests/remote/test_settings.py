from __future__ import annotations

from pathlib import Path

import pytest

from patchwheel.kit import ManifestError
from patchwheel.remote import Remote, open_remote
from tests.fixtures import support


def load_settings() -> Remote | None:
    return open_remote(print, 1)


KEY = "0123456789abcdef" * 4
URL = "https://cache.example.org/team"
CONFIG = f'[remote]\nurl = "{URL}"\ntrust = ["ci:{KEY}"]\nwrite = "key.pem"\n'


def configure(text: str) -> Path:
    path = Path.home() / ".config/patchwheel/config.toml"
    support.write(path.parent, {path.name: text})
    return path


def test_without_a_url_there_is_no_store() -> None:
    assert load_settings() is None
    configure("")
    assert load_settings() is None


def test_the_users_configuration_names_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(CONFIG)
    found = load_settings()
    assert found
    assert (found.url, found.trust, found.write) == (URL, {"ci": KEY}, "key.pem")
    assert found.trust
    monkeypatch.setenv("PATCHWHEEL_REMOTE_WRITE", "")
    monkeypatch.setenv("PATCHWHEEL_REMOTE_TRUST", f"a:{KEY}  b:{KEY}")
    found = load_settings()
    assert found
    assert (found.trust, found.write) == ({"a": KEY, "b": KEY}, "")
    monkeypatch.setenv("PATCHWHEEL_REMOTE", "")
    assert load_settings() is None
    monkeypatch.delenv("PATCHWHEEL_REMOTE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_settings() is None


# A bucket may be called like this machine.
@pytest.mark.parametrize("url", ["https://other.example.org", "s3://localhost", "gs://127.0.0.1"])
def test_who_is_trusted_for_one_store_is_not_for_another(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(CONFIG)
    monkeypatch.setenv("PATCHWHEEL_REMOTE", url)
    with pytest.raises(ManifestError, match="nobody is trusted to add to this store"):
        load_settings()


@pytest.mark.parametrize(
    "url",
    [
        "file:///srv/store",
        "http://127.0.0.1:8080",
        "http://[::1]:8080/x",
        "http://localhost",
        "https://127.0.0.5",
    ],
)
def test_unsigned_wheels_count_on_this_machine_only(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHWHEEL_REMOTE", url)
    monkeypatch.setenv("PATCHWHEEL_REMOTE_WRITE", "unsigned")
    found = load_settings()
    assert found
    assert not found.trust
    # Where keys are named, nothing unsigned counts here either.
    monkeypatch.setenv("PATCHWHEEL_REMOTE_TRUST", f"ci:{KEY}")
    with pytest.raises(ManifestError, match="only signed wheels count in this store"):
        load_settings()
    monkeypatch.setenv("PATCHWHEEL_REMOTE_WRITE", "")
    found = load_settings()
    assert found
    assert found.trust


@pytest.mark.parametrize(
    "url",
    [
        "http://cache.example.org",
        "http://user@127.0.0.1.example.org/",
        "ftp://127.0.0.1/",
        "file://host/srv",
        "file:srv",
        "/srv/store",
        "https://cache.example.org/?token=secret",
        "s3://bucket#part",
    ],
)
def test_an_address_that_is_none_is_refused_without_its_secrets(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHWHEEL_REMOTE", url)
    monkeypatch.setenv("PATCHWHEEL_REMOTE_TRUST", f"ci:{KEY}")
    with pytest.raises(ManifestError, match="is no address of a shared store") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("trust", [KEY, f":{KEY}", "ci:abc", f"ci:{KEY.upper()}", f"ci:{KEY}0"])
def test_a_key_that_is_none(trust: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHWHEEL_REMOTE", URL)
    monkeypatch.setenv("PATCHWHEEL_REMOTE_TRUST", trust)
    with pytest.raises(ManifestError, match="is no name with a key"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("url =", "cannot be read"),
        ("remote = 3\n", "cannot be read"),
        ("[remote]\ntrust = 3\n", "trust has no place in it"),
        ("[remote]\nurl = 3\n", "has no place in it"),
        ("[remote]\nurls = 'x'\n", "has no place in it"),
        ("[remote]\nwrite = true\n", "has no place in it"),
        ("[store]\n", "has no place in it"),
    ],
)
def test_a_configuration_that_is_none_is_named(text: str, problem: str) -> None:
    path = configure(text)
    with pytest.raises(ManifestError, match=problem) as caught:
        load_settings()
    assert caught.value.where == path
