"""Read forks.toml. A manifest that was loaded is valid; nobody checks it again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from patchwheel.kit import InvalidDataError, ManifestError, PlainReader, Problem, refuse
from patchwheel.manifest.convert import make_reader, read_file
from patchwheel.manifest.model import (
    SCHEMA,
    SOURCES,
    Fork,
    ForkTable,
    Manifest,
    ManifestTable,
    UpstreamWheel,
)

HINT = "correct the manifest; docs/reference/manifest.md describes its keys"
TABLE = r"\s*\[([^\[\]]+)\]\s*(#.*)?$"
KEY = r"\s*([A-Za-z0-9_\"'.-]+)\s*="


def load_manifest(path: Path) -> Manifest:
    """Read forks.toml; the error names every problem with its file, line and key."""
    hint = "`patchwheel init` writes one; --manifest names another file"
    data = read_file(path, "TOML", missing="there is no such manifest", hint=hint)
    try:
        return _manifest(path.absolute(), data)
    except InvalidDataError as err:
        raise _report(path.absolute(), err.problems) from err


def _manifest(path: Path, data: dict[str, Any]) -> Manifest:
    schema = data.get("schema")
    # The rest of another schema would be full of unknown keys. True == 1.
    if schema != SCHEMA or schema is True:
        message = f"is {schema!r}" if "schema" in data else "is missing"
        refuse(message, f"schema = {SCHEMA}", ("schema",))
    reader = make_reader({ForkTable: _structure_fork})
    whole: ManifestTable = reader.structure(data, ManifestTable)
    forks = {
        name: _with_variants(name, table, {**data["forks"][name]}, path.parent, reader)
        for name, table in whole.forks.items()
    }
    manifest = Manifest(path=path, environment=whole.environment, forks=MappingProxyType(forks))
    _fail(_check_names(manifest))
    return manifest


def _structure_fork(value: object, reader: PlainReader) -> ForkTable:
    table: ForkTable = reader.record(value, ForkTable)
    _fail(_check(table))
    return table


def _fail(problems: Iterable[Problem]) -> None:
    if found := [*problems]:
        raise InvalidDataError(*found)


def _check(table: ForkTable) -> Iterator[Problem]:
    if not any(all(getattr(table, key) for key in keys) for keys in SOURCES):
        yield Problem("pins no source", "an `sdist`, or `git` with a full `commit`")
    variants = [(("variants", name), options) for name, options in table.variants.items()]
    for at, options in ((), table), *variants:
        for program in options.without.keys() - (options.programs or table.programs):
            at_program = (*at, "without", program)
            yield Problem("is not listed", "a program that `programs` names", at_program)


def _check_names(manifest: Manifest) -> Iterator[Problem]:
    # By the name of the wheel: an environment has one distribution of each name.
    owners: dict[str, str] = {}
    for fork in manifest.all_variants:
        owner = owners.setdefault(fork.distribution, fork.lock_key)
        if owner != fork.lock_key:
            problem = f"makes a wheel named {fork.distribution!r}, as {owner} does"
            yield Problem(problem, "another name for each wheel", ("forks", fork.name))


def _with_variants(
    name: str, table: ForkTable, data: dict[str, Any], root: Path, reader: PlainReader
) -> Fork:
    """Return the fork as its first variant, or as itself if it has none."""

    def fork(table: ForkTable, variant: str = "") -> Fork:
        values = {f.name: getattr(table, f.name) for f in fields(table)}
        # The file may say `false`; without the key, the wheel has the name of the fork.
        wheel = UpstreamWheel() if table.upstream_wheel is None else table.upstream_wheel
        named = replace(wheel, distribution=wheel.distribution or name) if wheel else None
        values["upstream_wheel"] = named
        return Fork(**values, name=name, patches=root / "patches" / name, variant=variant)

    variants: dict[str, Fork] = {}
    for variant, own in data.pop("variants", {}).items():
        # Only `env` is merged; any other key of the variant replaces that of the fork.
        env = data.get("env", {}) | own.get("env", {})
        # The lock has the first under the name of the fork.
        merged = reader.record({**data, **own, "env": env}, ForkTable)
        variants[variant] = fork(merged, variant if variants else "")
    if not variants:
        return fork(table)
    return replace(next(iter(variants.values())), variants=MappingProxyType(variants))


def _report(path: Path, problems: Iterable[Problem]) -> ManifestError:
    """Return one error for all problems, in the order of the file."""
    text = path.read_text(encoding="utf-8")
    lines = {problem: line_of(text, problem.at) for problem in problems}
    # Last come problems without a line: what is missing altogether.
    first, *others = sorted(lines, key=lambda p: (lines[p] is None, lines[p] or 0, p.at))
    where = {p: f"{path}:{line}" if line else str(path) for p, line in lines.items()}
    if not others:
        return ManifestError(str(first), where=where[first], expected=first.expected, hint=HINT)
    rows = {p: f"{p}; expected {p.expected}" if p.expected else str(p) for p in lines}
    # The error itself names the place of the first.
    message = "\n".join([rows[first], *(f"{where[p]}: {rows[p]}" for p in others)])
    return ManifestError(message, where=where[first], hint=HINT)


def line_of(text: str, at: Sequence[str]) -> int | None:
    """Return the line of a path of keys, or of the longest part of it that can be seen."""
    table: tuple[str, ...] = ()
    depth, line = 0, None
    # tomllib keeps no positions, so lines are matched, as far as people write them.
    for number, row in enumerate(text.splitlines(), 1):
        if head := re.match(TABLE, row):
            seen = table = _parts(head[1])
        elif key := re.match(KEY, row):
            seen = (*table, *_parts(key[1]))
            # An inline table shows its keys on the same line.
            inside = at[len(seen) : len(seen) + 1]
            seen = (*seen, *(part for part in inside if part in row))
        else:
            continue
        shared = min(len(seen), len(at))
        if shared > depth and tuple(at[:shared]) == seen[:shared]:
            depth, line = shared, number
    return line


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))
