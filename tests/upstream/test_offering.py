"""A patch for upstream: on its main branch, with what it requires, and nothing of ours."""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import support
from tests.fixtures.projects import PYPROJECT, Site, lines, make_site, own_files


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """0010 changes a; 0020 changes b; 0030 changes a and c, and requires 0010; 0040 needs 0020."""
    folder = tmp_path_factory.mktemp("submit")
    site, upstream = make_site(folder, {}), folder / "upstream"
    first: dict[str, str | bytes | None] = {"a": lines(), "b": lines()}
    first |= {"pyproject.toml": PYPROJECT.format("1.0"), **own_files(folder, "1.0")}
    support.make_upstream(upstream, first, tag="v1.0")
    support.git(upstream, "branch", "-m", "devel")
    support.git(upstream, "config", "uploadpack.allowFilter", "true")
    support.make_upstream(upstream, {"a": lines(l10="theirs"), "other": "1\n"}, tag="v1.1")
    path = site.root / "forks.toml"
    path.write_text(f'{path.read_text()}git = "file://{upstream}"\ntag = "v1.0"\n')
    site.run("dev", "demo")
    commit(
        site, {"a": lines(l30="ours", l50="more"), "c": "1\n"}, "ENH: c", "Requires: demo/0010-a"
    )
    commit(site, {"b": lines(l10="again")}, "ENH: b", "Drop-When: never")
    site.run("export", "demo")
    return site


def commit(site: Site, files: dict[str, str | bytes | None], subject: str, trailer: str) -> None:
    support.write(site.work, files)
    site.git("add", "-A")
    trailers = ["Upstream-Status: Inappropriate [ours]", trailer, "Signed-off-by: Z <z@e>"]
    body = "Why.\n\n" + "\n".join(filter(None, trailers))
    site.git("commit", "-q", "-m", f"{subject}\n\n{body}")


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    return template.at(tmp_path / "project")


