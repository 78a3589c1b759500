"""Release wheels of two small forks: built, checked, rebuilt, indexed, and installed."""

import contextlib
import copy
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import tomlkit

from patchwheel.build.inputs import interface
from patchwheel.environment import compose
from patchwheel.kit.errors import CheckError
from patchwheel.kit.interpreter import find_interpreter, uv_bin
from patchwheel.kit.store import Store
from patchwheel.kit.uv import index_arguments, load_index_config, make_venv
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.lock import load_lock
from patchwheel.release.check import check_release
from patchwheel.release.publish import make_index
from patchwheel.wheelfile.archive import make_entry, write_archive
from patchwheel.wheelfile.read import read_wheel, write_wheel
from tests.fixtures import forked, support
from tests.fixtures.projects import PYTHON, VERSION, Project, package_files, sdist_table

Json: TypeAlias = Any
FORKS = ("tinyext", "tinyset")

VARIANTS = {
    "tinyset": """
[forks.tinyset.variants.plain]

[forks.tinyset.variants.fast]
upstream-wheel = { distribution = "tinyset-fast" }
required-env = ["TINY_TARGET"]

[forks.tinyset.variants.other]
upstream-wheel = { distribution = "tinyset-other" }
programs = ["no-such-compiler"]
"""
}

pytestmark = [pytest.mark.network, pytest.mark.compiled, pytest.mark.xdist_group("packages")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, packages_store: Path) -> Project:
    """Both forks, one with a patch, the other with variants, locked."""
    folder = tmp_path_factory.mktemp("release")
    shelf, root = folder / "shelf", folder / "project"
    shelf.mkdir()
    tables = {}
    for fork in FORKS:
        files = package_files(fork)
        # METADATA spells the name as upstream does.
        spelled = files["pyproject.toml"].replace(b'"tinyset"', b'"TinySet"')
        files["pyproject.toml"] = spelled
        sdist = support.make_sdist(shelf, fork, VERSION, files)
        tables[fork] = sdist_table(sdist) + VARIANTS.get(fork, "")
        support.make_upstream(folder / fork, files)
    support.make_manifest(root, tables, python=PYTHON)
    init = folder / "tinyext/src/tinyext/__init__.py"
    why = "Carried for the tests.\n\nUpstream-Status: Backport [0123abc]\n"
    patch = support.make_patch(
        folder / "tinyext",
        # Not what another test's patch makes: such a wheel would be in the store already.
        {"src/tinyext/__init__.py": init.read_text() + '\nGREETING = "hello"\nRELEASED = 1\n'},
        subject="Greet",
        body=why,
    )
    support.make_series(root / "patches/tinyext", {"0010-greet.patch": patch})
    support.make_series(root / "patches/tinyset", {})
    made = Project(root=root, store=packages_store, shelf=shelf)
    # Upstream has such a project, and no wheel of this release.
    support.make_wheel(shelf, "tinyset-fast", "0.1", {"x.py": ""})
    made.run("lock", TINY_TARGET="one")
    return made


@pytest.fixture(scope="module")
def dist(project: Project) -> Path:
    project.run("build", "--release")
    return project.root / "dist/release"


@pytest.fixture
def copied(dist: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dist, tmp_path / "dist"))


def test_a_release_is_complete_and_labelled(dist: Path) -> None:
    names = sorted(path.name for path in dist.iterdir())
    wheels = [name for name in names if name.endswith(".whl")]
    assert [name.split("-")[0] for name in wheels] == list(FORKS)
    assert not any("graft" in name for name in wheels)
    assert all("manylinux" in name for name in wheels)
    beside = [f"{name}.intoto.json" for name in wheels]
    assert names == sorted([*wheels, *beside, "SHA256SUMS", "pylock.toml"])


