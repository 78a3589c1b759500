import tomllib
from pathlib import Path

import jsonschema
import pytest
from forks_schema import manifest_schema

from patchwheel.kit.errors import ManifestError
from patchwheel.manifest.load import line_of, load_manifest
from patchwheel.manifest.model import Manifest
from patchwheel.manifest.transaction import copy_files
from tests.fixtures.support import dedent, write

ROOT = Path(__file__).parents[2]
SCHEMA = manifest_schema()
HEAD = """
schema = 1

[environment]
label = "arrayapi"
python = ["3.12"]
"""
SHA = "5" * 64
COMMIT = "a" * 40
FULL = f"""{HEAD}requires = ["numpy>=2"]
test-requires = ["pytest"]
platform = "manylinux_2_28"
platform-image = "quay.io/pypa/manylinux_2_28_x86_64@sha256:{SHA}"

[forks.tiny-ext]
git = "https://example.org/tiny"
tag = "v1"
submodules = {{ docs = false, deep = "https://example.org/deep" }}
commit = "{COMMIT}"
version = "1.0rc1"
sdist = {{ filename = "tiny_ext-1.0rc1.tar.gz", sha256 = "{SHA}" }}
config-settings = {{ setup-args = ["-Da=b"], editable = "no" }}
env = {{ CFLAGS = "-O1" }}
build-requires = ["cython==3.2.4"]
programs = ["gfortran"]
without = {{ gfortran = {{ setup-args = ["-Dfortran=false"] }} }}
crates = "vendor"
required-env = ["TARGET"]
tests = ["more/*.py"]

[forks.tiny-ext.upstream-wheel]
distribution = "tiny-other"
only-in-base = ["tiny/_wheel.json"]
only-in-build = ["tiny/v2/*"]

[forks.tiny-ext.variants.one]
env = {{ A = "1" }}

[forks.tiny-ext.variants.two]
upstream-wheel = {{ distribution = "tiny-two" }}
env = {{ CFLAGS = "-O2" }}
programs = []
"""


def load(folder: Path, text: str) -> Manifest:
    write(folder, {"forks.toml": dedent(text)})
    return load_manifest(folder / "forks.toml")


def refused(folder: Path, text: str) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        load(folder, text)
    return caught.value


def fork(lines: str, name: str = "tiny") -> str:
    return f"{HEAD}\n[forks.{name}]\n{dedent(lines)}"


def test_every_key_arrives(tmp_path: Path) -> None:
    found = load(tmp_path, FULL)
    tiny = found.forks["tiny-ext"]
    assert found.environment.requires == ("numpy>=2",)
    assert found.environment.test_requires == ("pytest",)
    assert found.environment.platform == "manylinux_2_28"
    assert tiny.distribution == "tiny-other"
    assert tiny.patches == tmp_path / "patches" / "tiny-ext"
    assert tiny.config_settings == {"setup-args": ("-Da=b",), "editable": "no"}
    assert tiny.submodules == {"docs": False, "deep": "https://example.org/deep"}
    assert tiny.env == {"CFLAGS": "-O1", "A": "1"}
    assert tiny.required_env == ("TARGET",)
    assert tiny.without == {"gfortran": {"setup-args": ("-Dfortran=false",)}}
    assert tiny.upstream_wheel
    assert tiny.upstream_wheel.only_in_build == ("tiny/v2/*",)
    assert found.root == tmp_path
    assert found.lock_path == tmp_path / "forks.lock"


def test_the_manifest_of_this_project_is_valid() -> None:
    found = load_manifest(ROOT / "forks.toml")
    assert list(found.forks) == ["scipy", "scikit-learn", "scikit-image", "cupy"]
    jsonschema.validate(tomllib.loads((ROOT / "forks.toml").read_text()), SCHEMA)


def test_a_variant_replaces_what_the_fork_says(tmp_path: Path) -> None:
    jsonschema.validate(tomllib.loads(dedent(FULL)), SCHEMA)
    found = load(tmp_path, FULL)
    [one, two] = found.all_variants
    assert (one.lock_key, two.lock_key) == ("tiny-ext", "tiny-ext:two")
    assert (one.distribution, two.distribution) == ("tiny-other", "tiny-two")
    assert two.env == {"CFLAGS": "-O2"}
    assert (two.programs, two.build_requires) == ((), one.build_requires)


def test_without_an_sdist_a_commit_is_the_pin(tmp_path: Path) -> None:
    text = fork(f'version = "1"\ngit = "file:///x"\ncommit = "{COMMIT}"')
    found = load(tmp_path, text).forks["tiny"]
    assert found.pin == {"version": "1", "git": "file:///x", "commit": COMMIT, "sdist": None}
    assert found.distribution == "tiny"


