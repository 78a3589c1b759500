import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from patchwheel.kit.errors import MachineError
from patchwheel.kit.process import scrub_environment
from patchwheel.kit.repo import Blob, GitError, Repository
from patchwheel.patch.file import Patch
from patchwheel.series.apply import stage_patches
from tests.fixtures.support import git, make_patch, make_upstream, write

ODD = 'a "quoted" \\ näme\twith\nall.txt'
NOT_UTF8 = b"caf\xe9.txt".decode(errors="surrogateescape")
FILES = [
    ("plain.txt", "100644", b"one\ntwo\nthree\n"),
    ("bin/run", "100755", b"#!/bin/sh\n"),
    ("empty", "100644", b""),
    (ODD, "100644", b"odd\n"),
    (NOT_UTF8, "100644", b"latin\n"),
    ("-dash/x", "100644", b"\r\nno newline at end"),
    ("data.bin", "100644", bytes(range(256)) * 40),
]


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return Repository.bare(tmp_path / "bare.git")


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    """A patch that changes plain.txt, whose upstream is beside it."""
    make_upstream(tmp_path / "upstream", {"plain.txt": FILES[0][2], "bin/run": FILES[1][2]})
    path = tmp_path / "1.patch"
    path.write_bytes(make_patch(tmp_path / "upstream", {"plain.txt": "one\n2\nthree\n"}))
    return path


def test_imported_files_come_back_byte_for_byte(repo: Repository) -> None:
    tree = repo.import_files(FILES)
    found = repo.files(tree)
    assert {p: b.mode for p, b in found.items()} == {p: m for p, m, _ in FILES}
    data = repo.read([blob.oid for blob in found.values()])
    assert {p: data[b.oid] for p, b in found.items()} == {p: d for p, _, d in FILES}


def test_a_tree_depends_on_nothing_but_its_files(repo: Repository, tmp_path: Path) -> None:
    tree = repo.import_files(FILES)
    assert Repository.bare(tmp_path / "other.git").import_files(FILES[::-1]) == tree
    plain = [f for f in FILES if f[0] != NOT_UTF8]
    write(tmp_path / "real", {path: data for path, _, data in plain})
    (tmp_path / "real" / "bin" / "run").chmod(0o755)
    commit = make_upstream(tmp_path / "real", {})
    assert repo.import_files(plain) == git(tmp_path / "real", "rev-parse", f"{commit}^{{tree}}")


def test_no_files_are_the_empty_tree(repo: Repository) -> None:
    empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert repo.import_files([]) == empty
    assert repo.files(empty) == {}


def test_a_second_import_keeps_nothing_of_the_first(repo: Repository) -> None:
    repo.import_files(FILES)
    assert list(repo.files(repo.import_files(FILES[:1]))) == ["plain.txt"]