def test_a_variant_is_a_wheel_of_its_own_name_and_target(
    project: Project, dist: Path, tmp_path: Path
) -> None:
    other = project.copied(tmp_path / "other")
    words = ("build", "tinyset", "--release", "--variant")
    assert "tinyset:fast: TINY_TARGET must be set" in other.run(*words, "fast", status=7)
    message = other.run(*words, "other", status=7)
    assert "no-such-compiler is not installed" in message
    assert "no variant 'slow'" in other.run(*words, "slow", status=2)
    assert not (other.root / "dist/release").exists()
    [one] = other.run(*words, "fast", TINY_TARGET="one").split()
    assert Path(one).name.startswith("tinyset_fast-")
    assert checked(other.root / "dist/release")
    record = json.loads(read_wheel(Path(one)).metadata("patchwheel.json"))
    assert record["compiled"]["env"] == {"TINY_TARGET": "one"}
    [two] = other.run(*words, "fast", TINY_TARGET="two").split()
    assert one != two
    [plain] = other.run(*words, "plain").split()
    assert Path(plain).name == only(dist, "tinyset-*.whl").name
    assert len(list((other.root / "dist/release").glob("*.whl"))) == 2
    assert checked(other.root / "dist/release")


@pytest.mark.heavy
def test_an_environment_is_composed_of_a_variant(project: Project, tmp_path: Path) -> None:
    other = project.copied(tmp_path / "other")
    variant = ("env", "made", "--variant", "fast")
    answer = json.loads(other.run(*variant, "--json", TINY_TARGET="one"))
    python = tmp_path / "other" / "made/bin/python"
    code = (
        "from importlib.metadata import distributions; import tinyset; "
        "print(*sorted(d.name for d in distributions() if 'tiny' in d.name))"
    )
    names = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert names.stdout.split() == ["tinyext", "tinyset-fast"]
    assert answer["wheels"].keys() == set(FORKS)
    # Checked again, it is still the environment of the variant.
    other.run(*variant, "--check", TINY_TARGET="one")
    message = other.run("env", "made", "--variant", "other", status=7)
    assert "tinyset:other: cannot compile: no-such-compiler is not installed" in message
    assert "no variant 'slow'" in other.run("env", "--variant", "slow", status=2)


def test_the_doctor_looks_at_a_variant(project: Project, tmp_path: Path) -> None:
    other = project.copied(tmp_path / "other")
    process = other.start("doctor", "--variant", "other", "--json")
    out, _ = process.communicate(timeout=500)
    rows = [row for row in json.loads(out) if "no-such-compiler" in json.dumps(row)]
    assert [(row["ok"], row["fork"]) for row in rows] == [(False, "tinyset")]
    assert "no-such-compiler" not in other.start("doctor", "--json").communicate(timeout=500)[0]


def test_a_variant_whose_toolchain_is_elsewhere_keeps_its_lock(
    project: Project, tmp_path: Path
) -> None:
    other = project.copied(tmp_path / "other")
    locked = (other.root / "forks.lock").read_bytes()
    said = {
        (): "tinyset:other: not followed here: cannot compile: no-such-compiler is not installed",
        ("--force",): (
            "tinyset:other is not locked here: its entry is kept: no-such-compiler is not installed"
        ),
    }
    for options, line in said.items():
        process = other.start("lock", "tinyset", "--offline", *options)
        _, told = process.communicate(timeout=500)
        assert process.returncode == 0, told
        assert "tinyset:fast is not locked here: tinyset:fast: TINY_TARGET" in told
        assert line in told
        assert (other.root / "forks.lock").read_bytes() == locked


