"""What `plan` says would happen now: nothing, a copy, or what changed since the last build."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.fixtures.projects import Site

SCHEMA = json.loads((files("patchwheel.plan") / "plan.schema.json").read_text())


@pytest.fixture
def site(locked_site: Site, tmp_path: Path) -> Site:
    return locked_site.apart(tmp_path)


def plan(site: Site) -> dict[str, Any]:
    found = json.loads(site.run("plan", "--json"))
    jsonschema.validate(found, SCHEMA)
    [row] = found
    assert isinstance(row, dict)
    return row


def test_a_plan_says_what_changed_since_the_last_build(site: Site) -> None:
    before = plan(site)
    assert (before["state"], before["last"]) == ("to-make", None)
    first = site.build().name.split("-")[1]
    now = plan(site)
    assert (now["state"], now["last"]["version"]) == ("up-to-date", first)
    assert now["last"]["seconds"] > 0
    assert f"demo {first}: up to date, made in " in site.run("plan")
    patch, series = site.patches / "0020-b.patch", site.patches / "series"
    text, order = patch.read_text(), series.read_text()
    patch.unlink()
    series.write_text(order.replace("0020-b.patch\n", ""))
    changed = plan(site)
    assert (changed["state"], changed["last"]["version"]) == ("to-make", first)
    assert changed["changed"] == {
        "patches": ["0020-b.patch (removed)"],
        "files": ["b (changed)"],
        "parts": [],
    }
    said = site.run("plan")
    assert f"  since the last build ({first}, made in " in said
    assert "    patch 0020-b.patch (removed)\n    file b (changed)\n" in said
    second = site.build().name.split("-")[1]
    # The wheel of before is in the store, and no longer in dist/.
    patch.write_text(text)
    series.write_text(order)
    again = plan(site)
    assert (again["state"], again["last"]["version"]) == ("stored", second)
    assert again["changed"]["patches"] == ["0020-b.patch (new)"]
    assert f"demo {first}: made before, only copied to dist/" in site.run("plan")
    # A wheel that patchwheel did not make tells nothing.
    [wheel] = (site.root / "dist").glob("*.whl")
    wheel.write_bytes(b"")
    assert plan(site)["last"] is None
    path = site.root / "forks.toml"
    path.write_text(path.read_text().replace('label = "arrayapi"', 'label = "other"'))
    assert plan(site)["last"] is None


def test_a_changed_part_of_the_key_is_named(site: Site) -> None:
    site.build()
    path = site.root / "forks.toml"
    path.write_text(f'{path.read_text()}env = {{ A = "1" }}\n')
    site.run("lock")
    assert plan(site)["changed"] == {"patches": [], "files": [], "parts": ["flags (changed)"]}
    assert "    key part flags (changed)\n" in site.run("plan")
