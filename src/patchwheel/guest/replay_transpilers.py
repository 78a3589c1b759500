"""Installed into every build environment: replays Cython and pythran from the compile cache.

A command is looked up before its tool starts. If it is not there, the tool runs in a child that
notes all that it looks at: what it reads, and what it looked for and did not find. An entry is
replayed only where all of that is as it was. Nothing here stops a step.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Where entries are, where new ones go if there is such a place, and where hits are counted.
ENTRIES, NEW, COUNTS = "PATCHWHEEL_TRANSPILED", "PATCHWHEEL_TRANSPILED_NEW", "CCACHE_STATSLOG"
# Whether all packages make a difference to a tool, and not only its own: it imports others.
TOOLS = {"cython": False, "pythran": True}
# Raised when an entry is written or looked up in another way.
FORMAT = 1
# Entries of one command: its sources are the same, and something else that it reads differs.
VARIANTS = 16
# These differ between builds, and no transpiler heeds them.
UNHEEDED = ("PATCHWHEEL_", "CCACHE_", "OBJC_", "MAKEFLAGS", "PWD", "OLDPWD", "SHLVL", "_=")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect")
MAKES = {"os.rename": 1, "os.link": 1, "os.symlink": 1, "os.mkdir": 0, "os.remove": 0}
LISTS = ("os.listdir", "os.scandir")
WATCHED = frozenset(["open", *MAKES, *LISTS, *STARTS])
ABSENT, FOLDER, FILE = STATES = ("absent", "folder", "file")
# What a source asks for with UNAME_SYSNAME and the like is no file.
MACHINE = "the machine"
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
BASE = os.path.join(sys.base_prefix, "lib", VERSION)
SITE = os.path.join(sys.prefix, "lib", VERSION, "site-packages")


def swapped(text: str, *, back: bool = False) -> str:
    """Put words in the place of paths that another Python or environment has others of."""
    places = {"site": SITE, "near": os.path.relpath(SITE), "env": sys.prefix, "base": BASE}
    places["zip"] = os.path.join(sys.base_prefix, "lib", VERSION.replace(".", "") + ".zip")
    # Meson has it in the names of folders.
    places["tag"] = str(sys.implementation.cache_tag)
    for word, path in places.items():
        text = text.replace(f"\0{word}\0", path) if back else text.replace(path, f"\0{word}\0")
    return text


def digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def state(path: str, *, content: bool = False) -> str:
    """Return what is at a path; with `content` the sha256 of a file."""
    import stat

    try:
        mode = os.stat(path).st_mode
        if content and stat.S_ISREG(mode):
            with open(path, "rb") as stream:
                data = stream.read()
            return MACHINE if b"UNAME_" in data else digest(data)
    except (OSError, ValueError):
        return ABSENT
    return FOLDER if stat.S_ISDIR(mode) else FILE


def now(path: str, was: str | list[str] | None = None) -> str | list[str]:
    """Return what is at a path or pattern, as it was noted."""
    import fnmatch

    if isinstance(was, str):
        return state(path, content=was not in STATES)
    folder, name = os.path.split(path)
    try:
        return sorted(fnmatch.filter(os.listdir(folder), name))
    except OSError:
        return []


def key_of(tool: str) -> str:
    """Digest the command, and the content of the tool: its version may stay the same."""
    import json

    umask, lines = os.umask(0o22), list[str]()
    os.umask(umask)
    for name in sorted(os.listdir(SITE)):
        if name.endswith(".dist-info") and (TOOLS[tool] or name.lower().startswith(f"{tool}-")):
            with open(os.path.join(SITE, name, "RECORD"), encoding="utf-8") as stream:
                lines += stream.read().splitlines()
    # What is compiled, and what installing wrote, is another for each Python.
    lines = [ln for ln in lines if ".so," not in ln and ".dist-info/" not in ln and ln[:3] != "../"]
    if not lines:
        raise ValueError(tool)
    words = sys.orig_argv[2:]
    parts = [FORMAT, tool, lines, os.getcwd(), sys.path, words, umask]
    parts += [state(word, content=True) for word in words]
    parts += sorted(i for i in os.environ.items() if i[0].startswith(("PYTHON", "LC_", "LANG")))
    if TOOLS[tool]:
        # It parses with Python's own parser, and asks compiler and linker for OpenMP.
        linker = state("/etc/ld.so.cache", content=True)
        parts += [sys.version, os.environ.get("CCACHE_COMPILERCHECK"), linker]
    return digest(swapped(json.dumps(parts, ensure_ascii=False)).encode())


def entry_name(key: str, number: int) -> str:
    """Name an entry as ccache names its own, which lie beside it."""
    name = digest(f"{key} {number}".encode())
    return os.path.join(name[:2], name[2:40])


def replay(path: str, key: str) -> bool:
    """Write what an entry holds, if it is whole and its step would do the same here."""
    import json
    import zlib

    try:
        with open(path, "rb") as stream:
            check, _, rest = stream.read().partition(b"\n")
        head, _, packed = rest.partition(b"\n")
        if check.decode() != digest(rest):
            return False
        noted = json.loads(swapped(head.decode().replace("\\u0000", "\0"), back=True))
        same = noted["key"] == key and noted["python"] in ([], [sys.version, sys.prefix])
        for name, was in noted["variables"].items():
            same = same and os.environ.get(name) == was
        for name, was in noted["seen"].items():
            same = same and now(name, was) == was
        data = zlib.decompress(packed) if same else b""
        for name, mode, size in noted["outputs"] if same else ():
            text = data[:size].decode("utf-8", "surrogateescape")
            write(name, swapped(text, back=True).encode("utf-8", "surrogateescape"), mode)
            data = data[size:]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, zlib.error):
        return False
    return bool(same)


def write(path: str, data: bytes, mode: int) -> None:
    """Write a file that is never there in part."""
    part = f"{path}.{os.getpid()}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(part, "wb") as stream:
        stream.write(data)
    os.chmod(part, mode)
    os.replace(part, path)


class Notes:
    """What the tool looks at in this process, and what it writes."""

    def __init__(self, tool: str) -> None:
        self.seen: dict[str, str | list[str]] = {}
        self.variables: dict[str, str | None] = {}
        self.written: dict[str, bool] = {}
        # Whether it did something that an entry cannot describe.
        self.beyond = False
        # Whether it is these notes that look.
        self.busy = False
        self.starts = TOOLS[tool]

    def start(self) -> None:
        import glob

        setattr(os, "stat", self._wrapped(os.stat, self.look))  # noqa: B010  (mypy)
        setattr(os, "lstat", self._wrapped(os.lstat, self.look))  # noqa: B010
        setattr(glob, "glob", self._wrapped(glob.glob, self.list))  # noqa: B010
        environ: Any = type(os.environ)
        real = environ.__getitem__
        environ.__getitem__ = lambda found, name: self.ask(real, found, name)
        # A Python that asks in another way cannot be watched so.
        os.path.exists("/nowhere")
        self.beyond = "/nowhere" not in self.seen

        def hook(event: str, args: Any) -> None:
            # Cython asks for the id of millions of objects, and each is an event.
            if event in WATCHED:
                self.event(event, args)

        sys.addaudithook(hook)

    def tell(self, pipe: int) -> None:
        import json

        self.busy = True
        with os.fdopen(pipe, "w") as stream:
            json.dump(vars(self), stream)

    def look(self, path: Any, *, content: bool = False) -> None:
        if self.busy or not isinstance(path, (str, bytes, os.PathLike)):
            return
        whole = os.path.abspath(os.fsdecode(path))
        known = self.seen.get(whole)
        if whole in self.written or known not in ((None, FILE) if content else (None,)):
            return
        # The key has the code of the tool, and Python's is not one of the things that differ.
        code = whole.startswith(BASE), whole.endswith((".pyc", ".pth"))
        if not (content and any(code)):
            self.busy = True
            self.seen[whole] = state(whole, content=content)
            self.busy = False

    def list(self, pattern: str) -> None:
        if not self.busy:
            self.busy = True
            self.seen[os.path.abspath(pattern)] = now(os.path.abspath(pattern))
            self.busy = False

    def write(self, path: Any) -> bool:
        """Note a file that is written or removed; return whether it is the first time."""
        self.look(path)
        whole = os.path.abspath(os.fsdecode(path))
        new, self.written[whole] = whole not in self.written, True
        return new

    def ask(self, real: Any, environ: Any, name: Any) -> Any:
        text = os.fsdecode(name)
        if not self.busy and not f"{text}=".startswith(UNHEEDED):
            value = environ._data.get(os.fsencode(name))  # noqa: SLF001  (what is public asks here)
            self.variables[text] = None if value is None else os.fsdecode(value)
        return real(environ, name)

    def event(self, event: str, args: Any) -> None:
        if self.busy or (args and (isinstance(args[0], int) or args[0] == os.devnull)):
            return
        if event == "open":
            if not args[2] & (os.O_WRONLY | os.O_RDWR):
                self.look(args[0], content=True)
            else:
                new = self.write(args[0])
                self.beyond |= new and not args[2] & (os.O_TRUNC | os.O_EXCL)
        elif event in MAKES:
            self.write(args[MAKES[event]])
        elif event in LISTS:
            # Python lists those of its path when it imports.
            self.beyond |= not os.path.abspath(args[0] or ".").startswith((sys.prefix, BASE))
        else:
            # Cython asks for what is above.
            self.beyond |= not self.starts and args[:1] != ("uname",)

    def _wrapped(self, real: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def asked(path: Any, *args: Any, **options: Any) -> Any:
            note(path)
            busy, self.busy = self.busy, True
            try:
                return real(path, *args, **options)
            finally:
                self.busy = busy

        return asked


def entry(told: dict[str, Any], key: str) -> bytes | None:
    """Return the entry for what a tool did; None where it would not do the same again."""
    import json
    import zlib

    for path, was in told["seen"].items():
        is_new = path in told["written"] and (was == ABSENT or os.path.isfile(path))
        if was == MACHINE or not (is_new or now(path, was) == was):
            return None
    outputs, texts, python = [], [], list[str]()
    for path in filter(os.path.isfile, sorted(told["written"])):
        with open(path, "rb") as stream:
            made, mode = stream.read(), os.fstat(stream.fileno()).st_mode & 0o777
        whole = made.decode("utf-8", "surrogateescape")
        text = swapped(whole)
        if "site-packages" in text or sys.prefix in text:
            # Something else of its path is in it.
            python = [sys.version, sys.prefix]
        if swapped(text, back=True) != whole:
            return None
        texts.append(text.encode("utf-8", "surrogateescape"))
        outputs.append([path, mode, len(texts[-1])])
    if told["beyond"] or not outputs:
        return None
    noted = {"key": key, "seen": told["seen"], "variables": told["variables"]}
    noted |= {"outputs": outputs, "python": python}
    head = swapped(json.dumps(noted)).replace("\0", "\\u0000")
    rest = head.encode() + b"\n" + zlib.compress(b"".join(texts), 1)
    return digest(rest).encode() + b"\n" + rest


def run(tool: str, key: str, new: str) -> None:
    """Let a child be the tool, and keep what it did; returns in the child."""
    import atexit
    import json
    import signal

    source, sink = os.pipe()
    if not (child := os.fork()):
        os.close(source)
        notes = Notes(tool)
        notes.start()
        atexit.register(notes.tell, sink)
        return
    os.close(sink)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(source, "rb") as stream:
        told = stream.read()
    status = os.waitpid(child, 0)[1]
    try:
        made = entry(json.loads(told), key) if status == 0 and told else None
        places = [os.environ[ENTRIES], new]
        names = (entry_name(key, number) for number in range(VARIANTS)) if made else ()
        for name in names:
            if not any(os.path.lexists(os.path.join(place, name)) for place in places):
                write(os.path.join(new, name), made or b"", 0o644)
                break
    except (OSError, ValueError):
        pass
    if os.WIFSIGNALED(status):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def main() -> None:
    words, entries = sys.orig_argv[1:], os.environ.get(ENTRIES)
    tool = os.path.basename(words[0]) if words and entries else ""
    asks = {"--version", "-V", "--help", "-h"}.intersection(words)
    # Where it is seen what a step reads, it must run.
    asks = asks or {"PATCHWHEEL_INSPECT_LOG"}.intersection(os.environ)
    if tool not in TOOLS or asks or os.path.dirname(words[0]) != os.path.join(sys.prefix, "bin"):
        return
    try:
        key = key_of(tool)
    except (OSError, ValueError):
        return
    places = (os.path.join(str(entries), entry_name(key, n)) for n in range(VARIANTS))
    hit = any(replay(place, key) for place in places)
    try:
        with open(os.environ[COUNTS], "a", encoding="utf-8") as stream:
            stream.write("transpiled_hit\n" if hit else "transpiled_miss\n")
    except (OSError, KeyError):
        pass
    if hit:
        os._exit(0)
    if new := os.environ.get(NEW):
        run(tool, key, new)


main()
