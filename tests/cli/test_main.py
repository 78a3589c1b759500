"""The command line itself: exit codes, where results go, options as environment variables."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from patchwheel.cli import options
from patchwheel.cli.main import COMMANDS, GROUPS, cli
from patchwheel.compilecache.cache import LAYER, Shared
from patchwheel.kit import errors
from patchwheel.kit.errors import MachineError, ManifestError
from patchwheel.kit.store import Store
from patchwheel.project import Project
from tests.fixtures import forked, support
from tests.fixtures.projects import Site

SDIST = 'version = "1.0"\nsdist = { filename = "demo-1.0.tar.gz", sha256 = "%s" }\n' % ("0" * 64)


def patchwheel(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return forked.run(words, cwd=folder, env={**os.environ, **env}, timeout=60)


def test_version_and_help_need_no_manifest(tmp_path: Path) -> None:
    assert re.fullmatch(r".*version \d+\.\d+\.\d+\n", patchwheel(tmp_path, "--version").stdout)
    assert "Exit codes" in patchwheel(tmp_path, "--help").stdout


@pytest.mark.parametrize(
    "line", ["--help", "plan", "plan --json", "status --offline", "build x", "nonsense"]
)
def test_a_reader_that_has_enough_ends_it_silently(locked_site: Site, line: str) -> None:
    """As `patchwheel plan 2>&1 | head -1` does, or `true` for `head`."""
    reader, writer = os.pipe()
    os.close(reader)
    fails = line in {"build x", "nonsense"}
    with os.fdopen(writer) as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "patchwheel", *line.split()],
            cwd=locked_site.root,
            env=locked_site.environment({}),
            stdout=pipe,
            stderr=pipe if fails else subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, None if fails else b"")


@pytest.mark.parametrize("script", ["from patchwheel.cli.main import cli as _run", "_run = write"])
def test_where_no_signal_ends_it_the_status_says_so(script: str) -> None:
    """As in the first process of a container, with click's end or that of a print."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "import os, signal, patchwheel.cli.main as main\ndef write(): os.write(1, b'x')\n"
    code += f"os.kill = lambda *_: None\n{script}\nmain._run = _run\nmain.main()"
    with os.fdopen(writer) as pipe:
        argv = [sys.executable, "-c", code, "--help"]
        done = subprocess.run(argv, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("closed", ["01", "2", "012"])
@pytest.mark.parametrize(
    ("line", "code"), [("status --offline", 0), ("plan --json", 0), ("build ä", 2)]
)
def test_a_closed_standard_stream_leads_nowhere(
    locked_site: Site, line: str, code: int, closed: str
) -> None:
    """As `patchwheel status >&-` does."""
    # What is no ASCII is written there in any locale.
    ascii_only = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    closing = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        f"exec {sys.executable} -m patchwheel {line} {closing}",
        shell=True,
        cwd=locked_site.root,
        env=locked_site.environment(ascii_only if closed == "012" else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert bool(done.stdout) == ("1" not in closed and code == 0)
    assert bool(done.stderr) == ("2" not in closed and code > 0)


@pytest.mark.parametrize("width", [80, 120])
def test_each_command_has_its_group_and_a_summary_that_is_not_cut(width: int) -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=width).output
    assert [*re.findall(r"(?m)^([A-Z][a-z ]+):$", shown)] == ["Options", *GROUPS]
    rows = re.findall(r"(?m)^  ([a-z]+) {2,}(\S.+)$", shown)
    assert [name for name, _ in rows] == list(COMMANDS)
    for name, summary in rows:
        assert summary.endswith("."), f"{name}: {summary}"
        assert not summary.endswith(".."), f"{name}: {summary}"
    assert max(map(len, shown.splitlines())) <= width


def test_in_a_narrow_terminal_a_summary_goes_on_below() -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=60).output
    assert shown.count("...") == 1  # COMMAND [ARGS]...
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_two_examples_that_it_takes(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"], terminal_width=80).output
    lines = re.findall(r"(?m)^    patchwheel (.+)$", shown.partition("Examples:\n")[2])
    assert len(lines) == 2
    for line in lines:
        command: click.Command | None = cli
        first, *words = line.split()
        assert first == name
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        assert command is not None
        # An option that does not exist, or an argument too many or too few, raises an error.
        context = click.Context(command, ignore_unknown_options=False)
        values, left, _ = command.make_parser(context).parse_args(words)
        assert not left
        for parameter in command.params:
            if isinstance(parameter, click.Argument) and parameter.required:
                assert values[str(parameter.name)], f"{line}: {parameter.name}"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("patchwheel reb", ["rebase"]),
        ("patchwheel build de", ["demo"]),
        ("patchwheel test ", ["demo", "other"]),
        ("patchwheel build --from", ["--from-source"]),
        ("patchwheel build nothing", []),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_options_and_forks(
    tmp_path: Path, words: str, offered: list[str], shell: str
) -> None:
    support.make_manifest(tmp_path, {"demo": SDIST, "other": SDIST})
    # The work tree of a fork is where one types.
    below = tmp_path / "work" / "demo"
    below.mkdir(parents=True)
    for folder in (tmp_path, below):
        assert complete(folder, words, shell) == offered


@pytest.mark.parametrize("text", [None, "[forks", "forks = 1\n", "forks = 1\n\xff"])
def test_a_manifest_that_cannot_be_read_completes_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "forks.toml").write_bytes(text.encode("latin-1"))
    assert complete(tmp_path, "patchwheel build ", "bash") == []