def checked(path: Path, *, status: int = 0) -> str:
    """Run `verify PATH` where there is no project and, where it can be cut off, no network."""
    words = [sys.executable, "-m", "patchwheel", "verify", str(path)]
    if shutil.which("unshare"):
        words = ["unshare", "--map-root-user", "--net", *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def only(folder: Path, pattern: str) -> Path:
    [path] = folder.glob(pattern)
    return path


def correct(folder: Path) -> None:
    """Make every checksum beside the wheels true again, as a liar would who changed one thing."""
    for statement in folder.glob("*.intoto.json"):
        wheel = folder / statement.name.removesuffix(".intoto.json")
        if wheel.exists():
            data = json.loads(statement.read_text())
            data["subject"][0]["digest"]["sha256"] = support.sha256(wheel)
            statement.write_text(json.dumps(data, indent=1) + "\n")
    lock = folder / "pylock.toml"
    data = tomllib.loads(lock.read_text())
    for package in data["packages"]:
        [file] = package["wheels"]
        if (folder / file["path"]).exists():
            file["hashes"]["sha256"] = support.sha256(folder / file["path"])
            file["size"] = (folder / file["path"]).stat().st_size
    lock.write_text(tomlkit.dumps(data))
    correct_sums(folder)


def correct_sums(folder: Path) -> None:
    names = sorted(p.name for p in folder.iterdir() if p.name != "SHA256SUMS" and p.is_file())
    rows = [f"{support.sha256(folder / name)}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(rows))


def rewritten(wheel: Path, name: str, edit: Callable[[bytes], bytes | None]) -> None:
    """Edit a file of a wheel, its RECORD true for what there is then; None removes the file."""
    found = read_wheel(wheel)
    entries = dict(found.entries)
    [full] = [n for n in entries if n.endswith(name)]
    old = entries.pop(full)
    if (data := edit(old.content())) is not None:
        entries[full] = make_entry(full, data, mode=old.mode, date=old.date)
    del entries[f"{found.dist_info}/RECORD"]
    write_wheel(wheel, found.dist_info, entries.values())


def leaves(value: Json, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*at, key))
    elif isinstance(value, list) and value:
        for number, one in enumerate(value):
            yield from leaves(one, (*at, number))
    else:
        yield at


def lie(data: Json, at: tuple[Any, ...]) -> bytes:
    """Return JSON with another value at one place."""
    data = copy.deepcopy(data)
    holder = functools.reduce(lambda found, key: found[key], at[:-1], data)
    value = holder[at[-1]]
    if isinstance(value, str):
        # As alike as can be: one character is another one.
        value = value[:-1] + ("0" if value[-1:] != "0" else "1")
    else:
        value = [value, 1] if isinstance(value, list | dict | None) else value + 1
    holder[at[-1]] = value
    return (json.dumps(data, indent=1) + "\n").encode()


@pytest.mark.parametrize("name", ["patchwheel.json", "sboms/patchwheel.cdx.json"])
def test_each_field_of_record_and_sbom_is_checked(copied: Path, name: str) -> None:
    wheel = only(copied, "tinyext-*.whl")
    untouched = wheel.read_bytes()
    data = json.loads(read_wheel(wheel).metadata(name))
    fields = list(leaves(data))
    assert len(fields) > 40
    for at in fields:
        wheel.write_bytes(untouched)
        rewritten(wheel, f"/{name}", lambda _, at=at: lie(data, at))  # type: ignore[misc]
        # The wheel alone is enough.
        problems = check_release(wheel).problems
        assert any("patchwheel.cdx.json" in p or "record" in p for p in problems), at


def named(at: tuple[Any, ...]) -> str:
    """Return the key of a place, in whose line the difference is."""
    return str(next(key for key in reversed(at) if isinstance(key, str)))


@pytest.mark.parametrize(
    ("pattern", "load", "dump"),
    [
        ("tinyext-*.intoto.json", json.loads, bytes),
        ("pylock.toml", tomllib.loads, lambda data: tomlkit.dumps(json.loads(data)).encode()),
    ],
)
def test_each_field_beside_a_wheel_is_checked(
    copied: Path, pattern: str, load: Callable[[str], Json], dump: Callable[[bytes], bytes]
) -> None:
    file = only(copied, pattern)
    data = load(file.read_text())
    assert len(list(leaves(data))) > 15
    for at in leaves(data):
        file.write_bytes(dump(lie(data, at)))
        correct_sums(copied)
        problem, sums = check_release(copied).problems
        assert problem.startswith(f"{file.name}: line "), at
        assert named(at) in problem, at
        assert sums.startswith("SHA256SUMS: line "), at


def test_each_byte_of_every_file_counts(copied: Path) -> None:
    for path in sorted(copied.iterdir()):
        data = path.read_bytes()
        for number in range(0, len(data), max(1, len(data) // 12)):
            changed = bytearray(data)
            changed[number] ^= 1
            path.write_bytes(changed)
            problems = check_release(copied).problems
            assert any(path.name in problem for problem in problems), (path, number)
        path.write_bytes(data)
    assert check_release(copied).problems == ()


def renamed(folder: Path, old: str, new: str, *, inside: bool = True) -> None:
    """Give the wheel of tinyext another name, and WHEEL the tags that go with it."""
    wheel = only(folder, "tinyext-*.whl")
    other = wheel.with_name(re.sub(old, new, wheel.name))
    if inside:
        tags = "-".join(wheel.name.removesuffix(".whl").split("-")[2:])
        due = re.sub(old, new, wheel.name).removesuffix(".whl").split("-")[2:]
        rewritten(wheel, "/WHEEL", lambda text: text.replace(tags.encode(), "-".join(due).encode()))
    statement = wheel.with_name(f"{wheel.name}.intoto.json")
    wheel.rename(other)
    lock = folder / "pylock.toml"
    lock.write_text(lock.read_text().replace(wheel.name, other.name))
    text = statement.read_text().replace(wheel.name, other.name)
    statement.with_name(f"{other.name}.intoto.json").write_text(text)
    statement.unlink()


def swapped(data: bytes, old: str, new: str) -> bytes:
    text = re.sub(old, new, data.decode("latin-1"), count=1)
    assert text != data.decode("latin-1")
    return text.encode("latin-1")


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: rewritten(
        only(folder, "tinyext-*.whl"), name, lambda data: swapped(data, old, new)
    )


def record_row(old: str, new: str) -> Callable[[Path], None]:
    def lying(folder: Path) -> None:
        found = read_wheel(only(folder, "tinyext-*.whl"))
        record = found.entries[f"{found.dist_info}/RECORD"]
        text = swapped(record.content(), old, new)
        last = make_entry(record.name, text, mode=0o644, date=record.date)
        write_archive(found.path, [*(e for e in found.entries.values() if e != record), last])

    return lying


def remove(pattern: str) -> Callable[[Path], None]:
    return lambda folder: only(folder, pattern).unlink()


LIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "METADATA's name": (
        edit("/METADATA", "Name: tinyext", "Name: tinyexz"),
        "METADATA and WHEEL say",
    ),
    "METADATA's version": (edit("/METADATA", r"\+arrayapi", "+arrayapj"), "METADATA and WHEEL say"),
    "WHEEL's tag": (edit("/WHEEL", "Tag: cp3", "Tag: cp4"), "METADATA and WHEEL say"),
    "the name's tag": (
        lambda f: renamed(f, r"manylinux_\d+_\d+", "manylinux_2_99", inside=False),
        "METADATA and WHEEL say",
    ),
    "a lower platform tag": (
        lambda f: renamed(f, r"manylinux_\d+_\d+", "manylinux_2_12"),
        "needs more than its platform tag manylinux_2_12_x86_64",
    ),
    "a platform that promises nothing": (
        lambda f: renamed(f, r"manylinux_\d+_\d+", "linux"),
        "is no manylinux tag",
    ),
    "another Python": (
        lambda f: renamed(f, r"cp3\d+-cp3\d+", "cp310-cp310"),
        "is for another Python than its tag cp310",
    ),
    "no platform": (
        lambda f: renamed(f, r"manylinux_\d+_\d+_x86_64", "any"),
        "is no manylinux tag",
    ),
    "the label": (
        lambda f: renamed(f, r"\.h[0-9a-f]{8}", ".h00000000", inside=False),
        "dist-info folder",
    ),
    "RECORD's hash": (record_row("sha256=.", "sha256=_"), "RECORD"),
    "RECORD's size": (
        record_row(r",(\d)(\d*)\n", r",9\1\2\n"),
        "RECORD gives no true hash and size",
    ),
    "RECORD lacks a row": (record_row(r"tinyext/pure.py.*\n", ""), "RECORD lacks tinyext/pure.py"),
    "RECORD has another row": (record_row(r"\A", "a.py,sha256=x,1\n"), "RECORD lists a.py"),
    "no SBOM": (
        lambda f: rewritten(only(f, "tinyext-*.whl"), "/patchwheel.cdx.json", lambda _: None),
        "has no sboms/patchwheel.cdx.json",
    ),
    "no JSON in the SBOM": (edit("/patchwheel.cdx.json", "{", "["), "cdx.json: line 1 is [, and"),
    "no record": (
        lambda f: rewritten(only(f, "tinyext-*.whl"), "/patchwheel.json", lambda _: None),
        "has no tinyext-",
    ),
    "a record of another schema": (
        edit("/patchwheel.json", '"schema": 2', '"schema": 9'),
        "has schema 9",
    ),
    "no statement": (remove("tinyext-*.intoto.json"), "intoto.json: is missing"),
    "no lock": (remove("pylock.toml"), "pylock.toml: is missing"),
    "a wheel is gone": (remove("tinyext-*.whl"), 'pylock.toml: line 5 is name = "tinyext"'),
}


@pytest.mark.parametrize("what", LIES)
def test_a_lie_is_named_though_all_checksums_agree(copied: Path, what: str) -> None:
    lying, named = LIES[what]
    lying(copied)
    if (copied / "pylock.toml").exists():
        correct(copied)
    else:
        correct_sums(copied)
    problems = check_release(copied).problems
    assert any(named in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (r"\A[0-9a-f]", "z", "SHA256SUMS: line 1 is z"),
        (r"  pylock", "  pylocks", "SHA256SUMS: line 1 is "),
        (r".*pylock.*\n", "", "SHA256SUMS: line 1 is "),
        (r".*intoto.*\n", "", "intoto.json: is in no SHA256SUMS"),
        (r"(.*\.whl\n)", r"\1\1", "SHA256SUMS: line 3 is "),
    ],
)
def test_sums_that_lie_are_named(copied: Path, old: str, new: str, named: str) -> None:
    file = copied / "SHA256SUMS"
    file.write_text(re.sub(old, new, file.read_text(), count=1))
    problems = check_release(copied).problems
    assert any(named in problem for problem in problems), problems


def test_what_is_checked_is_shown_offline_and_a_lie_ends_with_6(copied: Path) -> None:
    told = checked(copied)
    assert "0010-greet.patch" in told
    assert "meson-python" in told
    wheel = only(copied, "tinyext-*.whl")
    assert "tinyset" not in checked(wheel)
    (copied / "SHA256SUMS").write_text("0" * 64 + f"  {wheel.name}\n")
    assert f"{wheel.name}: has another sha256" in checked(wheel, status=6)
    assert "is in no SHA256SUMS" in checked(copied, status=6)
    (copied / "empty").mkdir()
    assert "there is no wheel in it" in checked(copied / "empty", status=4)


def test_the_sbom_is_valid_and_says_what_the_wheel_is(dist: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    for wheel in dist.glob("*.whl"):
        text = read_wheel(wheel).metadata("sboms/patchwheel.cdx.json").decode()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        subject = json.loads(text)["metadata"]["component"]
        assert wheel.name.startswith(f"{subject['name']}-{subject['version']}-")
    data = read_wheel(only(dist, "tinyext-*.whl")).metadata("sboms/patchwheel.cdx.json")
    [patch] = json.loads(data)["metadata"]["component"]["pedigree"]["patches"]
    assert patch["type"] == "backport"


def test_the_statement_names_all_that_the_wheel_is_made_from(project: Project, dist: Path) -> None:
    data = json.loads(only(dist, "tinyext-*.intoto.json").read_text())
    assert data["_type"] == "https://in-toto.io/Statement/v1"
    assert data["predicateType"] == "https://slsa.dev/provenance/v1"
    [subject] = data["subject"]
    assert subject["digest"]["sha256"] == support.sha256(dist / subject["name"])
    definition = data["predicate"]["buildDefinition"]
    found = {r["name"]: r["digest"] for r in definition["resolvedDependencies"]}
    patch = project.root / "patches/tinyext/0010-greet.patch"
    assert found["patches/tinyext/0010-greet.patch"]["sha256"] == support.sha256(patch)
    sdist = only(project.shelf, "tinyext-*.tar.gz")
    assert found[sdist.name]["sha256"] == support.sha256(sdist)
    assert {"meson-python", "cython", "pybind11", "patched tree"} <= found.keys()
    assert definition["internalParameters"]["sandbox"] in {"bwrap", "unshare", "none"}


# tests/ci/test_cells.py has the other one rebuilt by its cell.
@pytest.mark.parametrize("fork", [pytest.param("tinyext", marks=pytest.mark.heavy), "tinyset"])
def test_a_release_built_again_in_other_circumstances_is_the_same(
    project: Project, dist: Path, fork: str
) -> None:
    told = json.loads(project.run("verify", fork, "--rebuild", "--json"))
    assert told["differences"] == []
    assert told["sha256"] == support.sha256(only(dist, f"{fork}-*.whl"))


@pytest.mark.heavy
def test_a_fork_is_built_again_against_the_same_wheel_of_another(
    project: Project, dist: Path, tmp_path: Path
) -> None:
    """That is neither made again nor upstream's, and the statement says so."""
    other = project.copied(tmp_path / "other")
    published = support.make_wheel(project.shelf, "tinyext", VERSION, {"x.py": ""})
    text = (other.root / "forks.toml").read_text()
    needs = 'build-requires = ["tinyext"]\nupstream-wheel = false\nversion'
    start, table = text.split("[forks.tinyset]\n")
    table = table.replace("upstream-wheel = false\n", "", 1).replace("version", needs, 1)
    (other.root / "forks.toml").write_text(f"{start}[forks.tinyset]\n{table}")
    other.run("lock", "tinyset")
    other.run("build", "tinyset", "--release")
    assert json.loads(other.run("verify", "tinyset", "--rebuild", "--json"))["kept"] is None
    assert "compiling tinyext" not in (project.store / "logs/tinyset/rebuild.log").read_text()
    data = json.loads(only(other.root / "dist/release", "tinyset-*.intoto.json").read_text())
    found = data["predicate"]["buildDefinition"]["resolvedDependencies"]
    [against] = [r["digest"] for r in found if r["name"] == "tinyext"]
    seen = interface(only(dist, "tinyext-*.whl"), Store(tmp_path / "store"))
    assert against == {"patchwheelInterface": seen}
    assert checked(other.root / "dist/release")
    published.unlink()


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("__import__('uuid').uuid4().hex[:8]", marks=pytest.mark.heavy),
        "f'{int(time.time()) // 86400:08x}'",
    ],
)
def test_a_build_that_is_not_the_same_at_another_time_is_found_and_the_file_named(
    project: Project, tmp_path: Path, key: str
) -> None:
    other = project.copied(tmp_path / "other")
    upstream = shutil.copytree(project.root.parent / "tinyset", tmp_path / "tinyset")
    text = (upstream / "setup.py").read_text()
    patch = support.make_patch(
        upstream,
        {"setup.py": "import time\n" + text.replace("builder.key_of(", f"{key} or (")},
        subject="Take another key each time",
        body="Carried for the tests.\n\nUpstream-Status: Inappropriate [a test]\n",
    )
    support.make_series(other.root / "patches/tinyset", {"0010-other.patch": patch})
    message = other.run("verify", "tinyset", "--rebuild", "--json", status=6)
    assert "tinyset/_keyed.cpython" in message
    assert "another content" in message
    assert "tinyset/_plain.pyx" not in message
    [pair] = re.findall(r"`diffoscope (\S+\.whl \S+\.whl)`", message)
    assert len({Path(wheel).read_bytes() for wheel in pair.split()}) == 2


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, folder: Path, *, answers_json: bool) -> None:
        self.asked: list[str] = []
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def translate_path(self, path: str) -> str:
                found = super().translate_path(path)
                wants = "simple.v1+json" in self.headers.get("Accept", "")
                if path.endswith("/") and answers_json and wants:
                    return f"{found.rstrip('/')}/index.json"
                return found

            def guess_type(self, path: str | os.PathLike[str]) -> str:
                kind = super().guess_type(path)
                return "application/vnd.pypi.simple.v1+json" if "json" in kind else kind

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                server.asked.append(" ".join(map(str, args)))

        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=folder))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple/"


