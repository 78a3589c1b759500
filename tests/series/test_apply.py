import random
import shutil
import threading
import time
from contextlib import nullcontext
from typing import Any

import pytest

from patchwheel.kit.errors import MachineError, PatchError
from patchwheel.kit.repo import Repository
from patchwheel.patch.simulate import DoesNotApplyError
from patchwheel.series import apply
from patchwheel.series.apply import apply_series, patch_trees, start_simulation
from tests.fixtures.patches import ONE, Files, Kit, mail, numbered
from tests.fixtures.support import full_disk


def refusal(kit: Kit, base: Files, *patches: bytes) -> DoesNotApplyError:
    source = kit.source(base)
    with pytest.raises(DoesNotApplyError) as caught:
        apply_series(source, kit.series(*patches), store=kit.store)
    assert kit.store.memo("tree", "x") is None
    return caught.value


LINES = numbered(1, 30)


# --- what applies ---

STEPS: dict[str, list[Files]] = {
    "edits in order": [
        {"a": LINES},
        {"a": numbered(1, 30, l9="x")},
        {"a": numbered(1, 30, l9="y")},
    ],
    "undone again": [{"a": LINES}, {"a": numbered(1, 30, l9="x")}, {"a": LINES}],
    "new and removed": [{"a": b"1\n"}, {"d/b": b"2\n"}, {"d/b": b"2\n", "a": b"3"}],
    "empty files": [{"a": b""}, {"b": b""}, {"a": b"", "b": b"x\n"}, {"b": b""}],
    "rename chain": [{"a": LINES}, {"b": LINES}, {"c/d": numbered(1, 30, l3="x")}, {"a": LINES}],
    "renames swap": [{"a": LINES, "b": LINES * 2}, {"b": LINES, "a": LINES * 2}],
    "modes": [{"a": LINES}, {"a": ("100755", LINES)}, {"a": ("100644", b"x\n" + LINES)}],
    "no newline": [{"a": b"x\ny"}, {"a": b"x\ny\n"}, {"a": b"x\nz"}],
    "crlf target": [
        {"a": LINES.replace(b"\n", b"\r\n")},
        {"a": numbered(1, 30, l9="x").replace(b"\n", b"\r\n")},
    ],
    "not utf-8": [{"a": b"\xff\n\rb\n"}, {"a": b"\xfe\n\rb\n"}],
    "odd names": [{'é\tü "q\\': LINES, "sp ace": b"1\n"}, {'é\tü "q\\': b"2\n", "sp ace": b"2\n"}],
    "binary": [{"a": b"\0" * 50}, {"a": b"\0" * 40 + b"x"}, {"a": b"\0x"}, {"b": b"\0x"}, {}],
    "binary, then text": [{"a": b"\0\n"}, {"a": b"text\n"}, {"a": b"text\nmore\n"}],
    "link": [
        {"a": b"1\n"},
        {"a": b"1\n", "d/l": ("120000", b"../a")},
        {"a": b"1\n", "d/l": ("120000", b"x")},
    ],
    "file to link": [{"a": b"1\n", "b": b"2\n"}, {"a": ("120000", b"b"), "b": b"2\n"}],
    "file to folder": [{"a": b"1\n"}, {"a/b": b"2\n"}],
    "folder to file": [{"a/b": b"2\n", "a/c": b"3\n"}, {"a": b"1\n"}],
}


@pytest.mark.parametrize("states", STEPS.values(), ids=STEPS.keys())
def test_a_series_gives_the_tree_of_its_last_state(kit: Kit, states: list[Files]) -> None:
    source, series = kit.steps(*states)
    found = apply_series(source, series, store=kit.store)
    assert found.tree == kit.tree(states[-1])
    assert found.source is source
    assert not found.dev


def test_no_patches_give_the_source_tree(kit: Kit) -> None:
    source = kit.source({"a": b"1\n"})
    assert apply_series(source, kit.series(), store=kit.store).tree == source.tree


