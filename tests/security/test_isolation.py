"""P9: a build in the sandbox changes nothing of its host, and learns nothing of it."""

from pathlib import Path

import pytest

from patchwheel.build.sandbox import Sandbox, open_build_dir
from patchwheel.kit import BuildError
from patchwheel.kit.store import Store
from tests.security.hostile import make_attack, need_bubblewrap

REQUIRED = ("--sandbox", "required")


@pytest.fixture(autouse=True)
def _contained() -> None:
    need_bubblewrap()


# Names that the host once wrote, or might write, below the folder of a build.
WRITES = {
    "scripts are links": """
for name in ["inspect_build.py", "module_steps.py", "clock.so"]:
    leave(BUILD / name, "HOST/victim")
leave(BUILD / "scripts" / "inspect_build.py", "HOST/victim")
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
@pytest.mark.parametrize("hook", ["plan", "inspect"])
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
        'atexit.register(leave, f"{sys.argv[2]}/answer.json", "HOST/secret.json")',
    ),
    "the answer of a hook is a FIFO": (
        "plan",
        "x = sys.argv[2] + '/answer.json'\natexit.register(lambda: (os.unlink(x), os.mkfifo(x)))",
    ),
    "the list of outputs is a link": (
        "inspect",
        'atexit.register(leave, f"{out}/answer.json", "HOST/secret.json")',
    ),
    "the list of outputs is no list": (
        "inspect",
        "atexit.register(pathlib.Path(out, 'answer.json').write_text, '{\"outputs\": [1]}')",
    ),
    "the steps of a build are no steps": (
        "inspect",
        """
text = '{"outputs": {"a": "b"}, "reads": [], "opened_by_script": {}, "steps": [{"outputs": {}}]}'
atexit.register(pathlib.Path(out, "answer.json").write_text, text)
""",
    ),
    "the log of what was read is a link": (
        "inspect",
        'leave(BUILD / "opened.log", "HOST/secret")',
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


# What a hook may leave of the folders that the host names next, without a link to follow.
REMAINS = {
    "the sources are gone": "os.rename(BUILD / 'src', BUILD / 'gone')",
    "the sources are a link": "leave(BUILD / 'src', 'HOST/folder')",
    "the sources are a file": "os.rename(BUILD / 'src', BUILD / 'gone'); open(BUILD / 'src', 'w')",
    "the sources cannot be entered": "os.chmod(BUILD / 'src', 0)",
    "deep folders beside the answer": """
os.chdir(sys.argv[2])
for _ in range(1100): os.mkdir("d"); os.chdir("d")
os.chdir(BUILD / "src")
""",
    "a folder that nobody may enter": """
os.makedirs(sys.argv[2] + "/d/d")
os.chmod(sys.argv[2] + "/d", 0)
""",
}


@pytest.mark.parametrize("way", REMAINS)
def test_what_a_hook_leaves_stops_nothing_but_its_build(tmp_path: Path, way: str) -> None:
    attack = make_attack(tmp_path, code={"plan": REMAINS[way]})
    status, said = attack.site.tried("lock", *REQUIRED)
    assert status in {0, 5}, said
    assert "Traceback (most recent call last)" not in said.replace("    Traceback", "")
    assert attack.untouched()
    assert list((attack.site.store / "tmp").iterdir()) == []


def test_without_bubblewrap_sources_that_are_gone_are_told(tmp_path: Path, store: Store) -> None:
    sandbox = Sandbox(level="none")
    with open_build_dir("demo", sandbox=sandbox, store=store, env=tmp_path) as build_dir:
        source = build_dir.work / "src"
        source.rename(build_dir.work / "gone")
        for linked in (False, True):
            if linked:
                source.symlink_to("gone")
            with pytest.raises(BuildError, match="demo: its build removed the folder src"):
                build_dir.run(["true"], cwd=source, env={}, log=tmp_path / "log")