def complete(folder: Path, words: str, shell: str) -> list[str]:
    """Return what the shell is offered for the last of the words."""
    program = str(Path(sys.executable).parent / "patchwheel")
    typed = words.split(" ")
    env = {"COMP_WORDS": words, "_PATCHWHEEL_COMPLETE": f"{shell}_complete"}
    # fish passes the word itself, the others its number.
    env["COMP_CWORD"] = typed[-1] if shell == "fish" else str(len(typed) - 1)
    done = subprocess.run(
        [program], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if line]
    if shell == "zsh":
        return lines[1::3]
    return [line.partition(",")[2].partition("\t")[0] for line in lines]


def test_the_version_is_shown_without_importing_the_stages(tmp_path: Path) -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "patchwheel", "--version"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert 0 < len(re.findall(r"\| +patchwheel\b", done.stderr)) <= 12


def test_without_a_manifest_the_error_says_where_it_looked(tmp_path: Path) -> None:
    done = patchwheel(tmp_path, "build")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "forks.toml" in done.stderr
    assert "--manifest" in done.stderr


def test_a_misspelt_key_names_the_line_and_the_key_that_was_meant(tmp_path: Path) -> None:
    support.make_manifest(tmp_path, {"demo": SDIST + 'comit = "x"\n'})
    done = patchwheel(tmp_path, "status")
    assert done.returncode == 2
    assert (
        "forks.toml:11: forks.demo.comit is not a key here (did you mean 'commit'?)" in done.stderr
    )


