"""The files beside release wheels: statements, pylock.toml, SHA256SUMS, its signature, an index."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from patchwheel.kit import InputError, digest, exclusive_lock, parsed, write_atomically
from patchwheel.remote import is_signed, sign
from patchwheel.wheelfile import (
    FILENAME,
    STATEMENT,
    PatchRecord,
    WheelFile,
    WheelRecord,
    metadata,
    purl,
    sbom,
)

SUMS = "SHA256SUMS"
SIGNATURE = f"{SUMS}.sig"
PYLOCK = "pylock.toml"
SIMPLE = "simple"
VEX = "openvex.json"
# Bytes of a file beside wheels: of hundreds of wheels, a page has a few.
LARGEST = 64 << 20
API = "1.1"
NOT_PUBLIC = "Not public: grafts on upstream's wheels."
PAGE = """<!DOCTYPE html>
<html><head><meta name="pypi:repository-version" content="{api}"><title>{title}</title></head><body>
{links}
</body></html>
"""


def sidecars(folder: Path, wheels: Sequence[WheelFile]) -> dict[str, bytes]:
    """Return statements, lock and sums of the wheels in a folder, by path in the folder."""
    contents = {f"{_place(w, folder)}{STATEMENT}": make_statement(w) for w in wheels}
    changed = [wheel for wheel in wheels if beside(wheel.path, metadata.BESIDE).exists()]
    contents |= {f"{_place(w, folder)}{metadata.BESIDE}": make_sbom(w) for w in changed}
    contents[PYLOCK] = _pylock(folder, wheels)
    if any(patch.fixes for wheel in wheels for patch in _now(wheel)):
        contents[VEX] = _vex(wheels)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    sums |= {_place(wheel, folder): wheel.sha256 for wheel in wheels}
    contents[SUMS] = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
    return contents


def content(path: Path) -> bytes | None:
    """Return what is in a file beside wheels; None for what is no file, or too large for one."""
    return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else None


def beside(wheel: Path, suffix: str) -> Path:
    return wheel.with_name(f"{wheel.name}{suffix}")


def make_sbom(wheel: WheelFile) -> bytes:
    """Return the SBOM beside a wheel: of it, only what it says of patches counts."""
    return sbom.make_sbom(wheel.record, wheel.project, _now(wheel))


def _now(wheel: WheelFile) -> tuple[PatchRecord, ...]:
    """Return a wheel's patches as an SBOM beside it has them, or else as it has them itself."""
    # What is no such SBOM differs from the one that is made then, and `verify` says so.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        stated = parsed(content(beside(wheel.path, metadata.BESIDE)) or b"")
        rows = stated["metadata"]["component"]["pedigree"]["patches"]
        return tuple(map(sbom.stated_patch, rows))
    return wheel.record.patches


def make_statement(wheel: WheelFile) -> bytes:
    """Return a release wheel's in-toto statement with its SLSA provenance."""
    record, made = wheel.record, wheel.record.to_json()
    compiled = made["compiled"]
    # No time and no machine: it follows from the wheel alone, so that `verify` can make it again.
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [_resource(wheel.path.name, sha256=wheel.sha256)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:patchwheel:compile:1",
                "externalParameters": {
                    "fork": record.fork,
                    "version": record.version,
                    "config-settings": compiled["config-settings"],
                    "env": compiled["env"],
                },
                "internalParameters": {
                    "sandbox": compiled["sandbox"],
                    "source-date-epoch": compiled["source-date-epoch"],
                    "toolchain": compiled["toolchain"],
                    "key": made["key"],
                },
                "resolvedDependencies": _dependencies(record),
            },
            "runDetails": {
                "builder": {"id": "urn:patchwheel:builder"},
                "metadata": {"invocationId": digest(dict(record.key))},
                "byproducts": [_resource(FILENAME, sha256=record.sha256)],
            },
        },
    }
    return _json(statement)


def _vex(wheels: Sequence[WheelFile]) -> bytes:
    """Return an OpenVEX statement of the vulnerabilities that the series say to fix."""
    fixed: dict[str, list[dict[str, object]]] = {}
    for wheel in _unique(wheels):
        product: dict[str, object] = {
            "@id": purl(wheel.project, wheel.name.version),
            "hashes": {"sha-256": wheel.sha256},
        }
        for name in sorted({n for patch in _now(wheel) for n in patch.fixes}):
            fixed.setdefault(name, []).append(product)
    epochs = [int(c.source_date_epoch) for w in wheels if (c := w.record.compiled)]
    statements = [
        {"vulnerability": {"name": name}, "products": products, "status": "fixed"}
        for name, products in sorted(fixed.items())
    ]
    return _json(
        {
            "@context": "https://openvex.dev/ns/v0.2.0",
            "@id": f"urn:patchwheel:vex:{digest(statements)}",
            "author": "patchwheel",
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(epochs))),
            "version": 1,
            "statements": statements,
        }
    )


def _dependencies(record: WheelRecord) -> list[dict[str, object]]:
    fork, pin, compiled = record.fork, record.pin, record.compiled
    assert compiled  # noqa: S101  (a release wheel is compiled)
    resources = []
    if sdist := pin.sdist:
        uri = f"{purl(fork, pin.version)}?file_name={quote(sdist.filename)}"
        resources.append(_resource(sdist.filename, uri, sha256=sdist.sha256))
    if commit := pin.commit:
        uri = f"git+{pin.git}@{pin.tag or commit}"
        resources.append(_resource("upstream", uri, gitCommit=commit))
    resources += [
        _resource(f"patches/{fork}/{patch.name}", sha256=patch.sha256) for patch in record.patches
    ]
    resources.append(_resource("patched tree", gitTree=record.trees.patched))
    for required in compiled.published_requirements:
        uri = purl(required.name, required.version)
        resources += [_resource(required.name, uri, sha256=sha256) for sha256 in required.hashes]
    for name, interface in compiled.compiled_against.items():
        resources.append(_resource(name, patchwheelInterface=interface))
    return resources