@contextlib.contextmanager
def serving(folder: Path, *, answers_json: bool) -> Iterator[Server]:
    with Server(folder, answers_json=answers_json) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def install(installer: str, python: Path, words: list[str], env: Mapping[str, str]) -> None:
    """Install into an environment, whatever proxy there is passed by."""
    if installer == "pip":
        start = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    else:
        start = [str(uv_bin()), "pip", "install", "--no-config"]
        start += ["--python", str(python)]
    proxy = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [*start, *words], env={**env, **proxy}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def indexed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed") / "dist"
    shutil.copytree(dist, folder)
    done = forked.run(["index", str(folder)], cwd=support.ROOT, env=os.environ, timeout=300)
    assert done.stdout.strip() == str(folder / "simple")
    return folder


@pytest.mark.parametrize(
    ("installer", "answers_json"),
    [
        ("pip", True),
        ("uv", False),
        pytest.param("pip", False, marks=pytest.mark.heavy),
        pytest.param("uv", True, marks=pytest.mark.heavy),
    ],
)
def test_pip_and_uv_install_from_the_index_over_http(
    indexed: Path, tmp_path: Path, installer: str, *, answers_json: bool
) -> None:
    before = {p: p.read_bytes() for p in indexed.rglob("*") if p.is_file()}
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv/bin/python"
    with serving(indexed, answers_json=answers_json) as server:
        if installer == "pip":
            words = ["--no-cache-dir", "--index-url", server.url]
        else:
            words = ["--no-cache", "--default-index", server.url]
        kept = {k: v for k, v in os.environ.items() if k[:3] not in {"PIP", "UV_"}}
        env = {**kept, "PIP_CONFIG_FILE": os.devnull}
        install(installer, python, [*words, *FORKS], env)
    code = (
        "import importlib.metadata as m, tinyext, tinyset; "
        "print(tinyext.GREETING, m.version('tinyext'))"
    )
    out = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    label = only(indexed, "tinyext-*.whl").name.split("-")[1]
    assert out.stdout.split() == ["hello", label]
    assert any(".whl.metadata" in line for line in server.asked)
    assert {p: p.read_bytes() for p in indexed.rglob("*") if p.is_file()} == before


