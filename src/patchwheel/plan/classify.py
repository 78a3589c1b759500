"""What a changed source file makes necessary, judged by itself."""

from __future__ import annotations

import posixpath
import re
from typing import Any, Literal, NamedTuple

from patchwheel.kit import Change, InputError, Repository, parsed_toml
from patchwheel.manifest import BuildInventory
from patchwheel.plan.base import Base
from patchwheel.wheelfile import metadata

PYPROJECT = "pyproject.toml"
METADATA = "METADATA"
FILES = frozenset({"100644", "100755", "000000"})
# Sources, headers and templates: only the build knows which outputs they reach.
CODE = re.compile(
    r".*\.(pyx|pxd|pxi|c|cc|cpp|cxx|c\+\+|h|hh|hpp|hxx|h\+\+|inc|inl|ipp|tcc"
    r"|cu|cuh|cl|f|for|ftn|f77|f90|f95|f03|f08|m|mm|s|asm|i|swg|rs|go|in|tp|tmpl|tpl|template"
    r"|jinja|jinja2|j2|mako|src|build|options|wrap|cmake|pro|def|map|ld"
    r"|sh|pl|awk|bash)|(.*/)?(CMakeLists\.txt|Makefile.*|setup\.(py|cfg)|meson_options\.txt)",
    re.IGNORECASE,
)
PYTHON = re.compile(r".*\.(py|pyi|pyw)")
# Backends put these into the dist-info folder by default patterns.
LEGAL = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)[^/]*", re.IGNORECASE)
EXPLAINED = {
    "documentation": r"(docs?|documentation|examples?|gallery)/.*|[^/]+\.(md|rst|bib|cff)",
    "a test that is not installed": (
        r"tests?/.*|(.*/)?tests?/[^/]*\.py|(.*/)?(test_[^/]*|conftest)\.py"
    ),
    "a benchmark": r"(benchmarks?|asv_bench)/.*|asv\.conf\.json",
    "continuous integration or a developer's tool": (
        r"\.[^/]+/.*|\.[^/]+|ci/.*|(tox|pytest|mypy)\.ini"
    ),
}
Effect = Literal["compile", "trace", "remake", "nothing"]


class Verdict(NamedTuple):
    """`trace`: the outputs that it reaches are found by following it through the build."""

    effect: Effect
    why: str


class Rules:
    """Judges files by what the build of the pin reads and ships; the first rule decides."""

    def __init__(self, inventory: BuildInventory) -> None:
        self.reads = inventory.reads
        self.unwatched = inventory.unwatched
        self.ships = frozenset(inventory.verbatim.values())
        self.shipping = {source.partition("/")[0] for source in self.ships}
        self.running = {posixpath.dirname(path) for path in self.reads if PYTHON.fullmatch(path)}

    def judge(self, change: Change) -> Verdict:
        path, code, python = change.path, CODE.fullmatch(change.path), PYTHON.fullmatch(change.path)
        read, ships = path in self.reads, path in self.ships
        reading = f"the build reads it{', and it ships too' if ships else ''}"
        if self.unwatched and not read:
            read, reading = True, f"{self.unwatched[0]} may read it: no sandbox, so it was not run"
        plain = {change.old.mode, change.new.mode} <= FILES
        helper = python and posixpath.dirname(path) in self.running
        among = path.partition("/")[0] in self.shipping or path.endswith("__init__.py")
        rules: list[tuple[object, Effect, str]] = [
            (not plain, "compile", "it is a link or a submodule"),
            (read and (code or python), "trace", reading),
            # Other files than code may become metadata.
            (read, "compile", reading),
            (code, "trace", "it is code or a template that outputs may be made from"),
            (ships and change.status == "D", "trace", "it ships, and was removed"),
            (ships, "remake", "it ships as it is in the source"),
            (helper, "trace", "it stands beside Python files that the build runs"),
            (LEGAL.fullmatch(path), "compile", "licence files may become metadata of the wheel"),
            (among and change.status != "M", "trace", "it was added or removed where files ship"),
            *((re.fullmatch(p, path), "nothing", f"it is {w}") for w, p in EXPLAINED.items()),
            (True, "compile", "no rule says what it reaches"),
        ]
        return next(Verdict(effect, why) for fits, effect, why in rules if fits)

    def judge_with(self, change: Change, repo: Repository, base: Base) -> Verdict:
        """Judge a change; one of pyproject.toml by its content, if nothing else reads it."""
        if (
            change.path == PYPROJECT
            and not self.unwatched
            and (change.path not in self.reads | self.ships)
        ):
            return _judge_project(repo, change, base)
        return self.judge(change)


def read_projects(repo: Repository, change: Change) -> list[dict[str, Any]]:
    """Return pyproject.toml before and after a change."""
    blobs = repo.read([change.old.oid, change.new.oid])
    texts = [blobs[blob.oid].decode() for blob in (change.old, change.new)]
    projects = [parsed_toml(text) for text in texts]
    if not all(isinstance(project.get("project", {}), dict) for project in projects):
        raise ValueError("its [project] is no table")
    return projects


def _judge_project(repo: Repository, change: Change, base: Base) -> Verdict:
    """Compare pyproject.toml as data: a change of dependency fields is an edit of METADATA."""
    if change.status != "M":
        return Verdict("compile", "it was added or removed")
    try:
        old, new = read_projects(repo, change)
    except ValueError:
        return Verdict("compile", "it cannot be read as TOML")
    if old == new:
        return Verdict("nothing", "its content as TOML is the same")
    before, after = old.get("project", {}), new.get("project", {})
    changed = {f"[{key}]" for key in _differing(old, new)}
    if changed == {"[project]"}:
        keys = _differing(before, after) - set(metadata.EDITABLE)
        changed = {f"[project] {key}" for key in keys}
    if changed:
        return Verdict("compile", f"it changes {', '.join(sorted(changed))}")
    try:
        metadata.set_dependencies(base.wheel.metadata(METADATA), before, after)
    except InputError as err:
        return Verdict("compile", err.message)
    return Verdict("remake", "it changes requirements only")


def _differing(old: dict[str, Any], new: dict[str, Any]) -> set[str]:
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
