"""What a compiled wheel tells of its making: an SBOM in it and a provenance statement beside it.

Both follow from the wheel's own record, `patchwheel.json`, and hold its sha256: who has the wheel can make them again
and compare, offline. That shows that they agree with each other, not who made them; for that, sign the statement.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from patchwheel.kit.digest import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

# Raised whenever the same record would give another SBOM: it is part of a compile's key.
LAYOUT = "3"
RECORD = "patchwheel.json"
SBOM = "sboms/patchwheel.cdx.json"
STATEMENT = ".intoto.json"


def sbom(record: bytes, distribution: str) -> bytes:
    """Return the CycloneDX SBOM of a wheel: what it descends from, its patches, and what it was made with."""
    data = json.loads(record)
    pin, compiled, key = data["pin"], data["compiled"], digest(data["key"])
    moment = time.gmtime(int(compiled["source-date-epoch"]))
    ours = _purl(distribution, data["version"])
    made_with = [
        _component("library", name, *hashes, version=version, purl=_purl(name, version))
        for name, version, *hashes in _requirements(data)
    ]
    for fork, interface in compiled["compiled-against"].items():
        seen = [{"name": "patchwheel:interface", "value": interface}]
        made_with.append(_component("library", fork, properties=seen))
    for name, tool in compiled["toolchain"].items():
        proof = [{"name": "patchwheel:identity", "value": tool["identity"]}]
        named: dict[str, object] = {"version": tool["version"], "properties": proof}
        made_with.append(_component("application", name, **named))
    made_with.append(_component("file", RECORD, _sha256(record)))
    subject: dict[str, object] = {"type": "library", "bom-ref": ours}
    subject |= _component(
        *("library", distribution),
        version=data["version"],
        purl=ours,
        pedigree={
            "ancestors": [_upstream(data["fork"], pin)],
            "patches": [_patch(data["fork"], patch) for patch in data["patches"]],
        },
        properties=[{"name": "patchwheel:node-key", "value": key}],
    )
    return _json(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, key)}",
            "version": 1,
            "metadata": {
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
                "lifecycles": [{"phase": "build"}],
                "tools": {"components": [{"type": "application", "name": "patchwheel"}]},
                "component": subject,
            },
            "dependencies": [{"ref": ours}],
            "formulation": [{"components": made_with}],
        }
    )


def statement(record: bytes, filename: str, sha256: str) -> bytes:
    """Return the in-toto statement of a wheel, with SLSA's provenance: what the wheel was made from, and how."""
    data = json.loads(record)
    fork, pin, compiled = data["fork"], data["pin"], data["compiled"]
    sources = []
    if sdist := pin["sdist"]:
        uri = f"{_purl(fork, pin['version'])}?file_name={quote(sdist['filename'])}"
        sources.append(_resource(sdist["filename"], uri, sha256=sdist["sha256"]))
    if commit := pin["commit"]:
        uri = f"git+{pin['git']}@{pin['tag'] or commit}"
        sources.append(_resource("upstream", uri, gitCommit=commit))
    sources += [
        _resource(f"patches/{fork}/{p['name']}", sha256=p["sha256"]) for p in data["patches"]
    ]
    sources.append(_resource("patched tree", gitTree=data["trees"]["patched"]))
    sources += [
        _resource(name, _purl(name, version), sha256=one)
        for name, version, *hashes in _requirements(data)
        for one in hashes
    ]
    sources += [
        _resource(other, patchwheelInterface=one)
        for other, one in compiled["compiled-against"].items()
    ]
    how = ("sandbox", "source-date-epoch", "toolchain")
    return _json(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": filename, "digest": {"sha256": sha256}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": "urn:patchwheel:compile:1",
                    "externalParameters": {
                        "fork": fork,
                        "version": data["version"],
                        "config-settings": compiled["config-settings"],
                        "env": compiled["env"],
                    },
                    "internalParameters": {
                        **{name: compiled[name] for name in how},
                        "key": data["key"],
                    },
                    "resolvedDependencies": sources,
                },
                "runDetails": {
                    "builder": {"id": "urn:patchwheel:builder"},
                    "metadata": {"invocationId": digest(data["key"])},
                    "byproducts": [_resource(RECORD, sha256=_sha256(record))],
                },
            },
        }
    )


def difference(found: object, expected: object, at: str = "") -> str | None:
    """Name the first place in which two values of JSON differ, or None."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            place = f"{at}.{key}" if at else str(key)
            if key not in found or key not in expected:
                return f"{place} is {'missing' if key in expected else 'one too many'}"
            if why := difference(found[key], expected[key], place):
                return why
        return None
    if isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            return f"{at} has {len(found)} entries, not {len(expected)}"
        rows = enumerate(zip(found, expected, strict=True))
        return next(filter(None, (difference(*r, f"{at}[{n}]") for n, r in rows)), None)
    same = type(found) is type(expected) and found == expected
    return None if same else f"{at} is {found!r}, not {expected!r}"


def _requirements(data: Mapping[str, Any]) -> list[list[str]]:
    """Return the locked build requirements, less those that our own wheels took the place of."""
    ours = data["compiled"]["compiled-against"]
    return [row for row in data["compiled"]["build-requirements"] if row[0] not in ours]


def _upstream(fork: str, pin: Mapping[str, Any]) -> dict[str, object]:
    version, hashes = pin["version"], [pin["sdist"]["sha256"]] if pin["sdist"] else []
    named = {"version": version, "purl": _purl(fork, version)}
    found = _component("library", fork, *hashes, **named)
    if pin["git"]:
        state = [f"{k} {pin[k]}" for k in ("tag", "commit") if pin[k]]
        link = {"type": "vcs", "url": pin["git"], "comment": ", ".join(state)}
        found["externalReferences"] = [link]
    return found


def _patch(fork: str, patch: Mapping[str, str]) -> dict[str, object]:
    backport = re.match("backport", patch["upstream-status"], re.IGNORECASE)
    # CycloneDX has no field for a patch's hash: its place is where an index has that of a file.
    url = f"patches/{fork}/{quote(patch['name'])}#sha256={patch['sha256']}"
    return {"type": "backport" if backport else "unofficial", "diff": {"url": url}}


def _component(kind: str, name: str, *hashes: str, **more: object) -> dict[str, object]:
    rows = [{"alg": "SHA-256", "content": one} for one in hashes]
    return {"type": kind, "name": name, **more, **({"hashes": rows} if rows else {})}


def _resource(name: str, uri: str | None = None, **found: str) -> dict[str, object]:
    return {"name": name, **({"uri": uri} if uri else {}), "digest": found}


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{quote(version)}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
