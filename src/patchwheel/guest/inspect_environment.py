"""Runs in a composed environment: compares what is installed with what should be.

With the environment's pylock.toml as its only argument it is a container's health check.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import sys
import tomllib
import traceback
from importlib import metadata
from pathlib import Path


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def header(distribution: metadata.Distribution, name: str) -> str:
    # A broken installation leaves folders without METADATA.
    found = distribution.metadata
    return found[name] if name in found else f"(no {name})"  # noqa: SIM401  (its type has no `get`)


def name_of(distribution: metadata.Distribution) -> str:
    return normal(header(distribution, "Name"))


def modules(distribution: metadata.Distribution) -> list[str]:
    """Return the importable names at the top of a distribution."""
    found = set()
    for file in distribution.files or ():
        top = file.parts[0]
        if len(file.parts) > 1 and file.parts[1] == "__init__.py":
            found.add(top)
        elif len(file.parts) == 1 and file.suffix in {".py", ".so"}:
            found.add(top.partition(".")[0])
    return sorted(name for name in found if name.isidentifier())


def versions(installed: list[tuple[str, str]], expected: dict[str, str]) -> list[str]:
    problems = []
    found: dict[str, str] = {}
    for name, version in installed:
        if name in found:
            problems.append(f"{name} is there twice: {found[name]} and {version}")
        found[name] = version
    for name, version in sorted(expected.items()):
        if name not in found:
            problems.append(f"{name} {version} is missing")
        elif found[name] != version:
            problems.append(f"{name} is {found[name]}, expected {version}")
    extra = sorted(found.keys() - expected.keys())
    problems += [f"{name} {found[name]} does not belong here" for name in extra]
    return problems


def imports(names: list[str]) -> list[str]:
    problems = []
    for name in names:
        try:
            module = importlib.import_module(name)
            if name == "cupy":
                with contextlib.redirect_stdout(io.StringIO()):
                    module.show_config()
        except BaseException:  # noqa: BLE001  (whatever an import raises is a finding)
            last = traceback.format_exc().splitlines()[-1]
            problems.append(f"{name} cannot be imported: {last}")
    return problems


def inspect(expected: dict[str, str], forks: list[str]) -> list[str]:
    everything = list(metadata.distributions())
    installed = [(name_of(d), header(d, "Version")) for d in everything]
    problems = versions(installed, expected)
    owned = {name: name_of(d) for d in everything if name_of(d) in forks for name in modules(d)}
    for other in everything:
        owner = name_of(other)
        shared = [n for n in modules(other) if owned.get(n, owner) != owner]
        problems += [f"{owner} overwrites {n}, which is {owned[n]}'s" for n in shared]
    return problems + imports(list(owned))


def read_pylock(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the versions in a pylock.toml, and the names of our wheels, the local files."""
    rows = tomllib.loads(text)["packages"]
    expected = {normal(row["name"]): row["version"] for row in rows}
    return expected, [normal(row["name"]) for row in rows if "archive" in row]


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text()
    if len(sys.argv) == 2:  # noqa: PLR2004
        sys.exit("\n".join(inspect(*read_pylock(text))) or None)
    question = json.loads(text)
    found = inspect(question["expected"], question["forks"])
    Path(sys.argv[2]).write_text(json.dumps(found))