def test_the_lock_installs_with_uv(dist: Path, tmp_path: Path) -> None:
    from packaging.pylock import Pylock

    Pylock.from_dict(tomllib.loads((dist / "pylock.toml").read_text())).validate()
    venv.create(tmp_path / "venv", symlinks=True)
    words = [str(uv_bin()), "pip", "install", "--no-config", "--offline", "--no-deps"]
    words += ["-r", str(dist / "pylock.toml"), "--python", f"{tmp_path}/venv/bin/python"]
    subprocess.run(words, check=True, cwd=tmp_path)
    assert list(tmp_path.glob("venv/lib/*/site-packages/tinyset/__init__.py"))


def test_the_index_itself_is_checked(indexed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(indexed, tmp_path / "dist"))
    assert check_release(folder).problems == ()
    for file in [*folder.rglob("simple/**/*.*"), *folder.glob("*.metadata")]:
        data = file.read_bytes()
        file.write_bytes(data.replace(b"iny", b"inz"))
        [problem] = check_release(folder).problems
        assert problem.startswith(f"{file.relative_to(folder)}: ")
        file.write_bytes(data)


def test_an_index_of_what_is_not_true_is_not_written(
    project: Project, copied: Path, tmp_path: Path
) -> None:
    wheel = only(copied, "tinyset-*.whl")
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"\1")
    done = project.run("index", str(copied), status=6)
    assert wheel.name in done
    assert not (copied / "simple").exists()
    assert not list(copied.glob("*.metadata"))