def _resource(name: str, uri: str | None = None, **digests: str) -> dict[str, object]:
    return {"name": name, **({"uri": uri} if uri else {}), "digest": digests}


def simple_index(
    folder: Path, wheels: Sequence[WheelFile], *, grafts: bool = False
) -> dict[str, bytes]:
    """Return the pages of a simple index, which may be one of grafts, and the wheels' metadata."""
    names = sorted({wheel.project for wheel in wheels})
    links = [f'<a href="{name}/">{name}</a><br>' for name in names]
    title = f"{NOT_PUBLIC} " if grafts else ""
    rows = [{"name": name} for name in names]
    contents = _pages(SIMPLE, f"{title}Simple index", links, projects=rows)
    for name in names:
        own = [wheel for wheel in _unique(wheels) if wheel.project == name]
        contents |= {
            f"{_place(wheel, folder)}.metadata": wheel.metadata("METADATA") for wheel in own
        }
        rows = [_row(wheel, f"../../{quote(_place(wheel, folder))}") for wheel in own]
        versions = sorted({wheel.name.version for wheel in own})
        contents |= _pages(
            f"{SIMPLE}/{name}",
            f"{title}Links for {name}",
            map(_link, rows),
            name=name,
            versions=versions,
            files=rows,
        )
    return contents


def _pages(place: str, title: str, links: Iterable[str], **answer: object) -> dict[str, bytes]:
    """Return a page for people and old installers, and its JSON for the others."""
    page = PAGE.format(api=API, title=title, links="\n".join(links))
    data = {"meta": {"api-version": API}, **answer}
    return {f"{place}/index.html": page.encode(), f"{place}/index.json": _json(data)}


def _json(data: object) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()


def _row(wheel: WheelFile, url: str) -> dict[str, Any]:
    hashed = {"sha256": hashlib.sha256(wheel.metadata("METADATA")).hexdigest()}
    python = metadata.field(wheel.metadata("METADATA"), "Requires-Python")
    return {
        "filename": wheel.path.name,
        "url": url,
        "hashes": {"sha256": wheel.sha256},
        "size": wheel.path.stat().st_size,
        **({"requires-python": python[0]} if python else {}),
        # The first is PEP 714's name, the second the one that older installers know.
        "core-metadata": hashed,
        "dist-info-metadata": hashed,
    }


def _link(row: Mapping[str, Any]) -> str:
    hashed = f"sha256={row['core-metadata']['sha256']}"
    attributes = {
        "href": f"{row['url']}#sha256={row['hashes']['sha256']}",
        "data-requires-python": row.get("requires-python"),
        "data-core-metadata": hashed,
        "data-dist-info-metadata": hashed,
    }
    text = " ".join(f'{k}="{escape(v)}"' for k, v in attributes.items() if v)
    return f"<a {text}>{row['filename']}</a><br>"


def sign_sums(folder: Path, key: Path) -> str:
    """Sign the folder's SHA256SUMS with a private key in PEM; return the public key, in hex."""
    if (data := content(folder / SUMS)) is None:
        raise InputError("there is no such file", where=folder / SUMS)
    public, signature = sign(data, key)
    with exclusive_lock(folder):
        text = _json({"keyid": public, "sig": signature})
        write_atomically(folder / SIGNATURE, text, alone=True)
    return public


def check_signature(folder: Path, trusted: Mapping[str, str]) -> str:
    """Return the name of the trusted key that signed SHA256SUMS; raises InputError for none."""
    text, data = (content(folder / name) for name in (SIGNATURE, SUMS))
    if text is None or data is None:
        missing = SIGNATURE if text is None else SUMS
        raise InputError(f"there is no file {missing}, so it is not signed", where=folder)
    try:
        row = parsed(text)
        key, sig = str(row["keyid"]), str(row["sig"])
    except (ValueError, KeyError, TypeError) as err:
        raise InputError(f"{SIGNATURE} is no signature: {err!r}", where=folder) from err
    # There is one way to write it, so that no byte of it can be changed.
    if text == _json({"keyid": key, "sig": sig}):
        for name in [name for name, known in trusted.items() if known == key]:
            if is_signed(data, key, sig):
                return name
    problem = f"{SIGNATURE} is no signature of {SUMS} by {', '.join(trusted)}"
    raise InputError(problem, where=folder)


def _pylock(folder: Path, wheels: Sequence[WheelFile]) -> bytes:
    import tomlkit

    packages = []
    for wheel in _unique(wheels):
        place, size = _place(wheel, folder), wheel.path.stat().st_size
        hashes = {"sha256": wheel.sha256}
        file = {"name": wheel.path.name, "path": place, "size": size, "hashes": hashes}
        # A lock may hold the wheels of one project for several Pythons.
        python = re.match(r"cp(\d)(\d+)-cp", wheel.name.tags)
        marker = {"marker": f"python_version == '{python[1]}.{python[2]}'"} if python else {}
        package = {"name": wheel.project, "version": wheel.name.version, **marker, "wheels": [file]}
        packages.append(package)
    lock = {"lock-version": "1.0", "created-by": "patchwheel", "packages": packages}
    return tomlkit.dumps(lock).encode()


def _unique(wheels: Sequence[WheelFile]) -> list[WheelFile]:
    # Equal files in several folders are one in the index.
    by_name = {wheel.path.name: wheel for wheel in reversed(wheels)}
    return [by_name[name] for name in sorted(by_name)]


def _place(wheel: WheelFile, folder: Path) -> str:
    return wheel.path.relative_to(folder).as_posix()
