import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from patchwheel.kit import process
from patchwheel.kit.errors import CheckError, InputError, MachineError
from patchwheel.release.publish import install_release, validate_release
from tests.fixtures import support

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def staged(folder: Path, version: str = VERSION) -> Path:
    installed = json.dumps({version: {"thing": "thing==1.0"}})
    page = "<a>thing</a>"
    support.write(folder, {"installed.json": installed, "site/simple/index.html": page})
    return folder


def test_validation_gives_uv_an_interpreter_and_not_a_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: support.Recorder
) -> None:
    started: list[list[str]] = []
    pages: list[str] = []

    def capture(argv: Sequence[str | Path], **_options: object) -> bytes:
        words = list(map(str, argv))
        started.append(words)
        urls = [word for word in words if word.startswith("file://")]
        pages.extend(Path(url.removeprefix("file://"), "index.html").read_text() for url in urls)
        return b""

    # Only here: finding an interpreter starts processes too.
    folder = staged(tmp_path)
    monkeypatch.setattr("patchwheel.kit.process", SimpleProcess(capture))
    install_release(folder, report)
    made = [words for words in started if words[1] == "venv"]
    assert len(made) == 2
    for words in made:
        python = Path(words[words.index("--python") + 1])
        assert python.is_absolute()
        assert os.access(python, os.X_OK)
    # pip and uv were given the index, and it was there.
    assert pages == ["<a>thing</a>"] * 2
    staged(tmp_path, "2.7")
    with pytest.raises(MachineError, match=r"no Python 2\.7"):
        install_release(folder, report)


class SimpleProcess:
    CommandError = process.CommandError

    def __init__(self, capture: object) -> None:
        self.capture = capture


def test_what_does_not_install_is_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: support.Recorder
) -> None:
    def capture(argv: Sequence[str | Path], **_options: object) -> bytes:
        if "install" in argv:
            raise process.CommandError(["pip"], 1, ["no matching distribution"], None)
        return b""

    monkeypatch.setattr("patchwheel.kit.process", SimpleProcess(capture))
    with pytest.raises(CheckError, match="what was staged does not install") as caught:
        install_release(staged(tmp_path), report)
    assert caught.value.tail == ("no matching distribution",)
    assert "nothing is published" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"3.12": "demo"}', '{"3.12": {"a": 1, "b": ""}}']
)
def test_what_is_no_staged_release_is_not_installed(
    tmp_path: Path, report: support.Recorder, text: str | None
) -> None:
    if text:
        support.write(tmp_path, {"installed.json": text})
    with pytest.raises(InputError, match="is no staged release") as caught:
        validate_release(tmp_path, report)
    assert "next: `patchwheel release stage` makes such a folder" in str(caught.value)
