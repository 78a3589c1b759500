"""What a shared store says of wheels: whom it is believed, and what is added to it.

Ed25519 signatures are made by securesystemslib, which only who signs or checks one needs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from patchwheel.kit import InputError, MachineError, PlainReader, digest, parsed, process, redacted
from patchwheel.remote.transport import Bucket, Folder, Web, failures, open_transport

T = TypeVar("T")
UNSIGNED = "unsigned"
# So many records of one key are looked at.
SLOTS = 4
MAX_RECORD, MAX_WHEEL = 1 << 16, 4 << 30
WHEEL = re.compile(r"[\w.+!-]{1,250}\.whl", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedWheel:
    """What is said of a wheel, signed as a whole, under the key that it is looked up by.

    `parts` are those of its node key, `level` the sandbox's, `label` its version. It has no time:
    a clock that is wrong changes nothing.
    """

    namespace: str
    key: str
    sha256: str
    size: int
    filename: str
    label: str
    level: str
    parts: dict[str, str]
    toolchain: dict[str, str]
    signer: str = ""
    signature: str = ""

    @property
    def node_key(self) -> str:
        return digest(self.parts)

    @property
    def unsigned(self) -> SharedWheel:
        """What is signed."""
        return replace(self, signer="", signature="")

    @property
    def made_with(self) -> str:
        """The toolchain and the level, for people."""
        tools = ", ".join(sorted(self.toolchain.values()))
        return f"with {tools or 'no compiler'}, level {self.level}"

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


def parse_shared(data: bytes) -> SharedWheel:
    """Return what a record says; raises InputError unless it is written as we write it."""
    try:
        record: SharedWheel = PlainReader().structure(parsed(data), SharedWheel)
        good = record.to_bytes() == data and re.fullmatch("[0-9a-f]{64}", record.sha256)
    except ValueError as err:
        raise InputError("a record cannot be read") from err
    if not (good and WHEEL.fullmatch(record.filename) and 0 < record.size <= MAX_WHEEL):
        raise InputError("a record is not written as patchwheel writes it")
    return record


@dataclass
class Remote:
    """A shared store in one run; when it does not answer, it is asked nothing more.

    `trust` has public keys by name; without any, records of this machine count unsigned. `write` is
    the file of a private key, or `unsigned`; else nothing is added. `say` says a line once.
    """

    url: str
    trust: Mapping[str, str]
    write: str
    say: Callable[[str], None]
    limit: float
    # What it is no longer asked for.
    left: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @functools.cached_property
    def transport(self) -> Web | Bucket | Folder:
        return open_transport(self.url)

    def find(self, namespace: str, key: str) -> list[SharedWheel]:
        """Return the trusted records of a key, without wheels of one node key that differ."""
        found: dict[str, list[SharedWheel]] = {}
        for data in map(self._read, _slots(namespace, key)):
            if data is None:
                break
            try:
                record = parse_shared(data)
                self._check(record, (namespace, key))
                found.setdefault(record.node_key, []).append(record)
            except InputError as err:
                self.say(f"shared store: {err.message}; it is not used")
        for node, same in found.items():
            if len({record.sha256 for record in same}) > 1:
                who = [f"{self.signer(r)} made {r.sha256[:12]} {r.made_with}" for r in same]
                problem = f"{same[0].label} was made from the same inputs with another sha256"
                self.say(f"warning: shared store: {problem}: {'; '.join(who)}; none is used")
                found[node] = []
        return [record for same in found.values() for record in same]

    def fetch(self, record: SharedWheel) -> bytes:
        """Return the wheel; raises InputError if it is gone, or its sha256 is wrong."""
        data = self._ask("read", lambda store: store.get(f"cas/{record.sha256}", record.size))
        if data is None:
            raise InputError("it is gone")
        if hashlib.sha256(data).hexdigest() != record.sha256:
            expected = f"{record.size:,} bytes with the sha256 {record.sha256}"
            raise InputError(f"its bytes are not those that were signed, {expected}")
        return data

    def signer(self, record: SharedWheel) -> str | None:
        """Return the name of the trusted key that signed a record; None for no such key."""
        if not self.trust:
            return "somebody"
        names = [name for name, key in self.trust.items() if key == record.signer]
        data = record.unsigned.to_bytes()
        return names[0] if names and is_signed(data, record.signer, record.signature) else None

    def add(self, record: SharedWheel, data: bytes) -> None:
        """Add a wheel and what is said of it, signed; what is there stays."""
        if self.write != UNSIGNED:
            signer, text = sign(record.to_bytes(), Path(self.write).expanduser())
            record = replace(record, signer=signer, signature=text)
        raw = record.to_bytes()
        self._put(f"cas/{record.sha256}", data)
        for slot in _slots(record.namespace, record.key):
            self._put(slot, raw)
            # Of two that write at once, a server may keep the second.
            if "write" in self.left or self._read(slot) == raw:
                break
        # Says whether there is another that differs.
        self.find(record.namespace, record.key)

    def _check(self, record: SharedWheel, place: tuple[str, str]) -> None:
        if (record.namespace, record.key) != place:
            raise InputError("a record lies in the place of another")
        if self.signer(record) is None:
            by = f"the key {record.signer[:12]}, which" if record.signer else "nobody, who"
            raise InputError(f"a record of {record.label[:99]} is signed by {by} is not trusted")

    def _read(self, name: str) -> bytes | None:
        return self._ask("read", lambda store: store.get(name, MAX_RECORD))

    def _put(self, name: str, data: bytes) -> None:
        self._ask("write", lambda store: store.put(name, data))

    def _ask(self, what: str, call: Callable[[Web | Bucket | Folder], T]) -> T | None:
        """Ask the store; None when it does not answer, and from then on at once."""
        # One at a time, so that one that is away costs one time-out.
        with self.lock:
            if what in self.left:
                return None
            try:
                return process.started(lambda: call(self.transport))(self.limit)
            except TimeoutError:
                self.left |= {"read", "write"}
                why = f"no whole answer within {self.limit:,} s (PATCHWHEEL_LIMIT_REMOTE)"
            except failures() as err:
                self.left |= {"write"} if what == "write" else {"read", "write"}
                why = str(err).partition("\n")[0][:300]
        use = "written to" if what == "write" else "used"
        self.say(redacted(f"shared store {self.url}: not {use} in this run: {why}"))
        return None


def _slots(namespace: str, key: str) -> list[str]:
    """Return the places of a key's records: of several that differ, each has its own."""
    return [f"ac/{digest('patchwheel', namespace, key, number)}" for number in range(SLOTS)]


