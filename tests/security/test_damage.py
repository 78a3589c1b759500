"""P6: what is damaged in the store or in dist/ is never used, is made again, and is told."""

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patchwheel.build.inputs import interface
from patchwheel.kit.integrity import damage, keep_sound
from patchwheel.kit.repo import Repository
from patchwheel.kit.store import Store
from patchwheel.plan.scan_references import list_headers
from tests.fixtures import projects, support
from tests.fixtures.projects import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A project with a base wheel, all made: each test damages it, and it is made whole again."""
    folder = tmp_path_factory.mktemp("damage")
    made = projects.make_site(folder, {})
    wheel = folder / "w" / "demo-1.0-py3-none-any.whl"
    files = [*(folder / "shelf").glob("*.whl"), *(folder / "shelf").glob("*.tar.gz"), wheel]
    support.make_index(made.shelf / "simple", *files)
    table = (
        (made.root / "forks.toml")
        .read_text()
        .replace("upstream-wheel = false", 'programs = ["gcc"]')
    )
    (made.root / "forks.toml").write_text(table)
    return made


@pytest.fixture(scope="module")
def honest(site: Site) -> dict[tuple[str, ...], dict[str, bytes]]:
    """What is in dist/ after an undisturbed build of each route."""
    site.run("lock")
    found: dict[tuple[str, ...], dict[str, bytes]] = {}
    for words in ROUTES:
        site.run("build", *words)
        found[words] = wheels(site)
    site.run("env")
    return found


ROUTES: tuple[tuple[str, ...], ...] = ((), ("--from-source",))


def wheels(site: Site) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (site.root / "dist").iterdir()}


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """Let any user write a file, as only root may write what git keeps."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    yield
    path.chmod(mode)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    with written(path):
        path.write_bytes(data)


def flip_unseen(path: Path) -> None:
    """As `flip`, with the date of before: only ctime tells."""
    info = path.stat()
    flip(path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def cut(path: Path) -> None:
    with written(path):
        os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    with written(path):
        os.truncate(path, 0)


def lose(path: Path) -> None:
    path.unlink()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WAYS = (flip, flip_unseen, cut, empty, lose, replace_by_folder)
PLACES = {
    "a wheel": "wheels/*/*.whl",
    "a wheel's list": "wheels/*/files.json",
    "a wheel's record": "wheels/*/entry.json",
    "the base wheel": "files/*/*.whl",
    "the sdist": "files/*/*.tar.gz",
    "a build environment": "build-envs/*/lib/python3*/site-packages/*/METADATA",
    "a build environment's settings": "build-envs/*/pyvenv.cfg",
    "an environment": "environments/*/lib/python3*/site-packages/demo-*/METADATA",
    "an environment's settings": "environments/*/pyvenv.cfg",
    "a pack": "git/*.git/objects/pack/*.pack",
    "an index of a pack": "git/*.git/objects/pack/*.idx",
    "a git index": "git/*.git/patchwheel/index-*",
    "a ref": "git/*.git/refs/patchwheel/source/*",
    "git's configuration": "git/*.git/config",
    "git's attributes": "git/*.git/info/attributes",
    "git's HEAD": "git/*.git/HEAD",
    "the memo of a source": "memo/source/*.json",
    "the memo of a patched tree": "memo/tree/*.json",
    "the memo of a plan": "memo/plan/*.json",
    "the memo of an interpreter": "memo/interpreter/*.json",
    "the memo of bases": "memo/bases/*.json",
}


def chosen(place: str) -> Callable[[Path], None]:
    """One way for each place; the heavy test tries all of them."""
    return WAYS[list(PLACES).index(place) % len(WAYS)]


def used(site: Site, honest: dict[tuple[str, ...], dict[str, bytes]], kind: str) -> str:
    """Let everything of a kind be used again; return what was said."""
    shutil.rmtree(site.root / "dist", ignore_errors=True)
    if kind == "files":
        shutil.rmtree(site.store / "git")
    if kind != "wheels":
        shutil.rmtree(site.store / "wheels", ignore_errors=True)
    said = ""
    for words in ROUTES if kind in {"wheels", "build-envs"} else ROUTES[:1]:
        status, told = site.tried("build", *words)
        assert status == 0, told
        assert wheels(site) == honest[words]
        said += told
    if kind == "environments":
        status, told = site.tried("env")
        assert status == 0, told
        said += told
    return said


def damaged(site: Site, place: str, way: Callable[[Path], None]) -> str:
    """Damage the first file of a place; return its kind."""
    [path, *_] = sorted(site.store.glob(PLACES[place]))
    way(path)
    return path.relative_to(site.store).parts[0]


@pytest.mark.parametrize("place", PLACES)
def test_what_is_damaged_is_never_used_and_made_again(
    site: Site, honest: dict[tuple[str, ...], dict[str, bytes]], place: str
) -> None:
    used(site, honest, damaged(site, place, chosen(place)))
    assert "again" not in used(site, honest, "wheels")


@pytest.mark.parametrize("place", PLACES)
def test_verify_finds_damage_of_every_kind(
    site: Site, honest: dict[tuple[str, ...], dict[str, bytes]], place: str
) -> None:
    store = Store(site.store)
    _ = dict(damage(store))
    way = WAYS[-1 - list(PLACES).index(place) % len(WAYS)]
    kind = damaged(site, place, way)
    found = dict(damage(store))
    # What is not there at all is made when it is needed: nothing is wrong then.
    lost = place == "a ref" or (kind == "memo" and way is lose)
    assert [name.split("/")[0] for name in found] in ([kind], [kind][lost:])
    assert dict(damage(store)) == {}
    used(site, honest, kind)


def test_a_folder_where_an_environment_has_a_file_of_ours_is_damage(
    site: Site, honest: dict[tuple[str, ...], dict[str, bytes]]
) -> None:
    store = Store(site.store)
    [environment, *_] = store.root.glob("environments/*/links")
    replace_by_folder(environment)
    used(site, honest, "environments")
    [environment, *_] = store.root.glob("environments/*/pylock.toml")
    replace_by_folder(environment)
    assert [why for _, why in damage(store)] == ["pylock.toml is no regular file; removed"]
    used(site, honest, "environments")


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["wheels", "files", "build-envs", "environments", "git", "memo"])
def test_any_damage_is_never_used(
    site: Site, honest: dict[tuple[str, ...], dict[str, bytes]], kind: str
) -> None:
    """A hundred seeded places of each kind."""
    chance = random.Random(f"{kind}")
    for _ in range(100):
        files = sorted(
            p for p in (site.store / kind).rglob("*") if p.is_file() and p.stat().st_size
        )
        path, way = chance.choice(files), chance.choice(WAYS)
        name = path.relative_to(site.store)
        if path.resolve().is_relative_to(site.store):
            way(path)
            said = used(site, honest, kind)
            assert "Traceback" not in said, f"{name}: {way.__name__}"
    assert "again" not in used(site, honest, "wheels")


