from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from patchwheel.kit.errors import ManifestError
from patchwheel.manifest import model as manifest_module
from patchwheel.manifest.model import load_manifest
from patchwheel.manifest.toml_reader import line_of
from tests.fixtures.support import dedent, write

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(Path(manifest_module.__file__).with_name("forks.schema.json").read_text())
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

[forks.tiny-ext]
git = "https://example.org/tiny"
tag = "v1"
commit = "{COMMIT}"
version = "1.0rc1"
sdist = {{ filename = "tiny_ext-1.0rc1.tar.gz", sha256 = "{SHA}" }}
config-settings = {{ setup-args = ["-Da=b"], editable = "no" }}
env = {{ CFLAGS = "-O1" }}
build-requires = ["cython==3.2.4"]
system = ["gfortran"]
lacking = {{ gfortran = {{ setup-args = ["-Dfortran=false"] }} }}
demands = ["TARGET"]

[forks.tiny-ext.upstream-wheel]
distribution = "tiny-other"
only-in-base = ["tiny/_wheel.json"]
only-in-build = ["tiny/v2/*"]

[forks.tiny-ext.variants.one]
env = {{ A = "1" }}

[forks.tiny-ext.variants.two]
upstream-wheel = {{ distribution = "tiny-two" }}
env = {{ CFLAGS = "-O2" }}
system = []
"""


def load(folder: Path, text: str) -> manifest_module.Manifest:
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
    assert tiny.distribution == "tiny-other"
    assert tiny.patches == tmp_path / "patches" / "tiny-ext"
    assert tiny.config_settings == {"setup-args": ("-Da=b",), "editable": "no"}
    assert tiny.env == {"CFLAGS": "-O1", "A": "1"}
    assert tiny.demands == ("TARGET",)
    assert tiny.lacking == {"gfortran": {"setup-args": ("-Dfortran=false",)}}
    assert tiny.upstream_wheel
    assert tiny.upstream_wheel.only_in_build == ("tiny/v2/*",)
    assert found.root == tmp_path
    assert found.lock_path == tmp_path / "forks.lock"


def test_the_manifest_of_this_project_is_valid() -> None:
    found = load_manifest(ROOT / "forks.toml")
    assert list(found.forks) == ["scipy", "scikit-learn", "scikit-image", "cupy"]
    jsonschema.validate(tomllib.loads((ROOT / "forks.toml").read_text()), SCHEMA)


def test_the_schema_names_exactly_the_keys_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    read: dict[str, set[str]] = {}

    def known(_self: object, _table: object, at: tuple[str, ...], keys: Sequence[str]) -> None:
        read[".".join(at)] = set(keys)

    monkeypatch.setattr(manifest_module._Reader, "known", known)
    load(tmp_path, FULL)
    fork_keys = SCHEMA["$defs"]["fork"]["properties"]
    described: dict[str, dict[str, Any]] = {
        "": SCHEMA["properties"],
        "environment": SCHEMA["properties"]["environment"]["properties"],
        "forks.tiny-ext": fork_keys,
        "forks.tiny-ext.sdist": fork_keys["sdist"]["properties"],
        "forks.tiny-ext.upstream-wheel": fork_keys["upstream-wheel"]["oneOf"][1]["properties"],
    }
    at = "forks.tiny-ext.variants"
    variant = fork_keys["variants"]["additionalProperties"]["properties"]
    described |= {f"{at}.one": variant, f"{at}.two": variant}
    at = f"{at}.two.upstream-wheel"
    described[at] = described["forks.tiny-ext.upstream-wheel"]
    assert read == {at: set(keys) for at, keys in described.items()}


def test_a_variant_says_what_is_otherwise(tmp_path: Path) -> None:
    jsonschema.validate(tomllib.loads(dedent(FULL)), SCHEMA)
    found = load(tmp_path, FULL)
    [one, two] = found.every
    assert (one.locked_as, two.locked_as) == ("tiny-ext", "tiny-ext:two")
    assert (one.distribution, two.distribution) == ("tiny-other", "tiny-two")
    assert two.env == {"CFLAGS": "-O2"}
    assert (two.system, two.build_requires) == ((), one.build_requires)
    assert found.select([], "two") == [two]
    [fork] = found.select([])
    assert fork.env == one.env


def test_a_variant_that_is_not_there(tmp_path: Path) -> None:
    found = load(tmp_path, f"{FULL}\n[forks.plain]\n{GOOD}")
    assert [f.name for f in found.select([], "two")] == ["tiny-ext"]
    for names in (["tiny-ext"], []):
        with pytest.raises(ManifestError, match=r"has no variant 'too' .*did you mean"):
            found.select(names, "too")
    with pytest.raises(ManifestError, match="plain has no variant 'two'"):
        found.select(["plain", "tiny-ext"], "two")


def test_without_an_sdist_a_commit_is_the_pin(tmp_path: Path) -> None:
    text = fork(f'version = "1"\ngit = "file:///x"\ncommit = "{COMMIT}"')
    found = load(tmp_path, text).forks["tiny"]
    assert found.pin == {
        "version": "1",
        "git": "file:///x",
        "commit": COMMIT,
        "sdist": None,
    }
    assert found.distribution == "tiny"


def test_a_commit_that_becomes_known_does_not_change_the_pin_of_an_sdist(
    tmp_path: Path,
) -> None:
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
        (f"{HEAD}pyton = 1\n[forks.a]\n{GOOD}", 6, "environment.pyton is not a key here (did you mean 'python'?)"),
        (f"{HEAD}\n[fork.a]\n{GOOD}", 7, "fork is not a key here (did you mean 'forks'?)"),
        (fork(f"{GOOD}comit = 1"), 11, "forks.tiny.comit is not a key here (did you mean 'commit'?)"),
        (fork(f"{GOOD}zzz = 1"), 11, "forks.tiny.zzz is not a key here"),
        (fork(f'{GOOD}sdist = {{ filename = "a.tar.gz", sha265 = "" }}'), 11, "forks.tiny.sdist.sha265 is not a key here (did you mean 'sha256'?)"),
        (fork(f"{GOOD}[forks.tiny.upstream-wheel]\nonly-in-bse = []"), 12, "did you mean 'only-in-base'?"),
        (fork(PIN), 7, "forks.tiny.version is missing"),
        (fork(f'{PIN}version = "1+local"'), 10, "forks.tiny.version is '1+local'"),
        (fork(f"{PIN}version = 1"), 10, "forks.tiny.version is 1"),
        (fork('version = "1"\ngit = "x"\ncommit = "abc"'), 10, "forks.tiny.commit is 'abc'"),
        (fork('version = "1"'), 7, "forks.tiny pins no source"),
        (fork('version = "1"\ngit = "x"\ntag = "v1"'), 7, "forks.tiny pins no source"),
        (fork(GOOD, name="Tiny_Ext"), 7, "forks.Tiny_Ext is 'Tiny_Ext'"),
        (fork(f'{GOOD}sdist = "a.tar.gz"'), 11, "forks.tiny.sdist is no table"),
        (fork(f'{GOOD}sdist = {{ filename = "../a.tar.gz", sha256 = "{SHA}" }}'), 11, "forks.tiny.sdist.filename is '../a.tar.gz'"),
        (fork(f'{GOOD}sdist = {{ filename = "a.zip", sha256 = "{SHA}" }}'), 11, "forks.tiny.sdist.filename is 'a.zip'"),
        (fork(f'{GOOD}sdist = {{ filename = "a.tar.gz", sha256 = "{SHA.upper()}f" }}'), 11, "forks.tiny.sdist.sha256"),
        (fork(f"{GOOD}env = {{ A = 1 }}"), 11, "forks.tiny.env.A is 1"),
        (fork(f"{GOOD}config-settings = {{ a = [1] }}"), 11, "forks.tiny.config-settings.a is [1]"),
        (fork(f'{GOOD}system = "gfortran"'), 11, "forks.tiny.system is 'gfortran'"),
        (
            fork(f"{GOOD}lacking = {{ nvcc = {{}} }}"),
            11,
            "forks.tiny.lacking.nvcc is not listed",
        ),
        (fork(f"{GOOD}[forks.tiny.variants.A]"), 11, "forks.tiny.variants.A is 'A'"),
        (fork(f'{GOOD}[forks.tiny.variants.a]\nversion = "2"'), 12, "forks.tiny.variants.a.version is not a key here"),
        (fork(f"{GOOD}[forks.tiny.variants.a]\n[forks.tiny.variants.b]"), 7, "forks.tiny carries the name 'tiny', as tiny does"),
        (fork(f"{GOOD}upstream-wheel = true"), 11, "forks.tiny.upstream-wheel is no table"),
        (fork(GOOD).replace('"arrayapi"', '"Array_API"'), 4, "environment.label is 'Array_API'"),
        (fork(GOOD).replace('["3.12"]', '"3.12"'), 5, "environment.python is '3.12'"),
        (fork(GOOD).replace('["3.12"]', '["3.12.1"]'), 5, "environment.python is '3.12.1'"),
        (fork(GOOD).replace('["3.12"]', "[]"), 5, "environment.python is empty"),
        (fork(GOOD).replace("schema = 1", "schema = 2"), 1, "schema is 2"),
        (fork(GOOD).replace("schema = 1", "schema = true"), 1, "schema is True"),
        (fork(GOOD).replace("schema = 1", ""), None, "schema is None"),
        (HEAD, None, "forks is missing"),
        (f"{HEAD}\n[forks]", 7, "forks is empty"),
        (f'schema = 1\nforks.a = "x"\n{HEAD[12:]}', 2, "forks.a is no table"),
        (f"schema = 1\n[forks.tiny]\n{GOOD}", None, "environment is missing"),
        (fork(f"{GOOD}[forks.other]\n{GOOD}upstream-wheel = {{ distribution = 'tiny' }}"), 11, "forks.other carries the name 'tiny'"),
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
    with pytest.raises(ManifestError, match="cannot be read"):
        load_manifest(tmp_path / "forks.toml")


def test_forks_are_selected_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    text = fork(f"{GOOD}[forks.second]\n{GOOD}[forks.third]\n{GOOD}")
    found = load(tmp_path, text)
    assert [f.name for f in found.select([])] == ["tiny", "second", "third"]
    assert [f.name for f in found.select(["third", "tiny"])] == ["tiny", "third"]
    with pytest.raises(ManifestError, match=r"'secnd' \(did you mean 'second'\?\)"):
        found.select(["secnd"])


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
