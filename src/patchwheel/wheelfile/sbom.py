"""The CycloneDX SBOM that a compiled wheel carries, and the edit of one that a base brought along.

Our SBOM follows from the wheel's record alone: whoever has the wheel can make it again and compare.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

from patchwheel.kit import digest, parsed
from patchwheel.wheelfile.metadata import WheelName, normalize_name
from patchwheel.wheelfile.record import FILENAME, CompileRecord, PatchRecord, PinRecord, WheelRecord

# Raised whenever the same record would give another SBOM: it is part of a compile's key.
LAYOUT = "4"
PLACE = "sboms/patchwheel.cdx.json"


def make_sbom(
    record: WheelRecord, distribution: str, said: Sequence[PatchRecord] | None = None
) -> bytes:
    """Return a compiled wheel's SBOM: what it descends from, its patches, what it was made with.

    What is `said` of the patches by now is for an SBOM beside the wheel, which is another document.
    """
    assert record.compiled  # noqa: S101  (only compiled wheels have an SBOM of ours)
    key = digest(dict(record.key))
    patches = [_patch(record.fork, patch) for patch in (record.patches if said is None else said)]
    document_key = key if said is None else f"{key} {digest(patches)}"
    moment = time.gmtime(int(record.compiled.source_date_epoch))
    components = [*_build_components(record.compiled), _component("file", FILENAME, record.sha256)]
    reference = purl(distribution, record.version)
    subject = {
        "type": "library",
        "bom-ref": reference,
        "name": distribution,
        "version": record.version,
        "purl": reference,
        "pedigree": {
            "ancestors": [_upstream(record.fork, record.pin)],
            "patches": patches,
        },
        "properties": _property("node-key", key),
    }
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, document_key)}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "patchwheel"}]},
            "component": subject,
        },
        "dependencies": [{"ref": reference}],
        "formulation": [{"components": components}],
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def set_subject(sbom: bytes, old: WheelName, new: WheelName) -> bytes:
    """Rename the component that a CycloneDX SBOM describes, if that is the wheel itself."""
    try:
        data = parsed(sbom)
        subject = data["metadata"]["component"]
        is_wheel = normalize_name(subject["name"]) == normalize_name(old.name)
    # Whatever else the base brought along is left as it is.
    except (ValueError, KeyError, TypeError, AttributeError):
        return sbom
    if not is_wheel or subject.get("version") != old.version:
        return sbom
    reference = subject.get("bom-ref")

    def renamed(text: str) -> str:
        text = text.replace(old.filename, quote(new.filename))
        return text.replace(f"@{old.version}", f"@{quote(new.version)}")

    def described(node: dict[str, Any]) -> dict[str, Any]:
        if node.get("bom-ref") == reference and "name" in node:
            node["version"] = new.version
            if "purl" in node:
                node["purl"] = renamed(node["purl"])
        return node

    text = json.dumps(json.loads(sbom, object_hook=described))
    # Whatever refers to the subject has its reference as a whole string.
    if isinstance(reference, str):
        text = text.replace(json.dumps(reference), json.dumps(renamed(reference)))
    return text.encode()


def purl(name: str, version: str) -> str:
    """Return the package URL of a distribution on PyPI."""
    return f"pkg:pypi/{name}@{quote(version)}"


def _build_components(compiled: CompileRecord) -> list[dict[str, object]]:
    components = [
        _component("library", r.name, *r.hashes, version=r.version, purl=purl(r.name, r.version))
        for r in compiled.published_requirements
    ]
    for fork, interface in sorted(compiled.compiled_against.items()):
        own = _property("interface", interface)
        components.append(_component("library", fork, properties=own))
    for name, tool in sorted(compiled.toolchain.items()):
        more = {"version": tool.version, "properties": _property("identity", tool.identity)}
        components.append(_component("application", name, **more))
    return components


def _upstream(fork: str, pin: PinRecord) -> dict[str, object]:
    hashes = [pin.sdist.sha256] if pin.sdist else []
    url = purl(fork, pin.version)
    component = _component("library", fork, *hashes, version=pin.version, purl=url)
    if pin.git:
        state = [f"{k} {v}" for k, v in (("tag", pin.tag), ("commit", pin.commit)) if v]
        link = {"type": "vcs", "url": pin.git, "comment": ", ".join(state)}
        component["externalReferences"] = [link]
    return component


def _patch(fork: str, patch: PatchRecord) -> dict[str, object]:
    backport = re.match("backport", patch.upstream_status, re.IGNORECASE)
    # CycloneDX has no field for a patch's hash: it stands where an index puts that of a file.
    url = f"patches/{fork}/{quote(patch.name)}#sha256={patch.sha256}"
    kind = "backport" if backport else "unofficial"
    resolves = [{"type": "security", "id": name} for name in patch.fixes]
    return {"type": kind, "diff": {"url": url}, **({"resolves": resolves} if resolves else {})}


def stated_patch(row: Any) -> PatchRecord:
    """Return what an SBOM says of a patch; raises ValueError for a name that no file has."""
    place, _, sha256 = row["diff"]["url"].partition("#sha256=")
    fixes = tuple(str(resolved["id"]) for resolved in row.get("resolves", ()))
    name, status = unquote(place.rpartition("/")[2]), str(row["type"])
    name.encode()
    return PatchRecord(name=name, sha256=sha256, subject="", upstream_status=status, fixes=fixes)


def _component(kind: str, name: str, *hashes: str, **more: object) -> dict[str, object]:
    rows = [{"alg": "SHA-256", "content": sha256} for sha256 in hashes]
    return {"type": kind, "name": name, **more, **({"hashes": rows} if rows else {})}


def _property(name: str, value: str) -> list[dict[str, str]]:
    return [{"name": f"patchwheel:{name}", "value": value}]