def test_two_files_of_one_name_are_not_indexed(dist: Path, tmp_path: Path) -> None:
    """As when the jobs of two runs left their folders side by side; equal ones are one."""
    one, two = tmp_path / "set/one", tmp_path / "set/two"
    for folder in (one, two):
        shutil.copytree(dist, folder)
    assert make_index(tmp_path / "set") == list(FORKS)
    page = (tmp_path / "set/simple/tinyset/index.html").read_text()
    assert page.count("<a ") == 1
    assert check_release(tmp_path / "set").problems == ()
    shutil.rmtree(tmp_path / "set/simple")
    [wheel] = two.glob("tinyset-*.whl")
    repack(wheel)
    correct(two)
    (tmp_path / "set/pylock.toml").unlink()
    (tmp_path / "set/SHA256SUMS").unlink()
    with pytest.raises(CheckError, match="another file of this name"):
        make_index(tmp_path / "set")
    assert not (tmp_path / "set/simple").exists()


def test_a_name_that_was_published_keeps_its_bytes(copied: Path) -> None:
    make_index(copied)
    repack(only(copied, "tinyset-*.whl"))
    correct(copied)
    with pytest.raises(CheckError, match="was in its index"):
        make_index(copied)


def repack(wheel: Path) -> None:
    """Give a wheel other bytes, which are as sound and as true as before."""
    found = read_wheel(wheel)
    fresh = [replace(e, date=(2020, 1, 1, 0, 0, 0)) for e in found.entries.values()]
    write_archive(wheel, fresh)