def test_a_commit_that_becomes_known_does_not_change_the_pin_of_an_sdist(tmp_path: Path) -> None:
    sdist = f'sdist = {{ filename = "a-1.tar.gz", sha256 = "{SHA}" }}'
    plain = load(tmp_path, fork(f'version = "1"\n{sdist}'))
    known = load(tmp_path, fork(f'version = "1"\n{sdist}\ncommit = "{COMMIT}"'))
    assert plain.forks["tiny"].pin == known.forks["tiny"].pin


def test_no_upstream_wheel_can_be_said(tmp_path: Path) -> None:
    text = fork(f'version = "1"\ngit = "x"\ncommit = "{COMMIT}"\nupstream-wheel = false')
    assert load(tmp_path, text).forks["tiny"].upstream_wheel is None


PIN = f'git = "x"\ncommit = "{COMMIT}"\n'
GOOD = f'version = "1"\n{PIN}'


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (f"{HEAD}pyton = 1\n[forks.a]\n{GOOD}", 6,
         "environment.pyton is not a key here (did you mean 'python'?)"),
        (f"{HEAD}\n[fork.a]\n{GOOD}", 7, "fork is not a key here (did you mean 'forks'?)"),
        (fork(f"{GOOD}comit = 1"), 11,
         "forks.tiny.comit is not a key here (did you mean 'commit'?)"),
        (fork(f"{GOOD}zzz = 1"), 11, "forks.tiny.zzz is not a key here"),
        (fork(f'{GOOD}sdist = {{ filename = "a.tar.gz", sha265 = "" }}'), 11,
         "forks.tiny.sdist.sha265 is not a key here (did you mean 'sha256'?)"),
        (fork(f"{GOOD}[forks.tiny.upstream-wheel]\nonly-in-bse = []"), 12,
         "did you mean 'only-in-base'?"),
        (fork(PIN), 7, "forks.tiny.version is missing"),
        (fork(f'{PIN}version = "1+local"'), 10, "forks.tiny.version is '1+local'"),
        (fork(f"{PIN}version = 1"), 10, "forks.tiny.version is 1"),
        (fork('version = "1"\ngit = "x"\ncommit = "abc"'), 10, "forks.tiny.commit is 'abc'"),
        (fork('version = "1"'), 7, "forks.tiny pins no source"),
        (fork('version = "1"\ngit = "x"\ntag = "v1"'), 7, "forks.tiny pins no source"),
        (fork(GOOD, name="Tiny_Ext"), 7, "forks.Tiny_Ext is 'Tiny_Ext'"),
        (fork(f'{GOOD}sdist = "a.tar.gz"'), 11, "forks.tiny.sdist is not a table"),
        (fork(f'{GOOD}sdist = {{ filename = "../a.tar.gz", sha256 = "{SHA}" }}'), 11,
         "forks.tiny.sdist.filename is '../a.tar.gz'"),
        (fork(f'{GOOD}sdist = {{ filename = "a.zip", sha256 = "{SHA}" }}'), 11,
         "forks.tiny.sdist.filename is 'a.zip'"),
        (fork(f'{GOOD}sdist = {{ filename = "a.tar.gz", sha256 = "{SHA.upper()}f" }}'), 11,
         "forks.tiny.sdist.sha256"),
        (fork(f"{GOOD}env = {{ A = 1 }}"), 11, "forks.tiny.env.A is 1"),
        (fork(f"{GOOD}env = {{ A = '' }}"), 11, "forks.tiny.env.A is empty"),
        (fork(f"{GOOD}upstream-wheel = 0"), 11, "forks.tiny.upstream-wheel is not a table"),
        (fork(f"{GOOD}config-settings = {{ a = [1] }}"), 11, "forks.tiny.config-settings.a is 1"),
        (fork(f'{GOOD}programs = "gfortran"'), 11, "forks.tiny.programs is 'gfortran'"),
        (fork(f"{GOOD}programs = [1]"), 11, "forks.tiny.programs is 1"),
        (fork(f"{GOOD}without = {{ nvcc = {{}} }}"), 11, "forks.tiny.without.nvcc is not listed"),
        (fork(f"{GOOD}[forks.tiny.variants.a]\nprograms = ['nvcc']\nwithout = {{ gcc = {{}} }}"),
         13, "forks.tiny.variants.a.without.gcc is not listed"),
        (fork(f"{GOOD}[forks.tiny.variants.A]"), 11, "forks.tiny.variants.A is 'A'"),
        (fork(f'{GOOD}[forks.tiny.variants.a]\nversion = "2"'), 12,
         "forks.tiny.variants.a.version is not a key here"),
        (fork(f"{GOOD}[forks.tiny.variants.a]\n[forks.tiny.variants.b]"), 7,
         "forks.tiny makes a wheel named 'tiny', as tiny does"),
        (
            fork(f"{GOOD}submodules = {{ docs = true }}"),
            11,
            "forks.tiny.submodules.docs is True",
        ),
        (fork(f"{GOOD}upstream-wheel = true"), 11, "forks.tiny.upstream-wheel is not a table"),
        (fork(GOOD).replace('"arrayapi"', '"Array_API"'), 4, "environment.label is 'Array_API'"),
        (fork(GOOD).replace('["3.12"]', '"3.12"'), 5, "environment.python is '3.12'"),
        (fork(GOOD).replace('["3.12"]', '["3.12.1"]'), 5, "environment.python is '3.12.1'"),
        (fork(GOOD).replace('["3.12"]', "[]"), 5, "environment.python is empty"),
        (fork(GOOD).replace("schema = 1", "schema = 2"), 1, "schema is 2"),
        (fork(GOOD).replace("schema = 1", "schema = true"), 1, "schema is True"),
        (fork(GOOD).replace("schema = 1", ""), None, "schema is missing"),
        (f'schema = 1\nforks.a = "x"\n{HEAD[12:]}', 2, "forks.a is not a table"),
        (f"schema = 1\n[forks.tiny]\n{GOOD}", None, "environment is missing"),
        (fork(f"{GOOD}[forks.other]\n{GOOD}upstream-wheel = {{ distribution = 'tiny' }}"), 11,
         "forks.other makes a wheel named 'tiny'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_key_and_line(
    tmp_path: Path, text: str, line: int | None, says: str
) -> None:
    error = refused(tmp_path, text)
    path = tmp_path / "forks.toml"
    assert says in error.message
    assert str(error.where) == (f"{path}:{line}" if line else str(path))
    assert error.exit_code == 2


