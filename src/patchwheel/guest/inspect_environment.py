"""Runs in a composed environment: compares what is installed with what should be.

With the environment's pylock.toml as its only argument it is a container's health check, which
does not read every file.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import importlib
import importlib.util
import io
import json
import re
import sys
import tomllib
import traceback
from importlib import metadata
from pathlib import Path

MODULE = re.compile(r"((?:[^\W\d]\w*/)*[^\W\d]\w*)(?:\.(?:cpython-[\w-]+|abi3))?\.(so|py)")
# These are run, or want what only tests have.
UNIMPORTED = re.compile(r"(.*/)?(tests?/.*|test_[^/]*|conftest|setup|__main__)\.py")
# Of the loader, and of CuPy.
NO_LIBRARY = re.compile(r'([^\s:]+)(?=: cannot open shared object file)|(?<=finding ")[^\s"]+')
# So many files of one distribution are named.
SHOWN = 3


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def header(distribution: metadata.Distribution, name: str) -> str:
    # A broken installation leaves folders without METADATA, for which importlib_metadata raises.
    with contextlib.suppress(FileNotFoundError):
        if name in (found := distribution.metadata):
            return found[name]
    return f"(no {name})"


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


def read_files(distribution: metadata.Distribution) -> tuple[int, list[str]]:
    """Compare the files of a distribution with its RECORD; return how many, and what differs."""
    equal, problems = 0, []
    # Unlike `files`, which leaves out what is not there.
    for name, said, *_ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        algorithm, _, expected = said.partition("=")
        if not expected:
            continue
        try:
            data = Path(str(distribution.locate_file(name))).read_bytes()
            found = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).decode()
            if found.rstrip("=") == expected.rstrip("="):
                equal += 1
            else:
                problems.append(f"{name} is not what was installed")
        except (OSError, ValueError) as err:
            problems.append(f"{name} cannot be read: {getattr(err, 'strerror', None) or err}")
    if not equal:
        problems.append("has no RECORD of its files")
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return equal, [f"{name_of(distribution)}: {p}" for p in [*problems[:SHOWN], *more]]


def remade_modules(distribution: metadata.Distribution) -> list[str]:
    """Return the modules of a wheel of ours that are not upstream's files."""
    record = json.loads(distribution.read_text("patchwheel.json") or "{}")
    rows = [row["path"] for row in record.get("remade", ()) if row["action"] != "remove"]
    found = []
    for path in dict.fromkeys([*rows, *record.get("compiled", {}).get("built", ())]):
        match = None if UNIMPORTED.fullmatch(path) else MODULE.fullmatch(path)
        name = match[1].replace("/", ".").removesuffix(".__init__") if match else ""
        start = f"PyInit_{name.rpartition('.')[2]}".encode()
        file = Path(str(distribution.locate_file(path)))
        # A library is no module, and one that is not there is the RECORD's.
        if match and file.is_file() and (match[2] == "py" or start in file.read_bytes()):
            found.append(name)
    return found


def is_source(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and str(spec.origin).endswith(".py")


def import_remade(name: str, owned: dict[str, str], files: set[str]) -> tuple[str, str]:
    """Import a remade module; return the problem, or else why it need not import here."""
    try:
        importlib.import_module(name)
    except BaseException as err:  # noqa: BLE001  (whatever an import raises is a finding)
        last = traceback.format_exc().rstrip().splitlines()[-1]
        library = NO_LIBRARY.search(str(err))
        absent = (err.name or "").partition(".")[0] if isinstance(err, ModuleNotFoundError) else ""
        if library and Path(library[0]).name not in files:
            return "", f"it needs {library[0]}, which is not installed"
        if absent and absent not in owned and importlib.util.find_spec(absent) is None:
            return "", f"it needs {absent}, which is not installed"
        # One for another system says so. The errors of the import system have a name, and compiled
        # modules do not choose their system.
        if type(err) is ImportError and err.name is None and is_source(name):
            return "", f"it says {err}"
        return f"{name} cannot be imported: {last}", ""
    return "", ""


def inspect(
    expected: dict[str, str], forks: list[str], compared: list[str] | None = None
) -> tuple[list[str], list[str]]:
    """Return the problems and what was checked.

    The distributions in `compared` are read, all of them for None.
    """
    everything = list(metadata.distributions())
    installed = [(name_of(d), header(d, "Version")) for d in everything]
    problems = versions(installed, expected)
    ours = [d for d in everything if name_of(d) in forks]
    owned = {name: name_of(d) for d in ours for name in modules(d)}
    for other in everything:
        owner = name_of(other)
        shared = [n for n in modules(other) if owned.get(n, owner) != owner]
        problems += [f"{owner} overwrites {n}, which is {owned[n]}'s" for n in shared]
    read = [d for d in everything if compared is None or name_of(d) in compared]
    counts, differences = zip(*map(read_files, read), strict=True) if read else ((), ())
    problems += [line for lines in differences for line in lines]
    broken = imports(list(owned))
    of = f"{len(read)} distribution{'s' * (len(read) != 1)}"
    checked = [f"{sum(counts)} files of {of} equal RECORD"] if read else []
    lacking: list[str] = []
    # One that a broken package holds would say the same again.
    whole = {name for name in owned if not any(line.startswith(f"{name} ") for line in broken)}
    names = [n for d in ours for n in remade_modules(d) if n.partition(".")[0] in whole]
    files = {f.name for d in ours for f in d.files or ()}
    for name in names:
        problem, lack = import_remade(name, owned, files)
        broken += [problem] if problem else []
        lacking += [f"{name} was not imported: {lack}"] if lack else []
    count = len(names) - len(lacking)
    checked += [f"imported {count} remade module{'s' * (count != 1)}", *lacking]
    return problems + broken, checked


def read_pylock(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the versions in a pylock.toml, and the names of our wheels, the local files."""
    rows = tomllib.loads(text)["packages"]
    expected = {normal(row["name"]): row["version"] for row in rows}
    return expected, [normal(row["name"]) for row in rows if "archive" in row]


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text()
    if len(sys.argv) == 2:  # noqa: PLR2004
        sys.exit("\n".join(inspect(*read_pylock(text), [])[0]) or None)
    question = json.loads(text)
    found = inspect(question["expected"], question["forks"], question["compared"])
    Path(sys.argv[2]).write_text(json.dumps(found))
