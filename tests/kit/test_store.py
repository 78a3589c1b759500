import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchwheel.kit.entry import CACHEDIR_TAG, Kind
from patchwheel.kit.errors import MachineError
from patchwheel.kit.files import rmtree, write_atomically
from patchwheel.kit.store import Store, default_root
from tests import conftest
from tests.fixtures.support import Recorder, lacking, write

KEY = "0123456789abcdef" * 4


def maker(text: str = "content", made: list[Path] | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(folder, {"sub/file": text, "other": "more"})
        if made is not None:
            made.append(folder)

    return make


def must_not(folder: Path) -> None:
    pytest.fail("made again")


def test_the_tripwire_catches_a_test_that_opens_the_users_store() -> None:
    with pytest.raises(pytest.fail.Exception, match="the user's own store"):
        Store(conftest.REAL_STORE)


def test_the_place_is_the_variable_or_the_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATCHWHEEL_STORE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("PATCHWHEEL_STORE")
    assert default_root() == Path.home() / ".cache" / "patchwheel"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "patchwheel"


def test_an_entry_is_made_once_and_found_without_being_read(store: Store) -> None:
    path = store.get("wheels", KEY, maker())
    assert (path / "sub" / "file").read_text() == "content"
    assert store.get("wheels", KEY, must_not) == path
    assert store.find("wheels", KEY) == path
    assert store.find("wheels", "f" * 64) is None
    assert list((store.root / "tmp").iterdir()) == []


# Made elsewhere and moved, and made in place.
MADE: tuple[Kind, ...] = ("wheels", "environments")


def test_a_maker_that_fails_leaves_nothing(store: Store) -> None:
    def fails(folder: Path) -> None:
        maker()(folder)
        raise KeyboardInterrupt

    for kind in MADE:
        with pytest.raises(KeyboardInterrupt):
            store.get(kind, KEY, fails)
        assert store.find(kind, KEY) is None
        assert list((store.root / "tmp").iterdir()) == []
        assert list((store.root / kind).glob("*")) == []


DAMAGE: dict[str, tuple[str, str | None]] = {
    "truncated": ("sub/file", "cont"),
    "flipped": ("sub/file", "cOntent"),
    "empty": ("sub/file", ""),
    "added": ("sub/extra", ""),
    "deleted": ("other", None),
    "a link": ("other", "-> sub/file"),
    "no record": ("entry.json", None),
    "an empty record": ("entry.json", ""),
    "another record": ("entry.json", "[1]"),
    "an odd record": ("entry.json", f'{{"place": "wheels/{KEY}", "content": {{"other": 1}}}}'),
    "no list": ("files.json", None),
    "another list": ("files.json", "{}"),
}


def spoil(entry: Path, damage: str) -> None:
    name, text = DAMAGE[damage]
    (entry / name).unlink(missing_ok=True)
    if text and text.startswith("-> "):
        (entry / name).symlink_to(text[3:])
    elif text is not None:
        (entry / name).write_text(text)


@pytest.mark.parametrize("damage", [*DAMAGE, "moved"])
def test_a_damaged_entry_is_found_and_made_again(
    store: Store, report: Recorder, damage: str
) -> None:
    other = store.get("wheels", "f" * 64, maker("another entry"))
    path = store.get("wheels", KEY, maker())
    if damage == "moved":
        shutil.rmtree(path)
        other.rename(path)
    else:
        spoil(path, damage)
    made: list[Path] = []
    assert store.get("wheels", KEY, maker(made=made)) == path
    assert len(made) == 1
    assert (path / "sub" / "file").read_text() == "content"
    assert not (path / "sub" / "extra").exists()
    if damage != "no record":
        assert "making it again" in report.lines[0]


def test_an_unreadable_file_counts_as_damage(store: Store, report: Recorder) -> None:
    path = store.get("wheels", KEY, maker())
    (path / "sub" / "file").chmod(0)
    if os.access(path / "sub" / "file", os.R_OK):
        pytest.skip("root reads every file")
    assert store.find("wheels", KEY, hashed=True) is None
    assert "cannot be read" in report.lines[0]


def test_an_entry_in_place_is_made_where_it_stays(store: Store) -> None:
    made: list[Path] = []
    path = store.get("environments", KEY, maker(made=made))
    assert made == [path]
    # It is used in place: its user may install something, and its interpreter adds bytecode.
    write(path, {"added": "", "sub/__pycache__/file.pyc": ""})
    assert store.get("environments", KEY, must_not) == path


def test_what_a_killed_maker_left_in_place_is_removed_first(store: Store) -> None:
    store.ensure()
    left = store.path("environments", KEY)
    write(left, {"lib/half": ""})
    store.get("environments", KEY, maker())
    assert not (left / "lib").exists()


def test_an_environment_whose_interpreter_is_gone_is_made_again(
    store: Store, report: Recorder, tmp_path: Path
) -> None:
    write(tmp_path, {"python": ""})

    def make(folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(tmp_path / "python")

    path = store.get("environments", KEY, make)
    assert store.get("environments", KEY, must_not) == path
    (tmp_path / "python").unlink()
    store.get("environments", KEY, make)
    assert "is gone" in report.lines[0]


CHILD = """
import os, pathlib, sys, time
from patchwheel.kit import store
from patchwheel.kit.store import Store
store.PATIENCE = 0.1
root, kind, key = sys.argv[1:]
def make(folder):
    (folder / "file").write_text("content")
    with open(root + ".made", "a") as stream:
        stream.write("x")
    while not os.path.exists(root + ".go"):
        time.sleep(0.01)
store = Store(pathlib.Path(root), say=lambda line: print(line, flush=True))
store.get(kind, key, make)
"""


def child(store: Store, kind: Kind) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CHILD, str(store.root), kind, KEY]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("kind", MADE)
def test_processes_that_want_the_same_entry_make_it_once_and_say_that_they_wait(
    store: Store, kind: Kind
) -> None:
    made = Path(f"{store.root}.made")
    first = child(store, kind)
    wait_for(made)
    others = [child(store, kind) for _ in range(3)]
    for process in others:
        assert process.stdout
        assert "waiting for another build, which is at work on" in process.stdout.readline()
    Path(f"{store.root}.go").touch()
    said = [process.communicate(timeout=30)[0] for process in (first, *others)]
    assert said == [""] * 4
    assert made.read_text() == "x"
    assert store.find(kind, KEY, hashed=True)


@pytest.mark.parametrize("kind", MADE)
def test_a_killed_maker_leaves_a_store_that_the_next_one_uses_at_once(
    store: Store, report: Recorder, kind: Kind
) -> None:
    with child(store, kind) as process:
        wait_for(Path(f"{store.root}.made"))
        process.send_signal(signal.SIGKILL)
    assert store.find(kind, KEY) is None
    start = time.monotonic()
    store.get(kind, KEY, maker())
    assert time.monotonic() - start < 2
    assert report.lines == []


def test_different_entries_are_made_at_the_same_time(store: Store) -> None:
    with store.lock("wheels-one"):
        store.get("wheels", KEY, maker())


UNSHARED = """
import pathlib, sys
from patchwheel.kit.errors import MachineError
from patchwheel.kit.store import Store
store = Store(pathlib.Path(sys.argv[1]))
def big(folder):
    (folder / "file").write_bytes(b"x" * int(sys.argv[2]))
try:
    store.get(sys.argv[3], "a" * 64, big)
    print("made")
except MachineError as err:
    print(err)
print(sorted(str(p.relative_to(store.root)) for p in store.root.glob(sys.argv[3] + "/*")))
print(len(list(store.root.glob("tmp/*"))))
"""


def in_own_mounts(mount: str, *words: str) -> str:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        lacking("mounting needs root and unshare")
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c"]
    probe = subprocess.run([*command, "mount -t tmpfs none /mnt"], capture_output=True, check=False)
    if probe.returncode:
        lacking("no mount namespace can be made here")
    command += [f'{mount} && exec "$0" "$@"', sys.executable, "-c", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", MADE)
def test_a_full_disk_is_a_named_failure_that_leaves_nothing_half_made(
    store: Store, kind: Kind
) -> None:
    store.ensure()
    mount = f"mount -t tmpfs -o size=1m none {store.root}"
    words = (UNSHARED, str(store.root))
    # The second size leaves room for the file and none for what records it.
    for size in (2 << 20, 1044480):
        said = in_own_mounts(mount, *words, str(size), kind)
        assert "the store cannot be used: No space left on device" in said
        assert "cache prune" in said
        assert said.endswith("[]\n0\n")
    fits = in_own_mounts(mount, *words, "1000", kind)
    assert fits.startswith("made\n")


def test_a_read_only_store_is_one_error_and_what_is_there_can_be_used(store: Store) -> None:
    store.get("wheels", KEY, maker())
    mount = f"mount --bind {store.root} {store.root} && mount -o remount,ro,bind {store.root}"
    script = UNSHARED + f"print(store.find('wheels', {KEY!r}, hashed=True) is not None)"
    said = in_own_mounts(mount, script, str(store.root), "10", "wheels")
    assert "the store cannot be used: Read-only file system" in said
    assert said.endswith("True\n")


def test_memos_answer_until_they_are_damaged(store: Store) -> None:
    assert store.memo("tree", "k") is None
    store.remember("tree", "k", {"tree": "x"})
    assert store.memo("tree", "k") == {"tree": "x"}
    path = store.root / "memo" / "tree" / "k.json"
    for damaged in (b"", b"{", b"[]", b"\xff"):
        path.write_bytes(damaged)
        assert store.memo("tree", "k") is None


@dataclass(frozen=True, kw_only=True)
class Answer:
    text: str
    numbers: tuple[int, ...] = ()


def test_a_record_is_computed_once_for_its_inputs(store: Store) -> None:
    computed = []

    def answer(text: str) -> Answer:
        def compute() -> Answer:
            computed.append(text)
            return Answer(text=text, numbers=(1, 2))

        return store.cached("answers", Answer, [1, text], compute)

    assert [answer(text) for text in "abab"] == [Answer(text=t, numbers=(1, 2)) for t in "abab"]
    assert computed == ["a", "b"]


@pytest.mark.parametrize(
    "damaged", ["", "[]", "{}", '{"text": "old", "more": 1}', '{"numbers": ["x"], "text": "old"}']
)
def test_a_record_that_is_damaged_or_of_another_shape_is_computed_again(
    store: Store, damaged: str
) -> None:
    store.cached("answers", Answer, [1], lambda: Answer(text="old"))
    (kept,) = (store.root / "memo" / "answers").iterdir()
    kept.write_text(damaged)
    for _ in range(2):
        assert store.cached("answers", Answer, [1], lambda: Answer(text="new")).text == "new"


def test_a_record_is_kept_while_it_is_valid(store: Store) -> None:
    texts = iter("abcd")

    def get(valid: bool) -> str:  # noqa: FBT001
        return store.cached(
            "answers", Answer, [1], lambda: Answer(text=next(texts)), valid=lambda _: valid
        ).text

    # One that is not valid does not replace what is kept.
    assert [get(False), get(True), get(True), get(False), get(True)] == ["a", "b", "b", "c", "b"]


def test_a_log_starts_empty(store: Store) -> None:
    path = store.log("scipy", "build")
    path.write_text("old")
    assert store.log("scipy", "build") == path
    assert not path.exists()
    assert path.parent.is_dir()


def test_folders_that_a_build_closed_are_removed_by_an_ordinary_user_too() -> None:
    nobody = 65534
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root, kept = Path(name, "left"), Path(name, "kept")
        write(root, {"closed/inner/closed/file": "", "open/file": ""})
        kept.mkdir(mode=0o750)
        (root / "open" / "link").symlink_to(kept)
        closed = [root / "closed/inner/closed", root / "closed", root]
        for place in (Path(name), kept, *root.rglob("*"), root):
            if os.getuid() == 0:
                os.chown(place, nobody, nobody, follow_symlinks=False)
        for place in closed:
            place.chmod(0)
        if root_runs := os.getuid() == 0:
            os.setresuid(nobody, nobody, 0)
        try:
            rmtree(root)
            assert [path.name for path in Path(name).iterdir()] == ["kept"]
            assert kept.stat().st_mode & 0o777 == 0o750
        finally:
            if root_runs:
                os.setresuid(0, 0, 0)


def test_entries_are_listed_and_each_can_be_verified(store: Store) -> None:
    store.get("wheels", KEY, maker())
    store.get("configured", "f" * 64, maker())
    store.remember("tree", "k", {})
    entries = list(store.entries())
    assert [(e.kind, e.broken()) for e in entries] == [("configured", None), ("wheels", None)]
    spoil(entries[1].path, "flipped")
    assert entries[1].broken() == "sub/file has changed since it was stored"


def age(path: Path, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(path, (then, then))


def test_prune_removes_what_was_not_used_and_leftovers(store: Store) -> None:
    used, unused = (store.get("wheels", k * 64, maker()) for k in "ab")
    log = store.log("scipy", "old")
    log.write_text("")
    left = store.root / "tmp" / "left"
    write(left, {"half": ""})
    for path in (used / "entry.json", unused / "entry.json", log, left):
        age(path, 40)
    store.find("wheels", used.name)
    count, freed = store.prune(older_than_days=30)
    assert (count, freed > 10) == (1, True)
    assert used.exists()
    assert not any(path.exists() for path in (unused, log, left))


def test_prune_keeps_what_is_being_made(store: Store) -> None:
    with store.scratch() as folder:
        store.prune(older_than_days=0)
        assert folder.exists()


def test_prune_keeps_an_environment_that_a_link_points_to(store: Store, tmp_path: Path) -> None:
    path = store.get("environments", KEY, maker())
    link = tmp_path / ".venv"
    link.symlink_to(path)
    (path / "links").write_text(f"{link}\n")
    age(path / "entry.json", 40)
    assert store.prune(older_than_days=30) == (0, 0)
    link.unlink()
    assert store.prune(older_than_days=30)[0] == 1


def uses(store: Store) -> list[Callable[[], object]]:
    return [
        store.ensure,
        lambda: store.get("wheels", KEY, must_not),
        lambda: store.get("environments", KEY, must_not),
        lambda: store.remove("files", KEY),
        lambda: store.remember("tree", "k", {}),
        lambda: store.log("a", "b"),
        lambda: list(store.entries()),
        lambda: store.prune(older_than_days=0),
    ]


def content(folder: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in folder.rglob("*")
    }


HOME = {
    "documents/letters/x.txt": "dear",
    f"wheels/{KEY}/x.txt": "named like an entry",
    "tmp/x/y.txt": "",
    "locks/x": "",
    "logs/x.log": "",
}


@pytest.mark.parametrize("tag", [None, "", "Signature: 8a477f597d28d172789f06886806bc55\n"])
def test_a_folder_that_patchwheel_did_not_make_is_refused_and_stays_as_it_was(
    tmp_path: Path, tag: str | None
) -> None:
    write(tmp_path, HOME if tag is None else {**HOME, "CACHEDIR.TAG": tag})
    for path in tmp_path.rglob("*"):
        age(path, 40)
    before = content(tmp_path)
    for use in uses(Store(tmp_path)):
        with pytest.raises(MachineError, match="not a store of patchwheel") as caught:
            use()
        assert caught.value.where == tmp_path
        assert "an empty folder, or a store that patchwheel" in str(caught.value)
        assert "PATCHWHEEL_STORE" in str(caught.value.hint)
    assert content(tmp_path) == before


@pytest.mark.parametrize("place", ["file", "file/store"])
def test_a_place_that_cannot_be_a_store_is_one_error(tmp_path: Path, place: str) -> None:
    write(tmp_path, {"file": "content"})
    for use in uses(Store(tmp_path / place)):
        with pytest.raises(MachineError, match="store cannot be used: Not a directory") as caught:
            use()
        assert "PATCHWHEEL_STORE" in str(caught.value.hint)
        # Nothing would be gained by it, and `prune` may be what refuses.
        assert "cache prune" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "content"


def test_an_empty_folder_or_none_has_no_entries_and_becomes_a_store(tmp_path: Path) -> None:
    # A file system's own folder, and what is left of a marker whose writing was cut off.
    write(tmp_path / "disk", {"lost+found/x": "", ".CACHEDIR.TAG.a1b2.tmp": "Sig"})
    (tmp_path / "empty").mkdir()
    for name in ("disk", "empty", "none"):
        store = Store(tmp_path / name)
        assert list(store.entries()) == []
        assert store.prune(older_than_days=0) == (0, 0)
        assert not (store.root / "CACHEDIR.TAG").exists()
        store.get("wheels", KEY, maker())
        assert (store.root / "CACHEDIR.TAG").read_text() == CACHEDIR_TAG
        assert [entry.key for entry in store.entries()] == [KEY]


def test_a_store_whose_making_was_cut_off_is_finished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("patchwheel.kit.store.write_atomically", cut)
        with pytest.raises(KeyboardInterrupt):
            store.ensure()
    store.get("wheels", KEY, maker())


def test_processes_that_make_one_store_at_once_do_not_refuse_each_other(tmp_path: Path) -> None:
    script = """if True:
        import pathlib, sys, time
        from patchwheel.kit.store import Store
        time.sleep(max(0, float(sys.argv[2]) - time.time()))
        for n in range(50):
            store = Store(pathlib.Path(sys.argv[1], str(n)))
            list(store.entries())
            store.ensure()
    """
    words = [sys.executable, "-c", script, str(tmp_path), str(time.time() + 1)]
    processes = [subprocess.Popen(words) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 3


def test_a_store_keeps_what_is_not_an_entry(store: Store) -> None:
    store.get("wheels", KEY, maker())
    kept = {
        f"unknown/{KEY}/x": "of no known kind",
        "wheels/notes/x": "no key",
        "wheels/" + "f" * 64: "a file",
        "logs/notes.txt": "no log",
        "logs/folder.log/x": "no log",
    }
    write(store.root, kept)
    for path in store.root.rglob("*"):
        age(path, 40)
    assert [(entry.kind, entry.key) for entry in store.entries()] == [("wheels", KEY)]
    assert store.prune(older_than_days=0)[0] == 1
    assert kept.items() <= content(store.root).items()


def test_a_damaged_entry_without_its_record_is_still_an_entry(store: Store) -> None:
    spoil(store.get("wheels", KEY, maker()), "no record")
    [entry] = store.entries()
    assert "cannot be read" in str(entry.broken())


def test_links_out_of_the_store_are_not_followed(store: Store, tmp_path: Path) -> None:
    store.ensure()
    outside = tmp_path / "outside"
    write(outside, {f"{KEY}/x": "", "x/y.log": "", "z.log": ""})
    before = content(outside)
    for name in ("tmp/left", "wheels/" + KEY, "files", "logs/linked"):
        (store.root / name).parent.mkdir(exist_ok=True)
        (store.root / name).symlink_to(outside)
    (store.root / "tmp" / "dangling").symlink_to(tmp_path / "nothing")
    past = time.time() - 40 * 86400
    for link in (store.root / "tmp").iterdir():
        os.utime(link, (past, past), follow_symlinks=False)
    for path in outside.rglob("*"):
        age(path, 40)
    assert list(store.entries()) == []
    assert store.prune(older_than_days=0) == (0, 0)
    assert content(outside) == before
    # The links themselves are leftovers.
    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["tmp", "logs"])
def test_prune_does_not_follow_a_link_in_the_place_of_a_folder(
    store: Store, tmp_path: Path, name: str
) -> None:
    store.ensure()
    write(tmp_path, {"outside/x.log": ""})
    age(tmp_path / "outside" / "x.log", 40)
    (store.root / name).rmdir()
    (store.root / name).symlink_to(tmp_path / "outside")
    store.prune(older_than_days=0)
    assert (tmp_path / "outside" / "x.log").exists()


def test_an_interrupted_write_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_read_only_folders_are_removed_too(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    write(folder, {"sub/file": ""})
    (folder / "sub").chmod(0o555)
    rmtree(folder)
    rmtree(tmp_path / "nothing")
    write(tmp_path, {"kept/x": ""})
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    rmtree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert not folder.exists()
