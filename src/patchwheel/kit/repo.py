"""The one importer of GitPython: git with an isolated configuration, on bare repositories and on work trees."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from patchwheel.kit.errors import MachineError, PatchwheelError
from patchwheel.kit.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# A user's configuration changes diffs, hooks run code, attributes change bytes: none of them may count.
ISOLATED = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_EDITOR": "false",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    # zlib's state goes with each object; given back to the kernel every time, it costs a third of packing.
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
}
# What a user may set for reaching a remote; every other GIT_* variable is dropped.
TRANSPORT = re.compile(
    r"GIT_(SSL_.*|SSH|SSH_COMMAND|ASKPASS|PROXY_.*|ALLOW_PROTOCOL|CEILING_DIRECTORIES)"
)
SETTINGS = (
    *("-c", f"core.hooksPath={os.devnull}", "-c", "core.autocrlf=false"),
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.quotePath=true"),
    *("-c", "commit.gpgSign=false", "-c", "core.fsync=committed,loose-object"),
)
SHM, ROOM = "/dev/shm", 256_000_000  # noqa: S108
LEFT = re.compile(r"(\.lock'|lock config file .+): File exists")


class GitError(PatchwheelError):
    """git ended with an unexpected status; `stderr` holds what it said. Stages translate it."""

    def __init__(self, words: Sequence[str], status: int, stderr: str) -> None:
        super().__init__(
            f"git {' '.join(words)[:200]}: status {status}",
            tail=stderr.splitlines()[-10:],
        )
        self.status = status
        self.stderr = stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """An entry of a tree: mode 100644, 100755, 120000 (link) or 160000 (submodule)."""

    mode: str
    oid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A path in which two trees differ; status is A, D, M or T."""

    path: str
    status: str
    old: Blob
    new: Blob


