"""Ed25519 signatures by securesystemslib, which only who signs or checks one needs."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from patchwheel.kit import InputError, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