def test_invalid_toml_names_the_place(tmp_path: Path) -> None:
    error = refused(tmp_path, "schema = 1\nlabel = = 2\n")
    assert "line 2" in error.message


def test_what_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        load_manifest(tmp_path / "forks.toml")
    with pytest.raises(ManifestError, match="cannot be read"):
        load_manifest(tmp_path)
    (tmp_path / "forks.toml").write_bytes(b'a = "\xff"')
    with pytest.raises(ManifestError, match="is not valid TOML: 'utf-8' codec") as caught:
        load_manifest(tmp_path / "forks.toml")
    # `init` would refuse: there is a manifest.
    assert caught.value.hint == "correct it there"


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = fork(f"{PIN}comit = 1\nenv = {{ A = 1 }}\n[forks.other]\nversion = '1'")
    text = text.replace("[environment]", "[enviroment]")
    error = refused(tmp_path, text)
    path = tmp_path / "forks.toml"
    [first, *others] = error.message.splitlines()
    assert error.where == f"{path}:3"
    assert first.startswith("enviroment is not a key here (did you mean 'environment'?); expected")
    assert [row.partition(" is ")[0].partition(" pins ")[0] for row in others] == [
        f"{path}:7: forks.tiny.version",
        f"{path}:10: forks.tiny.comit",
        f"{path}:11: forks.tiny.env.A",
        f"{path}:12: forks.other",
        f"{path}: environment",
    ]
    assert "expected one of version, sdist, git, tag, commit, submodules, tests," in others[1]


@pytest.mark.parametrize(
    ("at", "line"),
    [
        (("a", "b"), 2),
        (("a", "c", "d"), 3),
        (("a", "c", "zzz"), 3),
        (("x", "y", "k"), 6),
        (("x", "missing"), None),
        (("q",), None),
    ],
)
def test_the_line_of_a_key_is_found(at: tuple[str, ...], line: int | None) -> None:
    text = "[a]\nb = 1\nc = { d = 2 }\n\n[x.'y'] # note\n\"k\" = 3\n"
    assert line_of(text, at) == line


def test_a_copy_of_a_project_has_the_patches_of_a_folder_that_is_a_link(tmp_path: Path) -> None:
    write(tmp_path / "project", {"forks.toml": FULL, "patches/other/series": ""})
    write(tmp_path / "shared", {"series": "0010-a.patch\n"})
    (tmp_path / "project/patches/tiny-ext").symlink_to("../../shared")
    manifest = load_manifest(tmp_path / "project/forks.toml")
    for links in (False, True):
        (copy := tmp_path / "copies" / str(links)).mkdir(parents=True)
        copy_files(manifest, copy, links=links)
        assert (copy / "patches/tiny-ext").is_symlink() == links
        assert (copy / "patches/tiny-ext/series").exists() != links