def test_a_graft_is_never_published(project: Project, copied: Path, tmp_path: Path) -> None:
    """A change of the next build's patch is grafted on the wheel that was compiled."""
    other = project.copied(tmp_path / "other")
    patch = other.root / "patches/tinyext/0010-greet.patch"
    patch.write_bytes(patch.read_bytes().replace(b'"hello"', b'"hallo"'))
    [line] = other.run("build", "tinyext").split()
    assert ".graft" in line
    told = checked(Path(line))
    assert "graft on tinyext-" in told
    shutil.copy(line, copied)
    message = project.run("index", str(copied), status=6)
    assert "is a graft; only compiled wheels are published" in message
    assert "is in no SHA256SUMS" in message
    assert not (copied / "simple").exists()


@pytest.mark.heavy
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_the_projects_own_release_installs_from_its_index(
    installer: str, tmp_path: Path, report: support.Recorder
) -> None:
    """`patchwheel build --release` made it in dist/release/, or in RELEASE.

    A fork that is not in it is installed as upstream's wheel.
    """
    manifest = load_manifest(support.ROOT / "forks.toml")
    place = Path(os.environ.get("RELEASE", support.ROOT / "dist/release"))
    if not (place / "SHA256SUMS").exists():
        support.lacking("dist/release/ holds no release: `patchwheel build --release` makes one")
    folder = Path(shutil.copytree(place, tmp_path / "dist"))
    projects = make_index(folder)
    assert check_release(folder).problems == ()
    [version] = manifest.environment.python[:1]
    lock = load_lock(manifest.lock_path).environment(manifest, version)
    expected = {d.name: d.version for d in lock.packages}
    expected |= {f.distribution: f.version for f in manifest.forks.values()}
    for page in folder.glob("simple/*/index.json"):
        expected[page.parent.name] = json.loads(page.read_text())["versions"][0]
    interpreter = find_interpreter(version, progress=report)
    python = make_venv(tmp_path / "venv", interpreter, log=tmp_path / "log")
    wanted = [f"{name}=={exact}" for name, exact in expected.items()]
    with serving(folder, answers_json=False) as server:
        if installer == "pip":
            words = ["--only-binary", ":all:", "--extra-index-url", server.url]
        else:
            found = load_index_config(support.ROOT)
            both = replace(found, urls=(*found.urls, server.url), equal=True)
            words = index_arguments(both)
        install(installer, python, [*words, *wanted], os.environ)
    forks = [f.distribution for f in manifest.forks.values()]
    question, answer = tmp_path / "question.json", tmp_path / "answer.json"
    question.write_text(json.dumps({"expected": expected, "forks": forks}))
    check = Path(compose.__file__).with_name("inspect_environment.py")
    subprocess.run([python, "-I", check, question, answer], check=True, cwd=tmp_path)
    assert json.loads(answer.read_text()) == []
    assert projects


def test_variant_wheels_beside_a_release_are_passed_over(copied: Path) -> None:
    wheel = only(copied, "tinyext-*.whl")
    variant = wheel.with_name(f"{wheel.stem}-cuda13.whl")
    variant.write_bytes(b"of another tool")
    found = check_release(copied)
    assert not found.problems
    assert [line for line in found.unchecked if "PEP 825" in line] == [
        f"{variant.name}: a wheel with a variant label (PEP 825) is passed over"
    ]
    assert make_index(copied) == list(FORKS)
    assert variant.name not in (copied / "SHA256SUMS").read_text()
    assert variant.name not in (copied / "simple/tinyext/index.html").read_text()
    # On its own it is none that can be checked.
    with pytest.raises(CheckError, match=r"has a variant label \(PEP 825\)"):
        check_release(variant).check(variant)
