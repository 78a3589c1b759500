"""P15: a failed build leaves what one needs: its folder, its environment, its last command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.projects import Site
from tests.security.hostile import make_attack

FAIL = "open('left', 'w').write('behind'); print('RAN IT'); raise SystemExit(3)"


def shell(site: Site, script: str, *words: str) -> tuple[int, str]:
    argv = [sys.executable, "-m", "patchwheel", "shell", "demo", *words]
    env = {**os.environ, **site.index, "PATCHWHEEL_STORE": str(site.store), "SECRET": "S3CRET"}
    done = subprocess.run(
        argv, cwd=site.root, env=env, input=script, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("level", ["auto", "none"])
def test_a_shell_opens_where_a_build_failed(tmp_path: Path, level: str) -> None:
    site, sandbox = make_attack(tmp_path, code={"act": FAIL}).site, ("--sandbox", level)
    site.run("lock", *sandbox)
    status, said = shell(site, "", *sandbox)
    assert status == 5
    assert "patchwheel build demo --keep-failed" in said
    site.run("build", *sandbox, status=5)
    assert list((site.store / "tmp").iterdir()) == []
    site.run("build", "--keep-failed", *sandbox, status=5)
    [root] = (site.store / "tmp").iterdir()
    status, said = shell(site, "cat left; echo; echo $TMPDIR; env; exit 4", *sandbox)
    assert status == 4, said
    assert "behind" in said
    assert "S3CRET" not in said
    assert "PYTHONHASHSEED=0" in said
    [line] = [row for row in said.splitlines() if "the step that failed: " in row]
    command = line.partition("the step that failed: ")[2]
    status, said = shell(site, command, *sandbox)
    assert status == 3, said
    assert "RAN IT" in said
    os.utime(root / "step.json", (0, 0))
    assert shell(site, "", *sandbox)[0] == 5
    assert not root.exists()