@pytest.mark.parametrize("name", ["thing.whl", "beside.whl"])
def test_a_file_is_the_one_that_its_key_names_even_if_its_entry_agrees(
    store: Store, name: str
) -> None:
    """Who writes the store can make an entry anew, with a list that is true of its files."""
    good = b"good"
    key = support.sha256(good)

    def forge(folder: Path) -> None:
        support.write(folder, {"thing.whl": good, name: "evil"})

    Store(store.root).get("files", key, forge)

    def honest(folder: Path) -> None:
        (folder / "thing.whl").write_bytes(good)

    found = store.get("files", key, honest)
    assert {path.name: path.read_bytes() for path in found.glob("*.whl")} == {"thing.whl": good}


def test_a_memo_of_another_form_is_made_again(store: Store, tmp_path: Path) -> None:
    """As another version of patchwheel, or who writes the store, may leave it, sealed."""
    header = "lib/python3.12/site-packages/pw/include/pw.h"
    support.write(tmp_path, {f"environment/{header}": ""})
    wheel = support.make_wheel(tmp_path, "pw", "1.0", {"pw.h": ""})
    asked: list[Callable[[], object]] = [
        lambda: list_headers(tmp_path / "environment", store),
        lambda: interface(wheel, store),
    ]
    found = [ask() for ask in asked]
    for kind in ("headers", "interface"):
        [memo] = (store.root / "memo" / kind).iterdir()
        store.remember(kind, memo.stem, {"other": [] if kind == "headers" else ""})
    assert [ask() for ask in asked] == found
    assert found[0] == {"<pw/include/pw.h"}


def test_what_a_ref_of_a_partial_clone_lacks_is_damage_and_no_reason_to_fetch(
    store: Store, report: support.Recorder, tmp_path: Path
) -> None:
    store.ensure()
    upstream, git_dir = tmp_path / "upstream", store.root / "git" / "demo.git"
    support.make_upstream(upstream, {"a": "1"})
    support.git(upstream, "config", "uploadpack.allowFilter", "true")
    Repository.bare(git_dir)
    support.git(git_dir, "config", "remote.upstream.url", f"file://{upstream}")
    refs = ("refs/heads/*:refs/heads/*", "--filter=blob:none")
    support.git(git_dir, "fetch", "-q", "upstream", *refs)
    keep_sound(Store(store.root), git_dir)
    lacking = support.make_upstream(upstream, {"a": "2"})
    (git_dir / "refs" / "heads" / "later").write_text(f"{lacking}\n")
    keep_sound(store, git_dir)
    assert not git_dir.exists()
    [said] = report.lines
    assert "store: git/demo.git: git finds it damaged: error: refs/heads/later" in said
