"""What the documents say is there is there."""

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import commands_page
import json_page
import jsonschema
import pytest
from forks_schema import REFERENCE, TABLES, key_table, with_tables

from patchwheel.cli.main import cli
from patchwheel.kit import PatchwheelError
from patchwheel.kit.limits import VARIABLE, Limits
from patchwheel.remote import settings

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "docker" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in DOCUMENTS}


def sessions() -> set[str]:
    text = (ROOT / "noxfile.py").read_text()
    named = set(re.findall(r'(?:nox\.session\(name=|_command\(|_fork\()"([a-z-]+)"', text))
    plain = set(re.findall(r"@nox\.session(?:\(default=False\))?\ndef ([a-z_]+)\(", text))
    forks = tomllib.loads((ROOT / "forks.toml").read_text())["forks"]
    return named | plain | {f"build-{fork}" for fork in forks}


@pytest.mark.parametrize("name", TEXTS)
def test_every_session_that_a_document_names_exists(name: str) -> None:
    for words in re.findall(r"nox -s ((?:[a-z-]+ ?)+)", TEXTS[name]):
        wanted = words.split(" -- ")[0].split()
        missing = {w for w in wanted if w != "--"} - sessions()
        assert not missing, missing


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_and_option_that_a_document_names_exists(name: str) -> None:
    for command, rest in re.findall(
        r"(?:^    (?:\$ )?|`)patchwheel ([a-z]+)([^`\n#]*)", TEXTS[name], re.MULTILINE
    ):
        found = cli.get_command(click.Context(cli), command)
        assert found is not None, command
        if isinstance(found, click.Group) and rest.strip():
            subcommand = re.findall(r"[a-z]+", rest)[0]
            assert subcommand in found.commands, f"{command} {subcommand}"
            found = found.commands[subcommand]
        known = {o for p in found.params if isinstance(p, click.Option) for o in p.opts}
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest.partition(" -- ")[0]):
            assert option in known, f"{command} {option}"


def test_the_reference_of_commands_is_what_the_help_says() -> None:
    text = TEXTS["docs/reference/commands.md"]
    assert text == commands_page.page(), "run `python scripts/commands_page.py`"
    named = set(re.findall(r"(?m)^### `patchwheel ([a-z]+)", text))
    assert named == set(cli.list_commands(click.Context(cli)))


def test_the_reference_of_json_is_what_the_records_have() -> None:
    assert TEXTS["docs/reference/json.md"] == json_page.page(), "run `python scripts/json_page.py`"
    assert json.loads(json_page.SCHEMA.read_text()) == json.loads(json.dumps(json_page.schema()))
    jsonschema.Draft202012Validator.check_schema(json_page.schema())
    # Every command that takes --json is there.
    context, told = click.Context(cli), {name.split()[0] for name in json_page.COMMANDS}
    takes = {
        name
        for name in cli.list_commands(context)
        if (command := cli.get_command(context, name))
        and any("--json" in c.opts for sub in subcommands(command) for c in sub.params)
    }
    assert told == takes


def subcommands(command: click.Command) -> list[click.Command]:
    return [command, *(command.commands.values() if isinstance(command, click.Group) else ())]


def test_the_page_of_failures_has_every_exit_code_and_messages_that_there_are() -> None:
    text = TEXTS["docs/reference/failures.md"]
    kinds = {(k.exit_code, k.__name__) for k in PatchwheelError.__subclasses__() if k.exit_code > 1}
    told = re.findall(r"(?m)^\| (\d+) \| .+ \| `(\w+)` \|$", text)
    assert {(int(code), name) for code, name in told} == {*kinds, (1, "PatchwheelError")}
    assert re.findall(r"(?m)^## (\d): ", text) == sorted(str(code) for code, _ in kinds)
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    rows = re.findall(r"(?m)^\| `(.*…?.*?)` \| [^|]+ \|$", text)
    assert len(rows) > 25
    for row in rows:
        for part in filter(None, map(str.strip, row.split("…"))):
            assert part in source, row


def test_the_limits_that_a_variable_sets_are_in_its_reference() -> None:
    text = TEXTS["docs/reference/environment.md"]
    assert text == commands_page.with_variables(text), "run `python scripts/commands_page.py`"
    names = {VARIABLE + row.name.upper() for row in fields(Limits)}
    names |= {"PATCHWHEEL_STORE", settings.URL, settings.TRUST, settings.WRITE}
    others = text.partition("<!-- end of variables -->")[2]
    assert set(re.findall(r"(?m)^\| `(PATCHWHEEL_\w+)` \|", others)) == names


def test_links_between_documents_lead_somewhere() -> None:
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_the_threat_model_names_tests_that_there_are_for_every_promise() -> None:
    rows = re.findall(
        r"^\| (P\d+) \| [^|]+ \| (.+) \|$", TEXTS["docs/reference/threat-model.md"], re.MULTILINE
    )
    assert [name for name, _ in rows] == [f"P{number}" for number in range(1, 23)]
    for promise, cell in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", cell)
        assert named, promise
        for file, test in named:
            text = (ROOT / "tests" / file).read_text()
            assert f"\ndef {test}(" in text, f"{promise}: {file}::{test}"


def test_the_manifest_reference_has_exactly_the_keys_of_the_schema() -> None:
    text = TEXTS[REFERENCE.as_posix()]
    assert with_tables(text) == text
    for record in TABLES.values():
        assert key_table(record) in text


def test_what_ci_runs_are_the_commands_of_the_readme() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    for command in ("./scripts/nox -s tests", "./scripts/nox -s build"):
        assert f"    {command}\n" in TEXTS["README.md"]
        assert f"\n{command}\n" in run


HEADINGS = {
    "SciPy": "scipy",
    "scikit-learn": "scikit-learn",
    "scikit-image": "scikit-image",
    "CuPy": "cupy",
}


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_patch_has_its_place_upstream_told(heading: str) -> None:
    section = TEXTS["docs/series.md"].split(f"\n## {heading}\n")[1].split("\n## ")[0]
    told = re.findall(r"^\*\*(\d{4}), (?:[^*]|\n)+\*\* (?:.+\n)*?.*Upstream", section, re.MULTILINE)
    series = sorted((ROOT / "patches" / HEADINGS[heading]).glob("*.patch"))
    assert told == [path.name[:4] for path in series]


def test_no_patch_of_the_series_waits_for_somebody_elses_pull_request() -> None:
    for path in (ROOT / "patches").glob("*/*.patch"):
        [status] = re.findall(r"^Upstream-Status: (.+)", path.read_text(), re.MULTILINE)
        assert status != "Pending", path
        assert not (status.startswith("Pending") and "/pull/" in status), path
