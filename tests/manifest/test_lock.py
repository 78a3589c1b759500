import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from patchwheel.kit.errors import MachineError, ManifestError
from patchwheel.kit.uv import Distribution
from patchwheel.manifest.inventory import BuildInventory
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.lock import (
    BaseWheel,
    EnvironmentLock,
    ForkBuild,
    ForkLock,
    Lock,
    build_settings,
    environment_inputs,
    environment_key,
    load_lock,
    save_lock,
)
from patchwheel.manifest.model import Manifest
from tests.fixtures.support import another_machine, make_manifest

SHA = "5" * 64
NUMPY = Distribution(name="numpy", version="2.5.5", hashes=("1" * 64, "2" * 64))
CYTHON = Distribution(name="cython", version="3.2.4", hashes=("3" * 64,))
INVENTORY = BuildInventory(
    verbatim={
        "tiny/__init__.py": "src/tiny/__init__.py",
        "tiny/sub/data.txt": "src/tiny/sub/data.txt",
        "tiny/moved.py": "other/name.py",
        "top.py": "src/top.py",
    },
    built=frozenset({"tiny/_ext.so", "tiny/_version.py"}),
    reads=frozenset({"meson.build", "src/tiny/_ext.pyx", "tools/generate.py"}),
)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    sdist = f'sdist = {{ filename = "tiny-1.0.tar.gz", sha256 = "{SHA}" }}'
    return load_manifest(make_manifest(tmp_path, {"tiny": f'version = "1.0"\n{sdist}\n'}))


@pytest.fixture
def lock(manifest: Manifest) -> Lock:
    build = ForkBuild(
        build_requires=(CYTHON, NUMPY),
        base=BaseWheel(filename="tiny.whl", sha256=SHA, made_with={"cython": "3.2.4"}),
        inventory=INVENTORY,
    )
    return Lock(
        path=manifest.lock_path,
        environments={
            "3.12": EnvironmentLock(
                inputs=environment_inputs(manifest),
                packages=(NUMPY,),
                groups={"gpu": (CYTHON,), "test": ()},
            )
        },
        forks={
            "tiny": ForkLock(
                pin=manifest.forks["tiny"].pin,
                settings=build_settings(manifest.forks["tiny"]),
                tree="a" * 40,
                commit=None,
                patches={"0010-x.patch": SHA},
                builds={"3.12": build, "3.13": replace(build, base=None)},
            )
        },
    )


def test_what_is_saved_is_what_is_loaded(lock: Lock) -> None:
    save_lock(lock)
    assert load_lock(lock.path) == lock


def test_the_same_lock_is_the_same_bytes_in_whatever_order_it_came(lock: Lock) -> None:
    save_lock(lock)
    first = lock.path.read_bytes()
    tiny = lock.forks["tiny"]
    build = tiny.builds["3.12"]
    shuffled = replace(
        build,
        build_requires=(replace(NUMPY, hashes=NUMPY.hashes[::-1]), CYTHON),
        inventory=replace(
            INVENTORY,
            verbatim=dict(list(INVENTORY.verbatim.items())[::-1]),
            built=frozenset(sorted(INVENTORY.built, reverse=True)),
        ),
    )
    builds = {"3.13": tiny.builds["3.13"], "3.12": shuffled}
    save_lock(replace(lock, forks={"tiny": replace(tiny, builds=builds)}))
    assert lock.path.read_bytes() == first


def test_the_lock_reads_well_in_a_review(lock: Lock) -> None:
    save_lock(lock)
    text = lock.path.read_text()
    assert f'["cython", "3.2.4", "{"3" * 64}"]' in text
    assert text.endswith("}\n")
    # What configuring revealed is not for people.
    assert "data.txt" not in text
    text = lock.path.with_suffix(".inventory").read_text()
    assert '"source-root": "src/"' in text
    assert '"tiny/sub": ["data.txt"]' in text


def test_a_distribution_is_written_once(lock: Lock) -> None:
    """Another Python adds the hashes of what it alone has."""
    tiny, environment = lock.forks["tiny"], lock.environments["3.12"]
    build = tiny.builds["3.12"]
    other = replace(NUMPY, hashes=("7" * 64,))
    newer = replace(environment, packages=(other,), groups={"test": (CYTHON,)})
    # A file of NumPy's was added while one fork was locked already.
    later = replace(build, build_requires=(CYTHON, replace(NUMPY, hashes=("8" * 64,))))
    given = replace(
        lock,
        environments={**lock.environments, "3.13": newer, "3.13:rocm": newer},
        forks={"tiny": replace(tiny, builds={"3.12": build, "3.13": later})},
    )
    save_lock(given)
    assert load_lock(lock.path) == given
    text = lock.path.read_text()
    assert text.count(CYTHON.hashes[0]) == text.count("7" * 64) == text.count("8" * 64) == 1
    assert f'["numpy", "2.5.5", "3.13", "{"7" * 64}"]' in text
    assert '"packages": ["numpy 2.5.5"]' in text
    lock.path.write_text(text.replace('"numpy", "2.5.5", "3.13"', '"numpy", "2.5.4", "3.13"'))
    assert load_lock(lock.path) != given
    lock.path.write_text(text.replace('["numpy", "2.5.5"', '["numpy", "2.5.4"'))
    with pytest.raises(ManifestError, match=r"is \['numpy', '2.5.5'\]") as caught:
        load_lock(lock.path)
    assert caught.value.expected == "a list of name, version and one sha256 or more"