def submitted(site: Site, *words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(site.run("submit", "demo", *words, "--json"))
    return answer


def test_a_branch_has_the_patch_and_what_it_requires_on_upstreams_branch(
    site: Site, template: Site, tmp_path: Path
) -> None:
    before = site.state()
    made = submitted(site, "0030-enh-c.patch")
    assert site.state() == before
    assert made["base"].startswith("devel (")
    assert made["commits"] == ["A", "ENH: c"]
    # As somebody pushes it, to a copy of upstream's repository.
    upstream, copy = template.root.parent / "upstream", tmp_path / "YOU" / "upstream"
    support.git(tmp_path, "clone", "-q", "--bare", str(upstream), str(copy))
    push = re.sub(r"file://\S*/YOU/upstream", f"file://{copy}", made["push"])
    support.git(tmp_path, *shlex.split(push)[1:])
    branch = "0030-enh-c"
    log = support.git(copy, "log", "--format=%an|%cn|%s", f"devel..{branch}").splitlines()
    assert log == ["A U Thor|A U Thor|ENH: c", "A U Thor|A U Thor|A"]
    assert support.git(copy, "merge-base", branch, "devel") == support.git(
        copy, "rev-parse", "devel"
    )
    message = support.git(copy, "log", "-1", "--format=%B", branch)
    assert message == "ENH: c\n\nWhy.\n\nSigned-off-by: Z <z@e>"
    wanted = lines(l10="theirs", l30="ours", l50="more")
    assert support.git(copy, "show", f"{branch}:a").encode() + b"\n" == wanted
    assert support.git(copy, "diff", "--name-only", "devel", branch).split() == ["a", "c"]
    # The draft has what upstream is told, and the second time it is the same branch.
    assert made["text"].startswith("ENH: c\n\nWhy.\n\nSigned-off-by")
    assert "It builds on these commits, which come first:\n\n* A\n" in made["text"]
    assert "Upstream-Status" not in made["text"]
    ref = support.git(tmp_path, "-C", made["repository"], "rev-parse", made["ref"])
    assert submitted(site, "0030-enh-c") == made
    assert support.git(tmp_path, "-C", made["repository"], "rev-parse", made["ref"]) == ref


@dataclass(frozen=True)
class Reaching(Site):
    """A project that finds what it tests with on the user's index."""

    @property
    def index(self) -> dict[str, str]:
        return {"UV_INDEX": (self.shelf / "simple").as_uri()}


@pytest.mark.network
def test_each_patch_is_tested_alone_and_where_it_is_submitted(site: Site, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    shutil.copytree(site.shelf.parent / "upstream", upstream)
    support.make_upstream(upstream, {"b": lines(l1="theirs"), **own_files(tmp_path, "1.2.dev0")})
    path = site.root / "forks.toml"
    text = re.sub(r'git = ".*"', f'git = "file://{upstream}"', path.read_text())
    path.write_text(text.replace("requires = []", 'requires = []\ntest-requires = ["pytest"]'))
    there = "from pathlib import Path\nhere = Path(__file__).parent\ndef test():\n    assert "
    commit(site, {"test_a.py": f"{there}'ours' in (here / 'a').read_text()\n"}, "TST: a", "")
    needs = "Requires: demo/0010-a"
    commit(site, {"test_c.py": f"{there}'ours' in (here / 'a').read_text()\n"}, "TST: c", needs)
    commit(site, {"test_b.py": f"{there}'theirs' not in (here / 'b').read_text()\n"}, "TST: b", "")
    site.run("export", "demo")
    reaching = Reaching(root=site.root, store=site.store, shelf=site.shelf, fork="demo")
    reaching.run("lock")
    before = site.state()
    done = reaching.done("test", "demo", "--each")
    out, said = done.stdout, done.stderr
    rows = dict(re.findall(r"(?m)^ *(00[567]0-tst-.\.patch)(.*)$", out))
    assert done.returncode == 6, said
    names = "0010-a.patch, 0020-b.patch, 0030-enh-c.patch, 0040-enh-b.patch, 0050-tst-a.patch"
    assert f"patches of demo fail alone: {names}\n" in said
    assert "upstream's tests fail" in rows["0050-tst-a.patch"]
    assert rows["0060-tst-c.patch"].split() == ["0010-a.patch", "passes"]
    assert rows["0070-tst-b.patch"].split() == ["passes"]
    assert "`Requires: demo/0020-b`" in out
    # At upstream's main branch, only one of the two passes.
    assert submitted(reaching, "0060-tst-c", "--test")["tested"]
    told = reaching.run("submit", "demo", "0070-tst-b", "--test", status=6)
    assert "upstream's tests fail" in told
    # The commands of the page.
    page = (support.ROOT / "docs/how-to/import.md").read_text()
    commands = re.findall(r"(?m)^    patchwheel ((?:submit|test) .+)$", page)
    assert [command.partition("lobpcg")[2] for command in commands] == [
        "",
        " --base v1.18.1",
        " --test",
        "",
    ]
    known = {"scipy": "demo", "0040-lobpcg": "0060-tst-c", "v1.18.1": "v1.1"}
    for command in commands:
        status = 6 if "--each" in command else 0
        reaching.run(*(known.get(word, word) for word in command.split()), status=status)
    assert site.state() == before
    assert not (site.root / "dist").exists()
    for words in (("--dev",), ("--wheels", "work")):
        assert "--each is for the series as it is" in site.run(
            "test", "demo", "--each", *words, status=2
        )


def test_what_is_printed_names_branch_command_and_text(site: Site) -> None:
    said = site.run("submit", "demo", "0010-a", "--base", "v1.0")
    assert said.startswith("commit: A\non v1.0 (")
    assert re.search(
        r"(?m)^to push it: git -C \S+ push file://\S+/YOU/upstream refs/patchwheel", said
    )
    assert "The commits apply to v1.0 at " in said


def test_what_upstream_has_by_now_is_left_out(site: Site, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    shutil.copytree(site.shelf.parent / "upstream", upstream)
    path = site.root / "forks.toml"
    path.write_text(re.sub(r'git = ".*"', f'git = "file://{upstream}"', path.read_text()))
    support.make_upstream(upstream, {"a": lines(l10="theirs", l30="ours")})
    made = submitted(site, "0030-enh-c")
    assert (made["commits"], made["landed"]) == (["ENH: c"], ["0010-a.patch"])
    said = site.run("submit", "demo", "0010-a", status=3)
    assert "nothing is left of 0010-a.patch: upstream devel has it" in said
    assert "patchwheel status demo --against devel" in said
    support.make_upstream(upstream, {"a": lines(l10="theirs", l29="theirs", l30="theirs")})
    said = site.run("submit", "demo", "0010-a", status=3)
    assert "it conflicts with upstream devel: 0010-a.patch in a (1 conflict)" in said
    assert "patchwheel rebase demo --onto devel" in said
    # A submodule is another repository.
    entry = f"160000,{'ab' * 20},vendor"
    support.git(upstream, "update-index", "--add", "--cacheinfo", entry)
    support.git(upstream, "commit", "-q", "-m", "vendor is a submodule")
    commit(site, {"vendor/new": "1\n"}, "ENH: vendor", "")
    site.run("export", "demo")
    said = site.run("submit", "demo", "0050-enh-vendor", status=3)
    assert "changes the submodule vendor, a repository of its own" in said


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("0010-b",), 3, "no patch '0010-b' (did you mean '0020-b'?)"),
        (("0010-a", "--base", "devle"), 4, "did you mean devel?"),
        (("0040-enh-b",), 3, "trailer of its message, `Requires: demo/0020-b`"),
        (("0010-a", "--offline"), 0, ""),
    ],
)
def test_what_cannot_be_submitted_is_refused(
    site: Site, words: tuple[str, ...], code: int, told: str
) -> None:
    if "--offline" in words:
        # Its main branch is not known offline, unless it has a usual name.
        words = (*words, "--base", "devel")
    status, said = site.tried("submit", "demo", *words)
    assert (status, told in said) == (code, True), said


def test_without_a_repository_there_is_no_branch(site: Site) -> None:
    path = site.root / "forks.toml"
    path.write_text(re.sub(r'git = ".*"', 'git = "file:///nonexistent"', path.read_text()))
    said = site.run("submit", "demo", "0010-a", status=4)
    assert "error: demo: git cannot fetch from file:///nonexistent" in said
    assert "'/nonexistent' does not appear to be a git repository" in said
