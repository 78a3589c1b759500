"""What one changed source file can reach: the first rule that applies decides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patchwheel.kit import Change
    from patchwheel.manifest import BuildInventory

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
    "documentation": re.compile(
        r"(docs?|documentation|examples?|gallery)/.*|[^/]+\.(md|rst|bib|cff)"
    ),
    "a test that is not installed": re.compile(
        r"tests?/.*|(.*/)?tests?/[^/]*\.py|(.*/)?(test_[^/]*|conftest)\.py"
    ),
    "a benchmark": re.compile(r"(benchmarks?|asv_bench)/.*|asv\.conf\.json"),
    "continuous integration or a developer's tool": re.compile(
        r"\.[^/]+/.*|\.[^/]+|ci/.*|(tox|pytest|mypy)\.ini"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`trace`: the outputs that it reaches are found by following it through the build."""

    effect: Literal["compile", "trace", "remake", "nothing"]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The survey, arranged for questions about source files."""

    ships: Mapping[str, list[str]]
    reads: frozenset[str]
    shipping: frozenset[str]
    running: frozenset[str]


def arrange(survey: BuildInventory) -> Facts:
    ships: dict[str, list[str]] = {}
    for output, source in survey.verbatim.items():
        ships.setdefault(source, []).append(output)
    return Facts(
        ships=ships,
        reads=survey.reads,
        shipping=frozenset(s.partition("/")[0] for s in ships),
        running=frozenset(_folder(r) for r in survey.reads if PYTHON.fullmatch(r)),
    )


def judge(change: Change, facts: Facts) -> Verdict:
    """Say what a change to one file makes necessary."""
    path = change.path
    if not {change.old.mode, change.new.mode} <= FILES:
        return _compile("it is a link or a submodule")
    if path in facts.reads:
        both = ", and it ships too" if path in facts.ships else ""
        return _built(path, f"the build reads it{both}")
    if CODE.fullmatch(path):
        return _trace("it is code or a template that outputs may be made from")
    if path in facts.ships:
        if change.status == "D":
            return _trace("it ships, and was removed")
        return Verdict(effect="remake", why="it ships as it is in the source")
    return _judge_unshipped(change, facts)


def _judge_unshipped(change: Change, facts: Facts) -> Verdict:
    path = change.path
    if PYTHON.fullmatch(path) and _folder(path) in facts.running:
        return _trace("it stands beside Python files that the build runs")
    if LEGAL.fullmatch(path):
        return _compile("licence files may become part of the wheel's metadata")
    if change.status != "M" and (
        path.partition("/")[0] in facts.shipping or path.endswith("__init__.py")
    ):
        return _trace("it was added or removed where files ship")
    for what, pattern in EXPLAINED.items():
        if pattern.fullmatch(path):
            return Verdict(effect="nothing", why=f"it is {what}")
    return _compile("no rule says what it reaches")


def _built(path: str, why: str) -> Verdict:
    """Judge a file that the build reads; other files than code may become metadata."""
    return _trace(why) if CODE.fullmatch(path) or PYTHON.fullmatch(path) else _compile(why)


def _trace(why: str) -> Verdict:
    return Verdict(effect="trace", why=why)


def _compile(why: str) -> Verdict:
    return Verdict(effect="compile", why=why)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
