"""Ed25519 signatures of SHA256SUMS: made with a key file, checked offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from patchwheel.kit import InputError, parsed, write_atomically
from patchwheel.release.files import SUMS
from patchwheel.remote import is_signed, sign

SIGNATURE = f"{SUMS}.sig"


def sign_sums(folder: Path, key: Path) -> str:
    """Sign the folder's SHA256SUMS with a private key in PEM; return the public key, in hex."""
    try:
        data = (folder / SUMS).read_bytes()
    except FileNotFoundError as err:
        raise InputError("there is no such file", where=err.filename) from err
    public, signature = sign(data, key)
    write_atomically(folder / SIGNATURE, _to_bytes(public, signature))
    return public


def check_signature(folder: Path, trusted: Mapping[str, str]) -> str:
    """Return the name of the trusted key that signed SHA256SUMS; raises InputError for none."""
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
    if text == _to_bytes(key, sig):
        for name in [name for name, known in trusted.items() if known == key]:
            if is_signed(data, key, sig):
                return name
    problem = f"{SIGNATURE} is no signature of {SUMS} by {', '.join(trusted)}"
    raise InputError(problem, where=folder)


def _to_bytes(key: str, sig: str) -> bytes:
    return (json.dumps({"keyid": key, "sig": sig}, indent=1) + "\n").encode()