def test_a_known_series_runs_and_parses_nothing(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    source, series = kit.steps({"a": LINES}, {"a": numbered(1, 30, l9="x")})
    first = apply_series(source, series, store=kit.store)
    monkeypatch.setattr(Repository, "git", None)
    monkeypatch.setattr("patchwheel.patch.check_patch", None)
    assert apply_series(source, series, store=kit.store).tree == first.tree


def test_a_tree_that_was_lost_with_its_repository_is_made_again(kit: Kit) -> None:
    states: list[Files] = [{"a": LINES}, {"a": numbered(1, 30, l9="x")}]
    source, series = kit.steps(*states)
    first = apply_series(source, series, store=kit.store)
    shutil.rmtree(kit.repo.git_dir)
    kit.repo = Repository.bare(kit.repo.git_dir)
    source = kit.source(states[0])
    assert apply_series(source, series, store=kit.store).tree == first.tree
    assert kit.repo.has(first.tree)


def test_builds_that_want_the_same_tree_apply_its_series_once(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, series = kit.steps({"a": LINES}, {"a": numbered(1, 30, l9="x")})
    calls, found, real = [], [], apply._apply

    def slow(*args: Any, **options: Any) -> str:
        calls.append(args)
        time.sleep(0.2)
        return real(*args, **options)

    def want() -> None:
        found.append(apply_series(source, series, store=kit.store).tree)

    monkeypatch.setattr(apply, "_apply", slow)
    threads = [threading.Thread(target=want) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(calls), len(found), len({*found})) == (1, 3, 1)


def test_many_trees_do_not_pile_up_packs(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchwheel.series.apply.MANY_PACKS", 3)
    trees = []
    for number in range(8):
        source, series = kit.steps({"a": LINES}, {"a": numbered(1, 30, l9=f"x{number}")})
        trees.append(apply_series(source, series, store=kit.store).tree)
    assert all("a" in kit.content(tree) for tree in trees)
    assert len(list((kit.repo.git_dir / "objects" / "pack").glob("*.pack"))) <= 4


def test_renamed_and_renumbered_patches_are_the_same_tree(kit: Kit) -> None:
    source, series = kit.steps({"a": LINES}, {"a": numbered(1, 30, l9="x")})
    first = apply_series(source, series, store=kit.store)
    (kit.folder / "0010-p.patch").unlink()
    data = series.patches[0].data.replace(b"@@ -6,7 +6,7 @@", b"@@ -5,7 +5,7 @@")
    assert apply_series(source, kit.series(data), store=kit.store).tree == first.tree


def test_a_hunk_at_an_offset_is_applied_and_reported(kit: Kit) -> None:
    diff = kit.diff({"a": LINES}, {"a": numbered(1, 30, l9="x", l25="y")})
    source, series = kit.source({"a": b"new\nlines\n" + LINES}), kit.series(mail(diff))
    found = apply_series(source, series, store=kit.store)
    assert kit.content(found.tree)["a"] == b"new\nlines\n" + numbered(1, 30, l9="x", l25="y")
    assert start_simulation(source, series.patches).apply(series.patches[0]) == [2, 2]


# --- what does not ---


def test_a_conflict_names_patch_file_hunk_line_and_nearest_match(kit: Kit) -> None:
    good = mail(kit.diff({"a": LINES}, {"a": numbered(1, 30, l29="z")}))
    bad = mail(kit.diff({"a": LINES}, {"a": numbered(1, 30, l3="w", l16="x")}))
    base = b"one\ntwo\n" * 2 + numbered(1, 30, l14="other")
    error = refusal(kit, {"a": base}, good, bad.replace(b"@@ -1,6 +1,6 @@", b"@@ -2,6 +2,6 @@"))
    assert error.message == "0020-p.patch does not apply: hunk 2 does not match a at line 13"
    assert str(error.where) == f"{kit.folder}/0020-p.patch:22"
    assert error.expected == "'line 14' in line 18, which is 'other'"
    assert error.hint == "the nearest match begins in line 17 of a: 6 of 7 lines are equal"
    assert error.path == "a"
    assert not error.landed
    assert error.exit_code == 3


def test_nothing_like_the_hunk(kit: Kit) -> None:
    error = refusal(kit, {"a": b"entirely other\n"}, mail(kit.diff({"a": LINES}, {"a": LINES * 2})))
    assert "hunk 1 does not match a, which holds nothing like it" in error.message


def test_the_nearest_match_may_end_with_the_file(kit: Kit) -> None:
    error = refusal(
        kit, {"a": numbered(1, 8)}, mail(kit.diff({"a": LINES}, {"a": numbered(1, 30, l7="x")}))
    )
    assert error.expected == "'line 9' in line 9, which is beyond the file"


@pytest.mark.parametrize(
    "name", ["edits in order", "new and removed", "rename chain", "modes", "binary", "link"]
)
def test_an_applied_patch_is_called_applied(kit: Kit, name: str) -> None:
    states = STEPS[name]
    diff = kit.diff(states[0], states[1])
    error = refusal(kit, states[1], mail(diff))
    assert "0010-p.patch is already applied (landed?)" in error.message
    assert error.landed
    assert "remove it from the series of demo" in str(error.hint)


def test_the_same_patch_twice_is_called_applied(kit: Kit) -> None:
    data = mail(kit.diff({"a": LINES}, {"a": numbered(1, 30, l9="x")}))
    error = refusal(kit, {"a": LINES}, data, data)
    assert "0020-p.patch is already applied" in error.message


def test_an_ambiguous_hunk_at_an_offset_is_refused(kit: Kit) -> None:
    base = numbered(1, 30) * 2
    diff = kit.diff({"a": base}, {"a": numbered(1, 30, l9="x") + numbered(1, 30)})
    source, series = kit.source({"a": base}), kit.series(mail(diff))
    apply_series(source, series, store=kit.store)
    error = refusal(kit, {"a": b"one more\n" + base}, mail(diff))
    assert "hunk 1 is ambiguous: its lines occur 2 times in a, in lines 7, 37" in error.message
    assert error.expected == "line 6, or only one other place"


def fails(kit: Kit, old: Files, new: Files, base: Files) -> DoesNotApplyError:
    return refusal(kit, base, mail(kit.diff(old, new)))


def test_a_missing_file_is_looked_for_elsewhere(kit: Kit) -> None:
    old: Files = {"src/a.py": LINES}
    error = fails(kit, old, {"src/a.py": b"x\n"}, {"lib/new/a.py": LINES, "b": b""})
    assert error.message.endswith("there is no file src/a.py")
    assert error.hint == "moved? there is lib/new/a.py"


X: Files = {"x": b""}


@pytest.mark.parametrize(
    ("old", "new", "base", "message"),
    [
        (X, {**X, "a": b"1\n"}, {**X, "a": b"2\n"}, "there is a file a already"),
        (X, {**X, "a": b"1\n"}, {**X, "a/b": b"2\n"}, "a is a folder"),
        (X, {**X, "a/b": b"1\n"}, {**X, "a": b"2\n"}, "a is a file, not a folder"),
        (
            X,
            {**X, "a/b": b"1\n"},
            {**X, "a": ("120000", b"x")},
            "a is a symbolic link, not a folder",
        ),
        ({"a": b"1\n"}, {}, {"a": b"1\n2\n"}, "hunk 1 does not match"),
        ({"a": b"\0x"}, {"a": b"\0y"}, {"a": b"\0z"}, "is not the one the patch changes"),
        (
            {"a": ("120000", b"x")},
            {"a": ("120000", b"y")},
            {"a": b"x"},
            "has the mode 100644, not 120000",
        ),
        ({"a": b""}, {}, {"a": b"x\n"}, "holds more than the patch removes"),
        ({"a": LINES}, {"a": ("100755", LINES)}, {"a": ("100755", LINES)}, "is already applied"),
        (
            {"a": LINES, "b": LINES},
            {"a": ("100755", LINES), "b": numbered(1, 30, l9="x")},
            {"a": ("100755", LINES), "b": LINES},
            "it changes nothing in a",
        ),
        (
            {"a/b/l": ("120000", b"../c")},
            {"l": ("120000", b"../c")},
            {"a/b/l": ("120000", b"../c")},
            "the symbolic link 'l' points to '../c'",
        ),
    ],
)
def test_what_is_in_the_way_is_named(
    kit: Kit, old: Files, new: Files, base: Files, message: str
) -> None:
    assert message in fails(kit, old, new, base).message


def test_a_file_in_a_submodule_names_it(kit: Kit) -> None:
    source = kit.source({"x": b""})
    repo = kit.repo
    with repo.index(source.tree) as env:
        repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub", env=env)
        tree = repo.git("write-tree", env=env).decode().strip()
    series = kit.series(mail(kit.diff({"x": b""}, {"x": b"", "sub/f": b"1\n"})))
    broken = type(source)(fork=source.fork, git_dir=source.git_dir, tree=tree, epoch=0)
    with pytest.raises(DoesNotApplyError, match="sub is a submodule, not a folder"):
        apply_series(broken, series, store=kit.store)


def test_a_malformed_patch_is_refused_before_git_sees_it(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, series = (
        kit.source({"a.txt": b"1\n"}),
        kit.series(mail(ONE.replace(b"a.txt", b".git/x"))),
    )
    monkeypatch.setattr(Repository, "git", None)
    with pytest.raises(PatchError, match=r"reaches into a \.git folder"):
        apply_series(source, series, store=kit.store)


def test_what_only_git_refuses_is_told_in_its_words(kit: Kit) -> None:
    states: list[Files] = [{"a": b"\0"}, {"a": b"\0\1"}, {"a": b"\0\2"}]
    source, series = kit.steps(*states)
    data = [patch.data for patch in series.patches]
    broken = data[1].replace(b"\nliteral 2\n", b"\nliteral 3\n")
    with pytest.raises(PatchError, match=r"0020-p\.patch does not apply: error: corrupt"):
        apply_series(source, kit.series(data[0], broken), store=kit.store)


@pytest.mark.parametrize("step", ["apply --cached", "fast-import"])
def test_a_full_disk_is_not_blamed_on_the_patch(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    source, series = kit.steps({"a": LINES}, {"a": LINES * 2})
    full_disk(kit.store.root.parent / "bin", monkeypatch, step)
    with pytest.raises(MachineError, match="disk is full"):
        apply_series(source, series, store=kit.store)


def test_a_result_that_is_not_what_the_series_says_is_refused(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, series = kit.steps({"a": LINES}, {"a": LINES * 2})

    def made(files: Files) -> None:
        changes = kit.repo.changes(source.tree, kit.tree(files))
        staged = nullcontext((changes, dict[str, str]()))
        monkeypatch.setattr("patchwheel.series.apply.stage_patches", lambda *_: staged)

    made({"a": LINES})
    with pytest.raises(PatchError, match="a did not become what the series says"):
        apply_series(source, series, store=kit.store)
    made({"a": LINES * 2, "b": b"stray"})
    with pytest.raises(PatchError, match="b did not become"):
        apply_series(source, series, store=kit.store)


def test_a_lost_line_end_does_not_match_and_is_not_repaired(kit: Kit) -> None:
    error = fails(kit, {"a": b"1\n2"}, {"a": b"0\n2"}, {"a": b"1\n2\n"})
    assert error.expected == "'2' without a line end in line 2, which is '2'"


@pytest.mark.parametrize("seed", range(6))
def test_git_and_the_simulation_agree(kit: Kit, seed: int) -> None:
    """Random edits of files with many equal lines, applied to another edit: both agree."""
    rng = random.Random(seed)

    def edit(lines: list[str], count: int) -> list[str]:
        lines = list(lines)
        for _ in range(count):
            at = rng.randrange(len(lines) + 1)
            lines[at : at + rng.randrange(3)] = rng.choices("abcd", k=rng.randrange(3))
        return lines

    def file(lines: list[str]) -> bytes:
        return "".join(f"{line}\n" for line in lines).encode().removesuffix(end)

    applied = 0
    for _ in range(8):
        end = rng.choice([b"\n", b""])
        start = rng.choices("abcdefghijklmnop", k=rng.randrange(40))
        moved = edit(start, rng.randrange(2)) if rng.random() < 0.5 else start
        old, new = file(start), file(edit(start, 1 + rng.randrange(4)))
        if old == new:
            continue
        source = kit.source({"a": file(moved)})
        series = kit.series(mail(kit.diff({"a": old}, {"a": new}, f"-U{rng.randrange(1, 4)}")))
        try:
            [tree] = patch_trees(kit.repo, source.tree, series.patches)
        except PatchError:
            with pytest.raises(DoesNotApplyError):
                start_simulation(source, series.patches).apply(series.patches[0])
            continue
        applied += 1
        simulation = start_simulation(source, series.patches)
        try:
            simulation.apply(series.patches[0])
        except DoesNotApplyError as err:
            assert "ambiguous" in err.message  # noqa: PT017
            continue
        changed = simulation.changed().get("a")
        assert changed
        assert kit.content(tree)["a"] == changed.data
    assert applied