def builds_of(lock: Lock, **inventories: BuildInventory) -> Lock:
    """The lock with these inventories: of Pythons, or of a variant with `other_` before them."""
    tiny = lock.forks["tiny"]
    build = tiny.builds["3.12"]
    forks: dict[str, ForkLock] = {}
    for name, inventory in inventories.items():
        key, python = "tiny:other" if "other" in name else "tiny", f"3.{name[-2:]}"
        found = forks.get(key, replace(tiny, builds={}))
        builds = {**found.builds, python: replace(build, inventory=inventory)}
        forks[key] = replace(found, builds=builds)
    return replace(lock, forks=forks)


def native(python: str, *more: str) -> BuildInventory:
    modules = [f"tiny/_{n}.cpython-{python}-x86_64-linux-gnu.so" for n in range(50)]
    data = {f"tiny/data/{n}.txt": f"src/tiny/data/{n}.txt" for n in range(50)}
    built, reads = frozenset([*modules, *more]), frozenset({f"src/{n}.pyx" for n in range(50)})
    return replace(INVENTORY, verbatim=data, built=built, reads=reads)


def test_another_python_or_variant_adds_what_differs(lock: Lock) -> None:
    path = lock.path.with_suffix(".inventory")
    one = builds_of(lock, p12=native("312"))
    save_lock(one)
    assert load_lock(lock.path) == one
    before = path.read_text().splitlines()
    assert any("_7.{abi}-x86_64-linux-gnu.so" in line for line in before)
    more = {"p13": native("313"), "other_12": native("312", "tiny/new.so")}
    three = builds_of(lock, p12=native("312"), **more)
    save_lock(three)
    assert load_lock(lock.path) == three
    after = path.read_text().splitlines()
    assert len(after) <= len(before) + 8
    assert sum("tiny/new.so" in line or '"new.so"' in line for line in after) == 1


def test_names_that_look_like_marks_survive(lock: Lock) -> None:
    odd = ("{abi}.so", "{lb}.so", "a{version}", "{lb}abi}", "cpython-312", "python3.12/{abi}")
    given = builds_of(lock, p12=native("312", *odd), p13=native("313", *odd), p14=INVENTORY)
    save_lock(given)
    assert load_lock(lock.path) == given


def test_an_inventory_that_the_lock_was_not_written_with_is_an_error(lock: Lock) -> None:
    save_lock(lock)
    path = lock.path.with_suffix(".inventory")
    written = path.read_bytes()
    changed = {
        "entry tiny is not the one": written.replace(b"generate.py", b"other.py"),
        "lacks the entry tiny": written.replace(b'"tiny": {', b'"else": {', 1),
        "lacks the entry tiny that": b"<<<<<<< ours\n",
        "it lacks the entry tiny": b"\xff",
    }
    for says, data in changed.items():
        path.write_bytes(data)
        with pytest.raises(ManifestError, match=says) as caught:
            load_lock(lock.path)
        assert "run `patchwheel lock`" in str(caught.value.hint)
        assert caught.value.where == path
        # `lock` still knows the versions that nothing may move.
        left = load_lock(lock.path, mend=True)
        assert left.environments == lock.environments
        build = left.forks["tiny"].builds["3.12"]
        assert build.build_requires == (CYTHON, NUMPY)
        assert (build.inventory.built, left.forks["tiny"].settings) == (frozenset(), "")
    path.unlink()
    with pytest.raises(ManifestError, match="lacks the entry tiny that"):
        load_lock(lock.path)
    path.mkdir()
    with pytest.raises(ManifestError, match="cannot be read"):
        load_lock(lock.path)


def test_a_lock_that_names_no_inventory_trusts_none(lock: Lock) -> None:
    save_lock(lock)
    text = lock.path.read_text()
    lock.path.write_text(re.sub(r'"inventory": "[0-9a-f]+",', "", text))
    with pytest.raises(ManifestError, match="its entry tiny is not the one"):
        load_lock(lock.path)