ONE = "give one of --pin, --from-source and --rebuild"
APART = "--release, --dev and --without-patches cannot be combined"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["build", "demmo"], "did you mean 'demo'?"),
        (["bild"], "No such command 'bild'"),
        (["build"], "next: run `patchwheel lock`"),
        (["lock", "--diff", "demo"], "--diff and --costs are of the whole lock"),
        (["lock", "--diff", "--costs"], "--diff and --costs are of the whole lock"),
        (["lock", "--diff"], "next: run `patchwheel lock`"),
        (["verify", "demo"], ONE),
        (["verify", "demo", "--pin", "--from-source"], ONE),
        (["verify", "forks.toml", "--dev"], "--dev does nothing here: wheels are checked"),
        (["verify", "forks.toml", "--variant", "x"], "--variant does nothing here"),
        (["verify", "forks.toml", "-j2"], "--jobs does nothing here"),
        (["verify", "forks.toml", "--python", "3.12"], "--python does nothing here"),
        (
            ["verify", "demo", "--pin", "--trust", "a:b"],
            "--trust does nothing here: only SHA256SUMS",
        ),
        (
            ["verify", "demo", "--rebuild", "--dev"],
            "--dev does nothing here: it goes with --from-s",
        ),
        (["verify", ".", "--trust", "keyless"], "--trust keyless: is no name with a key"),
        (["plan", "--variant", "x"], "demo has no variant 'x'"),
        (["status", "--against", "main", "--html", "no/x.html"], "--html: there is no folder no"),
        (["env", "demo"], "demo is a fork: an environment has all of them"),
        (["build", "--release", "--dev"], APART),
        (["build", "--release", "--without-patches"], APART),
    ],
)
def test_wrong_usage_says_what_is_right(tmp_path: Path, words: list[str], says: str) -> None:
    support.make_manifest(tmp_path, {"demo": SDIST})
    done = patchwheel(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_python_that_the_manifest_does_not_build_for_is_refused(tmp_path: Path) -> None:
    support.make_manifest(tmp_path, {"demo": SDIST})
    (tmp_path / "forks.lock").write_text('{"schema": 4, "environments": {}, "forks": {}}')
    done = patchwheel(tmp_path, "plan", PATCHWHEEL_PYTHON="3.10")
    assert done.returncode == 2
    assert "3.10" in done.stderr


def test_an_interpreter_chooses_the_python_of_its_version(tmp_path: Path, store: Store) -> None:
    manifest = support.make_manifest(tmp_path, {"demo": SDIST}, python="3.77 3.78")

    def project(script: str) -> Project:
        given = str(support.program(tmp_path / "python", script))
        return Project(manifest, store, support.Recorder(), python_option=given)

    answer = f"echo '{tmp_path / 'python'}'\necho 3.{{}}.1 cpython -"
    chosen = project(answer.format(78))
    assert chosen.python == "3.78"
    assert chosen.context.interpreter.path == tmp_path / "python"
    with pytest.raises(ManifestError, match=r"Python 3\.76 is not in the manifest's") as caught:
        _ = project(answer.format(76)).python
    assert caught.value.expected == "one of 3.77, 3.78"
    assert "run `patchwheel lock`" in str(caught.value.hint)
    with pytest.raises(MachineError, match="does not run as a CPython"):
        # A build that has all wheels would not ask for the interpreter.
        _ = project("exit 127").python


@pytest.mark.parametrize("words", ["build", "plan", "env", "test demo"])
def test_a_command_says_which_of_several_pythons_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setenv("PATCHWHEEL_OFFLINE", "1")
    support.make_manifest(tmp_path, {"demo": SDIST}, python="3.12 3.13 3.14")
    line = "for Python 3.12, the manifest's first; `--python 3.13` or `--python 3.14` for another"
    told, chosen = (patchwheel(tmp_path, *words.split(), *more) for more in ([], ["--python=3.14"]))
    # There is no lock to build from, and no source to read tests of.
    assert told.returncode == chosen.returncode == (4 if words == "test demo" else 2)
    assert told.stderr.splitlines()[0] == line
    assert "for Python" not in chosen.stderr


def test_an_unwritable_store_is_the_machines_fault(tmp_path: Path) -> None:
    support.make_manifest(tmp_path, {"demo": SDIST})
    (tmp_path / "file").write_text("in the way")
    done = patchwheel(tmp_path, "lock", PATCHWHEEL_STORE=str(tmp_path / "file" / "store"))
    assert done.returncode == 7
    assert "PATCHWHEEL_STORE" in done.stderr


def test_cache_commands_show_check_and_shrink_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = store.get("wheels", "ab" * 32, lambda folder: support.write(folder, {"x": "data"}))
    # What a process uses is not removed.
    store.held.clear()
    env = {"PATCHWHEEL_STORE": str(store.root)}
    assert patchwheel(tmp_path, "cache", "dir", **env).stdout == f"{store.root}\n"
    done = patchwheel(tmp_path, "cache", "verify", **env)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{store.root}: no entry is damaged\n"
    (path / "x").write_text("date")
    done = patchwheel(tmp_path, "cache", "verify", "--json", **env)
    assert done.returncode == 6
    assert list(json.loads(done.stdout)) == [f"wheels/{'ab' * 32}"]
    assert not path.exists()
    store.get("wheels", "cd" * 32, lambda folder: support.write(folder, {"x": "data"}))
    store.held.clear()
    shared = Shared(store=store, name="demo-bwrap")
    support.write(
        tmp_path / "work", {f"{LAYER}/aa/{'1' * 38}": "one", f"{LAYER}/aa/{'2' * 38}": "2"}
    )
    shared.prepare()
    shared.merge(tmp_path / "work", hits=3, misses=1)
    rows = [line.split() for line in patchwheel(tmp_path, "cache", **env).stdout.splitlines()]
    assert ["wheels", "1", "0.0", "MB"] in rows
    assert ["compiles/demo-bwrap", "2", "0.0", "MB", *["3", "of", "4", "steps", "replayed"]] in rows
    (shared.entries / "aa" / ("1" * 38)).write_text("two")
    done = patchwheel(tmp_path, "cache", "verify", "--json", **env)
    assert done.returncode == 6
    assert list(json.loads(done.stdout)) == [f"compiles/demo-bwrap/aa/{'1' * 38}"]
    assert shared.size() == (1, 1)
    done = patchwheel(tmp_path, "cache", "prune", "--older-than", "0", **env)
    assert "removed 2 entries" in done.stderr
    assert shared.size() == (0, 0)


def test_a_folder_with_other_files_is_not_used_as_a_store(tmp_path: Path) -> None:
    home = tmp_path / "home"
    support.write(home, {"documents/letters/x.txt": "dear"})
    support.make_manifest(tmp_path, {"demo": SDIST})
    for words in (
        ["cache", "verify"],
        ["cache", "verify", "--json"],
        ["cache", "prune", "--older-than", "0"],
        ["lock"],
    ):
        done = patchwheel(tmp_path, *words, PATCHWHEEL_STORE=str(home))
        assert done.returncode == 7
        assert f"{home}: the folder is not a store of patchwheel" in done.stderr
        assert "expected: an empty folder" in done.stderr
        assert "set PATCHWHEEL_STORE to a new folder" in done.stderr
    assert (home / "documents" / "letters" / "x.txt").read_text() == "dear"
    assert [path.name for path in home.iterdir()] == ["documents"]


def test_cache_commands_keep_a_folder_that_the_store_does_not_know(tmp_path: Path) -> None:
    from patchwheel.kit.store import Store

    store = Store(tmp_path / "store")
    store.ensure()
    support.write(store.root, {"documents/letters/x.txt": "dear"})
    for words in (["verify"], ["prune", "--older-than", "0"]):
        done = patchwheel(tmp_path, "cache", *words, PATCHWHEEL_STORE=str(store.root))
        assert done.returncode == 0
    assert (store.root / "documents" / "letters" / "x.txt").read_text() == "dear"


def test_doctor_answers_in_json(tmp_path: Path) -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    support.make_manifest(tmp_path, {"demo": SDIST}, python=python)
    found = json.loads(patchwheel(tmp_path, "doctor", "--json").stdout)
    assert {"git", f"Python {python}", "sandbox"} <= {row["what"] for row in found}


def test_every_stage_option_has_an_environment_variable() -> None:
    command = cli.get_command(click.Context(cli), "build")
    assert command
    variables = {p.envvar for p in command.params if p.envvar}
    assert variables >= {
        "PATCHWHEEL_JOBS",
        "PATCHWHEEL_OFFLINE",
        "PATCHWHEEL_PYTHON",
        "PATCHWHEEL_MANIFEST",
        "PATCHWHEEL_SANDBOX",
        "PATCHWHEEL_KEEP_GOING",
    }


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ManifestError, 2),
        (errors.PatchError, 3),
        (errors.InputError, 4),
        (errors.BuildError, 5),
        (errors.CheckError, 6),
        (errors.MachineError, 7),
    ],
)
def test_exit_codes_are_those_of_the_readme(kind: type[errors.PatchwheelError], code: int) -> None:
    assert kind.exit_code == code


