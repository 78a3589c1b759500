"""git, on bare repositories and work trees, with an isolated configuration."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from patchwheel.kit.errors import MachineError, PatchwheelError, disk_is_full
from patchwheel.kit.files import write_atomically
from patchwheel.kit.process import capture

# A user's configuration changes diffs, hooks run code, attributes change bytes: none may count.
ISOLATED = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_EDITOR": "false",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    # git allocates zlib's state anew for each object. Not returned to the kernel in between, fifty
    # patches apply in 0.045 s of CPU time instead of 0.056 s.
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
}
SETTINGS = shlex.split(
    f"-c core.hooksPath={os.devnull} -c core.fsmonitor=false "
    f"-c core.attributesFile={os.devnull} "
    "-c core.autocrlf=false -c core.quotePath=true -c gc.auto=0 -c maintenance.auto=false "
    "-c commit.gpgSign=false -c log.showSignature=false -c submodule.recurse=false "
    "-c core.fsync=committed,loose-object"
)
ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding -whitespace -export-subst\n"
WHO = "patchwheel <patchwheel>"
# What git needs to reach a remote for this user; docs/reference/git.md has the table.
FOR_REMOTES = r"^(url|credential|https?|ssh|safe)\.|^core\.(sshcommand|gitproxy|askpass)$"
SHM, ROOM = "/dev/shm", 256_000_000  # noqa: S108
LOCKED = r"(\.lock'|lock config file .+): File exists"
UNWRITABLE = r"Read-only file system|[Uu]nable to create .+: Permission denied|insufficient perm"
LOCKS = ("*.lock", "refs/**/*.lock", "objects/info/**/*.lock", "objects/pack/*.lock")


class GitError(PatchwheelError):
    """git ended with an unexpected status; `stderr` is its output. Stages translate it."""

    def __init__(self, argv: Sequence[str], status: int, stderr: str) -> None:
        message = f"git {' '.join(argv)[:200]}: status {status}"
        super().__init__(message, tail=stderr.splitlines()[-10:])
        self.status, self.stderr = status, stderr


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
    """git on `git_dir`, and on the files in `work_tree`; surrogateescape is used for paths."""

    def __init__(self, git_dir: Path, work_tree: Path | None = None) -> None:
        self.git_dir = git_dir
        self.work_tree = work_tree

    @classmethod
    def bare(cls, git_dir: Path) -> Repository:
        """Open the bare repository, made if it does not exist; attributes change no byte in it."""
        repo = cls(git_dir)
        attributes = git_dir / "info" / "attributes"
        if not attributes.exists():
            git_dir.mkdir(parents=True, exist_ok=True)
            repo.git("init", "-q", "--bare", "--template=", str(git_dir))
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text(ATTRIBUTES)
        return repo

    def git(
        self,
        *argv: str,
        stdin: bytes | BinaryIO = b"",
        env: Mapping[str, str] | None = None,
        ok: Sequence[int] = (0,),
    ) -> bytes:
        """Return git's standard output; raises GitError for a status that is not `ok`."""
        import git

        tree = ["--work-tree", str(self.work_tree)] if self.work_tree else []
        place = ["--git-dir", str(self.git_dir), *tree]
        try:
            with _readable(stdin) as stream:
                status, out, stderr = git.Git(str(self.work_tree or self.git_dir)).execute(
                    ["git", *SETTINGS, *place, *argv],
                    istream=stream,
                    with_extended_output=True,
                    with_exceptions=False,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                    env={**ISOLATED, **(env or {})},
                )
        except git.GitCommandNotFound as err:
            raise MachineError("git cannot be started", hint="install git 2.38 or newer") from err
        if status in ok:
            return out
        said = _text(stderr)
        # Without this, a git that was killed would block all later ones.
        if re.search(LOCKED, said) and self.unlock():
            return self.git(*argv, stdin=stdin, env=env, ok=ok)
        if disk_is_full(said) or re.search(UNWRITABLE, said):
            message = "the disk is full or cannot be written"
            raise MachineError(message, where=self.git_dir, tail=said.splitlines())
        raise GitError(argv, int(status or 0), said)

    def unlock(self) -> bool:
        """Remove the locks of a killed git; False when there are none, or a git still runs."""
        locks = [path for pattern in LOCKS for path in self.git_dir.glob(pattern)]
        if not locks or not Path("/proc/self").exists():
            return False
        here = (self.work_tree or self.git_dir).resolve()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                git = (process / "comm").read_text().startswith("git")
                if git and (process / "cwd").readlink().is_relative_to(here):
                    return False
        for path in locks:
            path.unlink(missing_ok=True)
        return True

    def fetch(self, other: Path, *refspecs: str) -> None:
        """Copy refs, and all that they need, from another repository on this machine."""
        options = ["-q", "--no-tags", "--no-write-fetch-head", "--force"]
        # Whatever the settings of this repository say of that place.
        options += ["--upload-pack", "git-upload-pack"]
        env = {"GIT_ALLOW_PROTOCOL": "file"}
        self.git("fetch", *options, str(other), *refspecs, env=env)

    def text(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        return _text(self.git(*words, env=env)).strip()

    def has(self, oid: str) -> bool:
        return not self.git("cat-file", "--batch-check", stdin=oid.encode()).endswith(b" missing\n")

    def tree_of(self, revision: str) -> str:
        return self.text("rev-parse", "--verify", f"{revision}^{{tree}}")

    def import_files(
        self,
        files: Iterable[tuple[str, str, bytes]],
        *,
        onto: str | None = None,
        removed: Iterable[str] = (),
        ref: str | None = None,
    ) -> str:
        """Write a tree of (path, mode, content), or `onto` with changes; at most `ref` holds it."""
        # A ref of its own: another process may import at the same time.
        place = ref or f"refs/patchwheel/imports/{os.urandom(8).hex()}"
        # A compression of 1 takes a tenth more disk than the default, and half of the time.
        settings = ["-c", "core.compression=1"]
        # Changes stay a pack: git would compress and sync each loose object by itself, which
        # costs five times as much for fifty patches.
        settings += ["-c", "fastimport.unpackLimit=0"] if onto else []
        with tempfile.TemporaryFile(dir=self.git_dir) as stream:
            stream.write(b"feature done\ncommit %s\nmark :1\n" % place.encode())
            stream.write(b"committer patchwheel <patchwheel> 0 +0000\ndata 0\n")
            stream.write(f'M 040000 {onto} ""\n'.encode() if onto else b"deleteall\n")
            stream.writelines(b"D %s\n" % _quoted(path) for path in removed)
            for path, mode, content in files:
                stream.write(b"M %s inline %s\n" % (mode.encode(), _quoted(path)))
                stream.write(b"data %d\n%s\n" % (len(content), content))
            stream.write(b'ls ""\ndone\n')
            argv = ("fast-import", "--quiet", "--force", "--depth=0", "--cat-blob-fd=1")
            out = self.git(*settings, *argv, stdin=cast("BinaryIO", stream))
        # "040000 tree ID", then a tab and the path; for an empty tree only that it is missing.
        row = _text(out).split()
        tree = row[2] if row[0] == "040000" else self.tree_of(place)
        if not ref:
            self.git("update-ref", "-d", place)
        return tree

    def files(self, tree: str, *paths: str) -> dict[str, Blob]:
        """List a tree recursively, links and submodules included, or only some paths of it."""
        files = {}
        out = self.git("ls-tree", "-r", "-z", "--full-tree", tree, "--", *paths)
        for row in out.split(b"\0")[:-1]:
            head, path = row.split(b"\t", 1)
            mode, _, oid = head.decode().split()
            files[_text(path)] = Blob(mode=mode, oid=oid)
        return files

    def read(
        self, oids: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> dict[str, bytes]:
        """Return the contents of blobs, read by one process; a side that is missing is empty."""
        contents = {oid: b"" for oid in oids if not oid.strip("0")}
        if not (unique := [oid for oid in dict.fromkeys(oids) if oid not in contents]):
            return contents
        lines = "".join(f"{oid}\n" for oid in unique).encode()
        out = self.git("cat-file", "--batch", stdin=lines, env=env)
        at = 0
        for oid in unique:
            end = out.index(b"\n", at)
            header = out[at:end].split()
            if header[-1] == b"missing":
                raise GitError(("cat-file", oid), 128, f"object {oid} is missing")
            size = int(header[2])
            contents[oid] = out[end + 1 : end + 1 + size]
            at = end + size + 2
        return contents

    def changes(
        self,
        *words: str,
        command: str = "diff-tree",
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> list[Change]:
        """Return the paths in which two trees differ; a rename is a removal and an addition."""
        options = ("-r", "-z", "--raw", "--no-renames")
        rows = self.git(command, *options, *words, stdin=stdin, env=env).split(b"\0")[:-1]
        changes = []
        for head, path in zip(rows[::2], rows[1::2], strict=True):
            old_mode, new_mode, old_oid, new_oid, status = head.decode()[1:].split()
            before, after = Blob(mode=old_mode, oid=old_oid), Blob(mode=new_mode, oid=new_oid)
            changes.append(Change(path=_text(path), status=status[0], old=before, new=after))
        return changes

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

    def commit(
        self,
        tree: str,
        message: str,
        *parents: str,
        author: str = WHO,
        committer: str = WHO,
        when: str = "0 +0000",
    ) -> str:
        """Write a commit, with git's raw date for author and committer, and return its id."""
        # Unlike commit-tree, this keeps every character of a name.
        head = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        who = f"author {author} {when}\ncommitter {committer} {when}"
        stdin = "\n".join([*head, who, "", message]).encode()
        return _text(self.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=stdin)).strip()

    @contextlib.contextmanager
    def index(self, tree: str) -> Iterator[dict[str, str]]:
        """Give the environment variables for a temporary index that holds `tree`."""
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
        """Keep an index of a tree that patches are often applied to."""
        # Copying it takes a tenth of the time of a new one: a sixth of applying fifty patches.
        kept = self._kept_index(tree)
        kept.parent.mkdir(exist_ok=True)
        with self.index(tree) as env:
            write_atomically(kept, Path(env["GIT_INDEX_FILE"]).read_bytes())

    def _kept_index(self, tree: str) -> Path:
        return self.git_dir / "patchwheel" / f"index-{tree}"


def user_settings(*words: str) -> list[str]:
    """Ask `git config` for what the user and the machine have set, outside of any repository."""
    argv = ("git", "config", "--null", *words)
    return _text(capture(argv, cwd=Path("/"), env=os.environ, ok=(0, 1))).split("\0")[:-1]


@contextlib.contextmanager
def user_remotes() -> Iterator[dict[str, str]]:
    """Give the environment in which git has the user's settings for remotes, and no others."""
    # A file, and not GIT_CONFIG_COUNT, which git keeps from the program at the other end.
    with tempfile.NamedTemporaryFile("wb") as file:
        for row in user_settings("--get-regexp", FOR_REMOTES):
            key, _, value = row.partition("\n")
            section, _, rest = key.partition(".")
            name, _, last = rest.rpartition(".")
            head = section + (" " + _quoted(name).decode(errors="replace") if name else "")
            file.write(b"[%s]\n%s = %s\n" % (head.encode(), last.encode(), _quoted(value)))
        file.flush()
        yield {"GIT_CONFIG_GLOBAL": file.name}


def in_memory() -> str | None:
    """Return a folder for small, short-lived files: one without a disk, if it has room."""
    # On a disk, applying fifty patches takes almost twice the CPU time.
    with contextlib.suppress(OSError):
        if os.access(SHM, os.W_OK) and shutil.disk_usage(SHM).free > ROOM:
            return SHM
    return None


@contextlib.contextmanager
def _readable(data: bytes | BinaryIO) -> Iterator[BinaryIO]:
    """Give a file with `data`, at its start: GitPython hands no bytes to a process."""
    with tempfile.TemporaryFile(dir=in_memory()) as stream:
        if isinstance(data, bytes):
            stream.write(data)
            data = cast("BinaryIO", stream)
        data.seek(0)
        yield data


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")


def _quoted(path: str) -> bytes:
    raw = path.encode(errors="surrogateescape")
    escaped = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'
