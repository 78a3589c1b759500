"""Ed25519 signatures of SHA256SUMS, by securesystemslib: made with a key file, checked offline."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING

from patchwheel.kit import InputError, MachineError, parsed, write_atomically
from patchwheel.release.files import SUMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SIGNATURE = f"{SUMS}.sig"
HEX = re.compile(r"[0-9a-f]{128}")


def sign_sums(folder: Path, key: Path) -> str:
    """Sign the folder's SHA256SUMS with a private key in PEM; return the public key, in hex."""
    with _library():
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib import signer as library
    try:
        signer = library.CryptoSigner(load_pem_private_key(key.read_bytes(), None))
        public = signer.public_key
        data = (folder / SUMS).read_bytes()
    except FileNotFoundError as err:
        raise InputError("there is no such file", where=err.filename) from err
    except (ValueError, TypeError) as err:
        raise InputError(f"is no private key without a password: {err}", where=key) from err
    if public.scheme != "ed25519":
        hint = "openssl genpkey -algorithm ed25519 -out FILE"
        raise InputError(f"is a key of {public.scheme}", where=key, expected="Ed25519", hint=hint)
    text = str(public.keyval["public"])
    write_atomically(folder / SIGNATURE, _to_bytes(text, signer.sign(data).signature))
    return text


def check_signature(folder: Path, trusted: Mapping[str, str]) -> str:
    """Return the name of the trusted key that signed SHA256SUMS; raises InputError for none."""
    with _library():
        from securesystemslib import signer as library
        from securesystemslib.exceptions import UnverifiedSignatureError
    for name in (SIGNATURE, SUMS):
        if not (folder / name).is_file():
            raise InputError(f"there is no file {name}, so it is not signed", where=folder)
    try:
        text, data = (folder / SIGNATURE).read_bytes(), (folder / SUMS).read_bytes()
        row = parsed(text)
        key, sig = str(row["keyid"]), str(row["sig"])
    except (ValueError, KeyError, TypeError) as err:
        raise InputError(f"{SIGNATURE} is no signature: {err!r}", where=folder) from err
    # There is one way to write it, so that no byte of it can be changed.
    if text == _to_bytes(key, sig) and HEX.fullmatch(sig):
        for name in [name for name, known in trusted.items() if known == key]:
            with contextlib.suppress(UnverifiedSignatureError):
                public = library.SSlibKey(key, "ed25519", "ed25519", {"public": key})
                public.verify_signature(library.Signature(key, sig), data)
                return name
    problem = f"{SIGNATURE} is no signature of {SUMS} by {', '.join(trusted)}"
    raise InputError(problem, where=folder)


def _to_bytes(key: str, sig: str) -> bytes:
    return (json.dumps({"keyid": key, "sig": sig}, indent=1) + "\n").encode()


@contextlib.contextmanager
def _library() -> Iterator[None]:
    try:
        yield
    except ImportError as err:
        hint = "install patchwheel[sign]"
        raise MachineError(f"signatures need securesystemslib: {err}", hint=hint) from err