def test_a_link_that_cannot_be_made_is_named_and_not_where_it_leads() -> None:
    found = errors.disk_error(OSError(errno.EROFS, "Read-only file system", "store", None, "link"))
    assert (found and found.where, found and found.message) == (
        "link",
        "cannot be written: Read-only file system",
    )


def test_an_error_shows_what_where_expected_log_and_what_next(tmp_path: Path) -> None:
    error = errors.BuildError(
        "the build failed",
        where="x.py:3",
        expected="a wheel",
        hint="look",
        tail=["one", "two"],
        log=tmp_path / "log",
    )
    # A step that did not start has written no log.
    assert "log: " not in str(error)
    (tmp_path / "log").touch()
    assert str(error).splitlines() == [
        "x.py:3: the build failed",
        "  expected: a wheel",
        "  last lines of the log:",
        "    one",
        "    two",
        f"  log: {tmp_path / 'log'}",
        "  next: look",
    ]


def test_the_manifest_is_found_from_any_folder_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "work" / "scipy"
    below.mkdir(parents=True)
    name = Path("forks.toml")
    monkeypatch.chdir(below)
    assert options._nearest(name) == name
    (tmp_path / name).touch()
    assert options._nearest(name) == tmp_path / name
    # In a folder that others may write to, it is not taken from them.
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / name).stat().st_uid + 1)
    assert options._nearest(name) == name
    (below / name).touch()
    assert options._nearest(name) == name


