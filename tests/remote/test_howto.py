"""docs/how-to/store.md followed by the letter."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from patchwheel.remote import open_remote, sign
from tests.fixtures import support
from tests.fixtures.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TEXT = (ROOT / "docs/how-to/store.md").read_text()


def blocks() -> list[str]:
    found = re.findall(r"(?:^    .*\n)+", TEXT, re.MULTILINE)
    return [re.sub(r"(?m)^    ", "", block) for block in found]


def test_the_key_that_it_makes_is_the_one_that_it_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("openssl"):
        support.lacking("there is no openssl")
    config, exports, _, _, script, build = blocks()
    printed = support.run("bash", "-ec", script, cwd=tmp_path, status=0).stdout
    assert printed == sign(b"", tmp_path / "key.pem")[0]
    support.write(tmp_path, {"patchwheel/config.toml": config.replace("57f3…", printed)})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    found = open_remote(print, 1)
    assert found
    assert found.trust == {"ci": printed}
    variables = re.findall(
        r'(?m)^(?:export )?(PATCHWHEEL_\w+)="?([^"\n]+?)"?(?: patchwheel build)?$', exports + build
    )
    for name, value in variables:
        monkeypatch.setenv(name, value.replace("57f3…", printed).replace("09ab…", "0" * 64))
    found = open_remote(print, 1)
    assert found
    assert found.url == "https://cache.example.org/patchwheel"
    assert found.trust == {"ci": printed, "release": "0" * 64}
    assert found.write == "key.pem"