def test_imports_at_the_same_time_each_get_their_own_tree(repo: Repository) -> None:
    trees: dict[int, str] = {}

    def work(number: int) -> None:
        trees[number] = repo.import_files([("n", "100644", b"%d" % number)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, tree in trees.items():
        oid = repo.files(tree)["n"].oid
        assert repo.read([oid])[oid] == b"%d" % number
    assert len(trees) == 4


def test_an_import_that_fails_leaves_no_ref(repo: Repository) -> None:
    with pytest.raises(GitError):
        repo.import_files([("a", "100644", b""), ("b", "999999", b"")])
    repo.import_files(FILES)
    assert repo.git("for-each-ref") == b""


def test_attributes_in_the_tree_change_no_byte(repo: Repository, tmp_path: Path) -> None:
    files = [
        (".gitattributes", "100644", b"* text eol=crlf ident\n"),
        ("a.txt", "100644", b"$Id$\nline\r\n"),
    ]
    repo.checkout(repo.import_files(files), tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"$Id$\nline\r\n"


def test_checkout_writes_bytes_and_modes(repo: Repository, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    repo.checkout(repo.import_files(FILES), out)
    for path, mode, data in FILES:
        file = out / path
        assert file.read_bytes() == data
        assert bool(file.stat().st_mode & stat.S_IXUSR) == (mode == "100755")
    assert len([p for p in out.rglob("*") if p.is_file()]) == len(FILES)


def test_read_names_a_missing_object(repo: Repository) -> None:
    with pytest.raises(GitError, match="cat-file") as caught:
        repo.read(["0" * 39 + "1"])
    assert "is missing" in caught.value.stderr
    assert repo.read([]) == {}


def test_a_side_of_a_change_that_is_missing_is_empty(repo: Repository) -> None:
    old = repo.import_files([("a", "100644", b"1\n")])
    new = repo.import_files([("b", "100644", b"2\n")])
    gone, made = repo.changes(old, new)
    data = repo.read([side.oid for change in (gone, made) for side in (change.old, change.new)])
    assert [data[gone.old.oid], data[made.new.oid]] == [b"1\n", b"2\n"]
    assert data[gone.new.oid] == data[made.old.oid] == b""


def test_has_and_tree_of(repo: Repository) -> None:
    tree = repo.import_files(FILES)
    assert repo.has(tree)
    assert not repo.has("1" * 40)
    with pytest.raises(GitError):
        repo.tree_of("refs/heads/none")


def test_changes_list_each_path_with_both_sides(repo: Repository) -> None:
    old = repo.import_files(FILES)
    edited = [("plain.txt", "100755", b"one\ntwo\n"), *FILES[2:]]
    edited.append(("added", "100644", b"new"))
    new = repo.import_files(edited)
    changes = {c.path: c for c in repo.changes(old, new)}
    assert {p: c.status for p, c in changes.items()} == {
        "plain.txt": "M",
        "bin/run": "D",
        "added": "A",
    }
    assert changes["plain.txt"].old.mode == "100644"
    assert changes["plain.txt"].new == repo.files(new)["plain.txt"]
    assert changes["bin/run"].new == Blob(mode="000000", oid="0" * 40)
    assert repo.changes(old, old) == []


def test_odd_names_survive_changes(repo: Repository) -> None:
    old = repo.import_files(FILES)
    kept = [f for f in FILES if f[0] not in {ODD, NOT_UTF8}]
    changes = repo.changes(old, repo.import_files(kept))
    assert {c.path for c in changes} == {ODD, NOT_UTF8}


def read_patch(path: Path) -> Patch:
    return Patch(path=path, data=path.read_bytes())


def apply_patches(repo: Repository, tree: str, patches: list[Path]) -> str:
    with stage_patches(repo, tree, [read_patch(path) for path in patches]) as (changes, env):
        contents = repo.read([change.new.oid for change in changes], env=env)
    rows = [(change.path, change.new.mode, contents[change.new.oid]) for change in changes]
    return repo.import_files(rows, onto=tree)


def test_patches_apply_in_order_or_not_at_all(
    repo: Repository, patch: Path, tmp_path: Path
) -> None:
    second = tmp_path / "2.patch"
    more = {"plain.txt": "one\n2\n3\n", "new": "x\n"}
    second.write_bytes(make_patch(tmp_path / "upstream", more))
    tree = repo.import_files(FILES)
    files = repo.files(apply_patches(repo, tree, [patch, second]))
    data = repo.read([files["plain.txt"].oid, files["new"].oid])
    assert list(data.values()) == [b"one\n2\n3\n", b"x\n"]
    with pytest.raises(GitError) as caught:
        apply_patches(repo, tree, [second])
    assert "plain.txt" in caught.value.stderr


def test_a_kept_index_is_used_and_changes_nothing(
    repo: Repository, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = repo.import_files(FILES)
    made = apply_patches(repo, tree, [patch])
    repo.keep_index(tree)
    words: list[str] = []
    run = Repository.git

    def watched(self: Repository, *args: str, **more: object) -> bytes:
        words.extend(args)
        return run(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Repository, "git", watched)
    assert apply_patches(repo, tree, [patch]) == made
    assert "apply" in words
    assert "read-tree" not in words


def test_what_is_tried_and_not_kept_leaves_nothing(repo: Repository, patch: Path) -> None:
    tree = repo.import_files(FILES)
    before = sorted(repo.git_dir.rglob("*"))
    with stage_patches(repo, tree, [read_patch(patch)]) as ([change], env):
        assert repo.read([change.new.oid], env=env) == {change.new.oid: b"one\n2\nthree\n"}
    assert not repo.has(change.new.oid)
    assert sorted(repo.git_dir.rglob("*")) == before


def test_a_commit_says_who_and_when(repo: Repository) -> None:
    tree = repo.import_files(FILES)
    first = repo.commit(tree, "subject\n\nbody\n")
    who = "A <a@example.org>"
    second = repo.commit(tree, "next", first, author=who, when="1700000000 +0100")
    show = repo.text("show", "-s", "--format=%an <%ae> %at %cn %cI %P", second)
    assert show == f"{who} 1700000000 patchwheel 2023-11-14T23:13:20+01:00 {first}"
    assert repo.text("show", "-s", "--format=%ct", first) == "0"


def test_the_users_configuration_and_hooks_do_not_count(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[diff]\n\tnoprefix = true\n[core]\n\tabbrev = 4\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert repo.git("config", "--get", "diff.noprefix", ok=(1,)) == b""


GRAPH = "objects/info/commit-graphs/commit-graph-chain.lock"


@pytest.mark.parametrize("lock", ["refs/heads/x.lock", "config.lock", GRAPH])
def test_what_a_git_that_was_killed_locked_is_unlocked(repo: Repository, lock: str) -> None:
    tree = repo.import_files([("a", "100644", b"1")])
    commit = repo.commit(tree, "x")
    (repo.git_dir / lock).parent.mkdir(parents=True, exist_ok=True)
    (repo.git_dir / lock).touch()
    words = ["update-ref", "refs/heads/x", commit]
    if lock == "config.lock":
        words = ["config", "x.y", "z"]
    elif lock == GRAPH:
        repo.git("update-ref", "refs/heads/y", commit)
        words = ["commit-graph", "write", "--reachable", "--split"]
    # One that runs there may be the owner.
    with subprocess.Popen(
        ["git", "cat-file", "--batch"],
        cwd=repo.git_dir,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdin
        assert other.stdout
        other.stdin.write(f"{tree}\n".encode())
        other.stdin.flush()
        other.stdout.readline()
        with pytest.raises(GitError, match="File exists"):
            repo.git(*words)
        other.kill()
    repo.git(*words)
    assert not (repo.git_dir / lock).exists()


def test_a_failure_carries_what_git_said(repo: Repository) -> None:
    with pytest.raises(GitError) as caught:
        repo.git("rev-parse", "--verify", "none")
    assert caught.value.status == 128
    assert "fatal" in caught.value.stderr
    assert "rev-parse" in str(caught.value)


def test_git_missing_is_the_machines_fault(
    repo: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="git cannot be started"):
        repo.git("version")


def test_scrubbing_keeps_only_the_way_to_a_remote(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_CONFIG_COUNT", "GIT_SSL_CAINFO"):
        monkeypatch.setenv(name, "x")
    scrub_environment()
    assert [n for n in os.environ if n.startswith("GIT_")] == [
        "GIT_ALLOW_PROTOCOL",
        "GIT_SSL_CAINFO",
    ]