@pytest.mark.parametrize("option", ["--release", "--from-source", "--dev", "--dry-run"])
def test_grafts_for_other_platforms_are_of_the_series_alone(tmp_path: Path, option: str) -> None:
    support.make_manifest(tmp_path, {"demo": SDIST})
    done = patchwheel(tmp_path, "build", "--platform", "win_amd64", option)
    assert done.returncode == 2
    assert "--platform and --all-platforms are for grafts of the series" in done.stderr


def test_a_build_that_can_graft_no_wheel_fails_and_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from patchwheel import wheel
    from patchwheel.cli import main

    names = [f"demo-1.0-cp313-cp313-{tag}.whl" for tag in ("win_amd64", "win_arm64")]
    why = "demo/a.pyx: the build reads it (0010.patch)"
    rows = [wheel.PlatformWheel(base=n, wheel=None, seconds=0.1, skipped=why) for n in names]
    asked: list[object] = []

    def build(_project: object, _forks: object, *wanted: object) -> list[wheel.PlatformWheel]:
        asked.extend(wanted)
        return rows

    support.make_manifest(tmp_path, {"demo": SDIST})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wheel, "build_platforms", build)
    words = ["build", "demo", "--all-platforms", "--python", "3.13,3.14t"]
    monkeypatch.setattr(sys, "argv", ["patchwheel", *words])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == errors.BuildError.exit_code
    assert asked == [(), ["3.13", "3.14t"]]
    shown = capsys.readouterr().err
    assert "skipped, needs win_arm64 with cp313" in shown
    assert f"skipped {names[0]} and 1 more: {why}" in shown
    assert "no wheel could be grafted without a compiler" in shown
