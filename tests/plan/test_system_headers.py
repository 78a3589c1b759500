"""Headers of a build environment that include what a project has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from patchwheel.plan.graph import Graph
from patchwheel.plan.scan_references import SYSTEM, list_headers, scan_header
from tests.fixtures import support

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.store import Store

PACKAGES = "lib/python3.12/site-packages"
HEADERS = {
    "nvidia/include/groups.h": '#include <cuda/atomic>\n#include "near.h"\n',
    "nvidia/include/near.h": "#include <vector>\n#include <deep/x.h>\n",
    "nvidia/include/deep/x.h": '#include "far/y.h"\n#include "../groups.h"\n',
    "nvidia/lib/groups.h": "#include <never.h>\n",
}
PROJECT = {f"own/{name}" for name in ("cuda/atomic", "deep/x.h", "far/y.h", "never.h", "vector")}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    support.write(tmp_path / "env", {f"{PACKAGES}/{name}": text for name, text in HEADERS.items()})
    return tmp_path / "env"


def reached(environment: Path, store: Store, end: str) -> set[str]:
    """Return what a source file with one reference reaches of the project."""
    headers = list_headers(environment, store)

    def references(path: str) -> set[str]:
        if not path.startswith(SYSTEM):
            return {end} if path == "a.cu" else set()
        text = (environment / PACKAGES / path.removeprefix(SYSTEM)).read_text()
        return scan_header(path, text, headers)

    files = {"a.cu", *PROJECT}
    graph = Graph((), files, references, opened={}, fully_traced=frozenset(), headers=headers)
    return {path.removeprefix("own/") for path in graph.reach("a.cu").contents - {"a.cu"}}


@pytest.mark.parametrize("end", ["groups.h", "include/groups.h", "x.h"])
def test_what_headers_include_is_followed_to_what_a_project_may_have(
    environment: Path, store: Store, end: str
) -> None:
    assert reached(environment, store, end) == {"cuda/atomic", "deep/x.h", "far/y.h"}


@pytest.mark.parametrize("end", ["nowhere.h", "*/groups.h"])
def test_what_no_header_or_only_a_template_names_is_not_followed(
    environment: Path, store: Store, end: str
) -> None:
    assert reached(environment, store, end) == set()


def test_the_walk_through_an_environment_is_remembered(environment: Path, store: Store) -> None:
    found = list_headers(environment, store)
    (environment / PACKAGES / "nvidia/include/new.h").write_text("")
    assert list_headers(environment, store) == found
    assert reached(environment, store, "near.h") == {"cuda/atomic", "deep/x.h", "far/y.h"}
