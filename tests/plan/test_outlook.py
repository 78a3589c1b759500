"""What `plan` says would happen now: nothing, a copy, or what changed since the last build."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.fixtures import support
from tests.fixtures.projects import Site, lines, release

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
        "pin": None,
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
    # A message is no part of the key, and the patch is said to have no other.
    patch = site.patches / "0010-a.patch"
    patch.write_bytes(patch.read_bytes().replace(b"Pending", b"Denied [no]"))
    changed = {"patches": ["0010-a.patch (message changed)"], "parts": ["flags (changed)"]}
    assert plan(site)["changed"] == {"pin": None, "files": [], **changed}
    said = site.run("plan")
    assert "    patch 0010-a.patch (message changed)\n    key part flags (changed)\n" in said


def test_the_pin_of_before_is_named(site: Site) -> None:
    site.build()
    files = [path for path in site.shelf.iterdir() if path.is_file()]
    manifest = (site.root / "forks.toml").read_text()
    sha256 = support.sha256(site.shelf / "demo-1.0.tar.gz")
    # The other files of the same version, as of another commit, have another tree alone.
    same = r"1\.0 \(tree \w{12}\) to 1\.0 \(tree \w{12}\)"
    for version, expected in (("1.0", same), ("1.5", r"1\.0 to 1\.5")):
        new = release(site.root.parent, version, {"a": lines(l5="theirs"), "b": lines()})
        support.make_index(site.shelf / "simple", *files, new)
        text = manifest.replace("1.0", version).replace(sha256, support.sha256(new))
        (site.root / "forks.toml").write_text(text)
        site.run("lock")
        assert re.search(rf"(?m)^    pin {expected}$", site.run("plan"))
        assert re.fullmatch(expected, plan(site)["changed"]["pin"])
