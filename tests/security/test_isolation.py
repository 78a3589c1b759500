"""P9: a build in the sandbox changes nothing of its host, and learns nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from patchwheel.build.sandbox import detect_sandbox
from tests.fixtures import support
from tests.security.hostile import make_attack

if TYPE_CHECKING:
    from pathlib import Path

REQUIRED = ("--sandbox", "required")


@pytest.fixture(autouse=True)
def _contained() -> None:
    if detect_sandbox("auto").level != "bwrap":
        support.lacking("bubblewrap does not work here")


# Names that the host once wrote, or might write, below the folder of a build.
WRITES = {
    "scripts are links": """
for name in ["_in_process.py", "survey_build.py", "build_extensions.py", "clock.so"]:
    leave(BUILD / name, "HOST/victim")
leave(BUILD / "scripts" / "_in_process.py", "HOST/victim")
leave(BUILD / "trace" / "sitecustomize.py", "HOST/victim")
""",
    "folders are links": """
for name in ["trace", "meson", "modules", "repaired", "kept", "out", "scripts", "home", "tmp"]:
    leave(BUILD / name, "HOST/folder")
""",
    "sources are links": """
leave("pyproject.toml", "HOST/victim")
leave(BUILD / "kept" / "index", "HOST/victim")
""",
}


@pytest.mark.parametrize("way", WRITES)
@pytest.mark.parametrize("hook", ["plan", "survey"])
def test_the_host_writes_through_no_link_of_a_build(tmp_path: Path, hook: str, way: str) -> None:
    attack = make_attack(tmp_path, code={hook: WRITES[way]})
    attack.site.tried("lock", *REQUIRED)
    attack.site.tried("build", "--from-source", *REQUIRED)
    assert attack.untouched()


READS = {
    "the wheel is a link": ("act", 'leave(f"{out}/{WHEEL}", "HOST/secret.whl")'),
    "the folder of the wheel is a link": ("act", 'leave(out, "HOST")\nresult = "secret.whl"'),
    "the name of the wheel leads out": ("act", 'result = "../../HOST/secret.whl"'),
    "the name of the wheel is absolute": ("act", 'result = "HOST/secret.whl"'),
    "the name of the wheel is no text": ("act", "result = [1]"),
    "the wheel is a FIFO": ("act", "os.unlink(f'{out}/{WHEEL}')\nos.mkfifo(f'{out}/{WHEEL}')"),
    "the answer of a hook is a link": (
        "plan",
        'atexit.register(leave, f"{sys.argv[2]}/output.json", "HOST/secret.json")',
    ),
    "the answer of a hook is a FIFO": (
        "plan",
        "x = sys.argv[2] + '/output.json'\natexit.register(lambda: (os.unlink(x), os.mkfifo(x)))",
    ),
    "the list of outputs is a link": (
        "survey",
        'atexit.register(leave, f"{out}/survey.json", "HOST/secret.json")',
    ),
    "the list of outputs is no list": (
        "survey",
        "atexit.register(pathlib.Path(out, 'survey.json').write_text, '{\"outputs\": [1]}')",
    ),
    "the log of what was read is a link": (
        "survey",
        'atexit.register(leave, BUILD / "opened.log", "HOST/secret")',
    ),
}


@pytest.mark.parametrize("way", READS)
def test_the_host_reads_through_no_link_of_a_build(tmp_path: Path, way: str) -> None:
    hook, code = READS[way]
    attack = make_attack(tmp_path, code={hook: code})
    status, said = attack.site.tried("lock", *REQUIRED)
    if hook == "act":
        assert status == 0, said
        status, said = attack.site.tried("build", "--from-source", *REQUIRED)
    assert status == 5, said
    assert attack.known() == []
    assert "S3CRET" not in said
    assert attack.untouched()