def sign(data: bytes, key: Path) -> tuple[str, str]:
    """Return the public key of a private one in PEM, and its signature, both in hex."""
    with _library():
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib import signer as library
    try:
        signer = library.CryptoSigner(load_pem_private_key(key.read_bytes(), None))
    except FileNotFoundError as err:
        raise InputError("there is no such file", where=key) from err
    except (ValueError, TypeError) as err:
        raise InputError(f"is no private key without a password: {err}", where=key) from err
    public = signer.public_key
    if public.scheme != "ed25519":
        hint = "openssl genpkey -algorithm ed25519 -out FILE"
        raise InputError(f"is a key of {public.scheme}", where=key, expected="Ed25519", hint=hint)
    return str(public.keyval["public"]), str(signer.sign(data).signature)


def is_signed(data: bytes, key: str, signature: str) -> bool:
    """Say whether it is the signature of `data` by a public key; both are in hex."""
    with _library():
        from securesystemslib import signer as library
        from securesystemslib.exceptions import UnverifiedSignatureError
    with contextlib.suppress(UnverifiedSignatureError):
        public = library.SSlibKey(key, "ed25519", "ed25519", {"public": key})
        if re.fullmatch("[0-9a-f]{128}", signature):
            public.verify_signature(library.Signature(key, signature), data)
            return True
    return False


@contextlib.contextmanager
def _library() -> Iterator[None]:
    try:
        yield
    except ImportError as err:
        hint = "install patchwheel[sign]"
        raise MachineError(f"signatures need securesystemslib: {err}", hint=hint) from err
