"""Headers of a build environment that include what a project has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from patchwheel.plan.system_headers import SystemHeaders
from tests.fixtures import support

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit.store import Store

HEADERS: dict[str, str | bytes | None] = {
    "nvidia/include/groups.h": '#include <cuda/atomic>\n#include "near.h"\n',
    "nvidia/include/near.h": "#include <vector>\n#include <deep/x.h>\n",
    "nvidia/include/deep/x.h": '#include "far/y.h"\n#include "../groups.h"\n',
    "nvidia/lib/groups.h": "#include <never.h>\n",
}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    site = tmp_path / "env" / "lib" / "python3.12" / "site-packages"
    support.write(site, HEADERS)
    return tmp_path / "env"


def test_what_headers_include_is_followed_to_what_a_project_may_have(
    environment: Path, store: Store
) -> None:
    system_headers = SystemHeaders(environment, store)
    expected = {"cuda/atomic", "deep/x.h", "far/y.h"}
    assert system_headers.project_includes("groups.h") == expected
    assert system_headers.project_includes("include/groups.h") == expected
    assert system_headers.project_includes("x.h") == expected
    assert system_headers.project_includes("nowhere.h") == frozenset()


def test_the_walk_through_an_environment_is_remembered(environment: Path, store: Store) -> None:
    SystemHeaders(environment, store).project_includes("groups.h")
    (environment / "lib/python3.12/site-packages/nvidia/include/new.h").write_text("")
    again = SystemHeaders(environment, store)
    assert "new.h" not in again._names()
    assert again.project_includes("near.h") == {"cuda/atomic", "deep/x.h", "far/y.h"}