def test_the_entry_of_a_fork_is_for_its_pin_and_a_python(lock: Lock, manifest: Manifest) -> None:
    tiny = manifest.forks["tiny"]
    assert lock.fork(tiny, "3.12").inventory == INVENTORY
    assert lock.entry(tiny).tree == "a" * 40
    stale = [
        (replace(tiny, name="other"), "3.12", "other has no entry"),
        (tiny, "3.14", "has no entry for Python 3.14"),
        (replace(tiny, version="1.1"), "3.12", "was locked for another pin"),
        (replace(tiny, env={"A": "1"}), "3.12", "was locked for other build settings"),
        (replace(tiny, config_settings={"a": ("b",)}), "3.12", "other build settings"),
        (replace(tiny, upstream_wheel=None), "3.12", "other build settings"),
    ]
    for fork, python, says in stale:
        with pytest.raises(ManifestError, match=says) as caught:
            lock.fork(fork, python)
        assert "patchwheel lock" in str(caught.value.hint)
        assert caught.value.where == lock.path


def test_a_lock_is_of_one_kind_of_machine(
    lock: Lock, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_machine(monkeypatch)
    with pytest.raises(ManifestError, match=r"tiny was locked for .* or another machine") as caught:
        lock.fork(manifest.forks["tiny"], "3.12")
    assert "patchwheel lock" in str(caught.value.hint)
    with pytest.raises(ManifestError, match=r"environment was locked for .* or another machine"):
        lock.environment(manifest, "3.12")


def test_an_environment_of_a_variant_has_an_entry_of_its_own(
    lock: Lock, manifest: Manifest
) -> None:
    other = replace(manifest.forks["tiny"], variant="fast")
    chosen = replace(manifest, forks={"tiny": other})
    assert environment_key(manifest, "3.12") == "3.12"
    assert environment_key(chosen, "3.12") == "3.12:fast"
    with pytest.raises(ManifestError, match=r"no entry for Python 3\.12:fast"):
        lock.environment(chosen, "3.12")
    entry = lock.environment(manifest, "3.12")
    both = replace(lock, environments={**lock.environments, "3.12:fast": entry})
    assert both.environment(chosen, "3.12") == entry


def test_the_environment_is_for_the_manifests_requirements(lock: Lock, manifest: Manifest) -> None:
    assert lock.environment(manifest, "3.12").packages == (NUMPY,)
    with pytest.raises(ManifestError, match=r"no entry for Python 3\.13"):
        lock.environment(manifest, "3.13")
    spec = replace(manifest.environment, requires=("numpy<2",))
    with pytest.raises(ManifestError, match="was locked for other requirements"):
        lock.environment(replace(manifest, environment=spec), "3.12")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not valid JSON"),
        ("<<<<<<< ours", "is not valid JSON"),
        ("[]", "has another schema"),
        ('{"schema": 99}', "has another schema"),
        ('{"schema": 4}', "is damaged: environments is missing"),
        ('{"schema": 4, "environments": {}, "forks": []}', "is damaged: forks is not a table"),
        ('{"schema": 4, "environments": {"3.12": 1}, "forks": {}}',
         r"is damaged: environments\.3\.12 is not a table"),
        (('{"schema": 4, "environments": {"3.12": {"inputs": 1, "packages": [["a"]], '
         '"groups": {}}}, "forks": {}}'),
         r"environments\.3\.12\.inputs is 1 \(and 1 more problem\)"),
        (('{"schema": 4, "environments": {"3.12": {"inputs": "", "packages": [["a", "1", 2]], '
         '"groups": {}}}, "forks": {}}'), r"packages is \['a', '1', 2\]"),
        (('{"schema": 4, "environments": {}, "forks": {"a": {"pin": {}, "inventory": "'
         f'{hashlib.sha256().hexdigest()}", '
         '"tree": "", "commit": null, "patches": {}, "builds": {}}}}'),
         "is damaged: forks.a.settings is missing"),
    ],
)  # fmt: skip
def test_a_damaged_lock_is_one_error_that_says_how_to_get_another(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "forks.lock"
    path.write_text(text)
    with pytest.raises(ManifestError, match=says) as caught:
        load_lock(path)
    assert "patchwheel lock" in str(caught.value.hint)


def test_a_lock_that_is_no_text_or_not_there_is_the_same_error(tmp_path: Path) -> None:
    path = tmp_path / "forks.lock"
    with pytest.raises(ManifestError, match="there is no lock"):
        load_lock(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match="is not valid JSON"):
        load_lock(path)
    with pytest.raises(ManifestError, match="cannot be read"):
        load_lock(tmp_path)


def test_a_lock_that_cannot_be_written_is_an_error_of_the_machine(lock: Lock) -> None:
    nowhere = replace(lock, path=lock.path.parent / "none" / "forks.lock")
    with pytest.raises(MachineError, match="cannot be written"):
        save_lock(nowhere)


def test_a_requirement_line_carries_every_hash() -> None:
    one, two = "1" * 64, "2" * 64
    line = f"numpy==2.5.5 --hash=sha256:{one} --hash=sha256:{two}"
    assert NUMPY.requirement == line