class Repository:
    """git on `git_dir`; with `work_tree` also on the files in it. Paths are bytes decoded with surrogateescape."""

    def __init__(self, git_dir: Path, work_tree: Path | None = None) -> None:
        self.git_dir = git_dir
        self.work_tree = work_tree

    @classmethod
    def bare(cls, git_dir: Path) -> Repository:
        """Open the bare repository, made if it is not there, in which no attribute changes a byte."""
        repo = cls(git_dir)
        if not (git_dir / "info" / "attributes").exists():
            git_dir.mkdir(parents=True, exist_ok=True)
            repo.git("init", "-q", "--bare", "--template=", str(git_dir))
            attributes = git_dir / "info" / "attributes"
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text(
                "* -text -eol -ident -filter -working-tree-encoding -whitespace -export-subst\n"
            )
        return repo

    def git(
        self,
        *words: str,
        stdin: bytes | BinaryIO = b"",
        env: Mapping[str, str] | None = None,
        ok: Sequence[int] = (0,),
    ) -> bytes:
        """Run git and return its standard output; raises GitError, or MachineError when git is not there."""
        import git

        place = ["--git-dir", str(self.git_dir)]
        if self.work_tree:
            place += ["--work-tree", str(self.work_tree)]
        cwd = self.work_tree or self.git_dir
        with contextlib.ExitStack() as stack:
            if stdin == b"":
                stream = cast("BinaryIO", stack.enter_context(Path(os.devnull).open("rb")))
            elif isinstance(stdin, bytes):
                place_of = in_memory()
                stream = cast(
                    "BinaryIO",
                    stack.enter_context(tempfile.TemporaryFile(dir=place_of)),
                )
                stream.write(stdin)
            else:
                stream = stdin
            stream.seek(0)
            try:
                status, out, err = git.Git(str(cwd)).execute(
                    ["git", *SETTINGS, *place, *words],
                    istream=stream,
                    with_extended_output=True,
                    with_exceptions=False,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                    env={**ISOLATED, **(env or {})},
                )
            except git.GitCommandNotFound as missing:
                raise MachineError(
                    "git cannot be started", hint="install git 2.38 or newer"
                ) from missing
        if status in ok:
            return out
        if LEFT.search(_text(err)) and self.unlock():
            return self.git(*words, stdin=stdin, env=env, ok=ok)
        raise GitError(words, int(status or 0), _text(err))

    def unlock(self) -> bool:
        """Remove the locks of a git that was killed, if none runs here; say whether there were any."""
        left = [*self.git_dir.glob("*.lock"), *self.git_dir.glob("refs/**/*.lock")]
        if not left or not Path("/proc/self").exists():
            return False
        here = (self.work_tree or self.git_dir).resolve()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().startswith("git"):
                    cwd = (process / "cwd").readlink()
                    if cwd.is_relative_to(here):
                        return False
        for path in left:
            path.unlink(missing_ok=True)
        return True

    def text(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        return _text(self.git(*words, env=env)).strip()

    def has(self, oid: str) -> bool:
        try:
            self.git("cat-file", "-e", oid)
        except GitError:
            return False
        return True

    def tree_of(self, revision: str) -> str:
        return self.text("rev-parse", "--verify", f"{revision}^{{tree}}")

    def import_files(self, files: Iterable[tuple[str, str, bytes]]) -> str:
        """Write (path, mode, content) triples as one pack and return the id of their tree."""
        # A tenth more disk than with the best compression, and half of the time.
        settings = ("-c", "core.compression=1")
        with tempfile.TemporaryFile(dir=self.git_dir) as stream:
            return self.fast_import(cast("BinaryIO", stream), files, settings=settings)

    def fast_import(
        self,
        stream: BinaryIO,
        files: Iterable[tuple[str, str, bytes]],
        *,
        settings: Sequence[str],
        onto: str | None = None,
        removed: Iterable[str] = (),
        ref: str | None = None,
    ) -> str:
        """Write a tree of files, or of changes to the tree `onto`, through an empty file `stream`; return its id.

        A commit without parents at `ref` has the tree then; without a `ref` nothing holds it.
        """
        # A ref of its own: another process may import at the same time.
        place = ref or f"refs/patchwheel/imports/{os.urandom(8).hex()}"
        stream.write(b"feature done\ncommit %s\nmark :1\n" % place.encode())
        stream.write(b"committer patchwheel <patchwheel> 0 +0000\ndata 0\n")
        stream.write(f'M 040000 {onto} ""\n'.encode() if onto else b"deleteall\n")
        stream.writelines(b"D %s\n" % _quoted(path) for path in removed)
        for path, mode, content in files:
            stream.write(b"M %s inline %s\n" % (mode.encode(), _quoted(path)))
            stream.write(b"data %d\n" % len(content))
            stream.write(content + b"\n")
        stream.write(b'ls ""\ndone\n')
        words = ("fast-import", "--quiet", "--force", "--depth=0", "--cat-blob-fd=1")
        out = self.git(*settings, *words, stdin=stream)
        # "040000 tree ID", then a tab and the path; of an empty tree only that it is missing.
        row = _text(out).split()
        tree = row[2] if row[0] == "040000" else self.tree_of(place)
        if not ref:
            self.git("update-ref", "-d", place)
        return tree

    def files(self, tree: str, *paths: str) -> dict[str, Blob]:
        """List a tree recursively, links and submodules included, or those of some paths that are there."""
        found = {}
        words = ("ls-tree", "-r", "-z", "--full-tree", tree, "--", *paths)
        for row in self.git(*words).split(b"\0"):
            if row:
                head, path = row.split(b"\t", 1)
                mode, _, oid = head.decode().split()
                found[_text(path)] = Blob(mode=mode, oid=oid)
        return found

    def read(
        self, oids: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> dict[str, bytes]:
        """Return the content of blobs, all in one process."""
        wanted = list(dict.fromkeys(oids))
        if not wanted:
            return {}
        lines = "".join(f"{oid}\n" for oid in wanted).encode()
        out = self.git("cat-file", "--batch", stdin=lines, env=env)
        found, at = {}, 0
        for oid in wanted:
            end = out.index(b"\n", at)
            header = out[at:end].split()
            if header[-1] == b"missing":
                raise GitError(("cat-file", oid), 128, f"object {oid} is missing")
            size = int(header[2])
            found[oid] = out[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
        return found

    def changes(self, old: str, new: str) -> list[Change]:
        """Return the paths in which two trees differ; a rename is a removal and an addition."""
        if old == new:
            return []
        return read_changes(self.git("diff-tree", "-r", "-z", "--no-renames", old, new))

    def merge_file(self, ours: bytes, base: bytes, theirs: bytes) -> bytes:
        """Merge two contents of a file; lines in conflict are those of `theirs`."""
        with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
            files = [Path(folder) / name for name in ("ours", "base", "theirs")]
            for file, content in zip(files, (ours, base, theirs), strict=True):
                file.write_bytes(content)
            return self.git("merge-file", "-p", "--theirs", *map(str, files))

    def checkout(self, tree: str, folder: Path) -> None:
        """Write the files of a tree, byte for byte, into an empty folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with self.index(tree) as env:
            Repository(self.git_dir, folder).git("checkout-index", "-a", "-q", env=env)

    def renew(self, tree: str, folder: Path, index: Path) -> None:
        """Let a folder hold the files of a tree and nothing else; `index` knows what it held, by dates and inodes.

        Only what differs is written.
        """
        work = Repository(self.git_dir, folder)
        env = {"GIT_INDEX_FILE": str(index)}
        work.git("read-tree", "--reset", "-u", tree, env=env)
        work.git("clean", "-ffdxq", env=env)

    def commit(
        self, tree: str, message: str, *parents: str, epoch: int, name: str, mail: str
    ) -> str:
        who = {"NAME": name, "EMAIL": mail, "DATE": f"@{epoch} +0000"}
        env = {f"GIT_{r}_{k}": v for r in ("AUTHOR", "COMMITTER") for k, v in who.items()}
        above = [word for parent in parents for word in ("-p", parent)]
        out = self.git("commit-tree", tree, *above, stdin=message.encode(), env=env)
        return _text(out).strip()

    @contextlib.contextmanager
    def index(self, tree: str) -> Iterator[dict[str, str]]:
        """Give the environment of a temporary index that holds `tree`."""
        kept = self._kept_index(tree)
        with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
            index = Path(folder) / "index"
            env = {"GIT_INDEX_FILE": str(index)}
            if kept.exists():
                shutil.copyfile(kept, index)
            else:
                self.git("read-tree", tree, env=env)
            yield env

    def keep_index(self, tree: str) -> None:
        """Keep an index of a tree that patches are often applied to: a copy costs a tenth of a new one."""
        with self.index(tree) as env:
            data = Path(env["GIT_INDEX_FILE"]).read_bytes()
        kept = self._kept_index(tree)
        kept.parent.mkdir(exist_ok=True)
        write_atomically(kept, data)

    def _kept_index(self, tree: str) -> Path:
        return self.git_dir / "patchwheel" / f"index-{tree}"


def in_memory() -> str | None:
    """Return a folder for small files that are soon gone, where there is room for them without a disk."""
    with contextlib.suppress(OSError):
        if os.access(SHM, os.W_OK) and shutil.disk_usage(SHM).free > ROOM:
            return SHM
    return None


def scrub_environment() -> None:
    """Drop the GIT_* variables of a hook or a CI job, which would point git at another repository."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        if not TRANSPORT.fullmatch(name):
            del os.environ[name]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")


def read_changes(out: bytes) -> list[Change]:
    """Read git's raw format, separated by NUL."""
    rows = out.split(b"\0")[:-1]
    found = []
    for head, path in zip(rows[::2], rows[1::2], strict=True):
        old_mode, new_mode, old_oid, new_oid, status = head.decode()[1:].split()
        found.append(
            Change(
                path=_text(path),
                status=status[0],
                old=Blob(mode=old_mode, oid=old_oid),
                new=Blob(mode=new_mode, oid=new_oid),
            )
        )
    return found


def _quoted(path: str) -> bytes:
    raw = path.encode(errors="surrogateescape")
    escaped = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'
