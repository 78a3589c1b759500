"""The in-toto statement beside a release wheel: SLSA provenance, made from the wheel's record.

Like the SBOM it can be made again from the wheel and compared; sign it to say who made the wheel.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from patchwheel.kit.digest import digest
from patchwheel.wheelfile.record import FILENAME
from patchwheel.wheelfile.sbom import purl

if TYPE_CHECKING:
    from patchwheel.wheelfile.record import CompileRecord, WheelRecord


def make_statement(record: WheelRecord, filename: str, sha256: str) -> bytes:
    """Return the statement of a compiled wheel: what it was made from, and how."""
    compiled = record.compiled
    assert compiled  # noqa: S101  (a release wheel is compiled)
    tools = {
        name: {"identity": tool.identity, "version": tool.version}
        for name, tool in compiled.toolchain.items()
    }
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": filename, "digest": {"sha256": sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:patchwheel:compile:1",
                "externalParameters": {
                    "fork": record.fork,
                    "version": record.version,
                    "config-settings": compiled.config_settings,
                    "env": compiled.env,
                },
                "internalParameters": {
                    "sandbox": compiled.sandbox,
                    "source-date-epoch": compiled.source_date_epoch,
                    "toolchain": tools,
                    "key": record.key,
                },
                "resolvedDependencies": _dependencies(record, compiled),
            },
            "runDetails": {
                "builder": {"id": "urn:patchwheel:builder"},
                "metadata": {"invocationId": digest(dict(record.key))},
                "byproducts": [_resource(FILENAME, sha256=record.sha256)],
            },
        },
    }
    return (json.dumps(statement, indent=1) + "\n").encode()


def _dependencies(record: WheelRecord, compiled: CompileRecord) -> list[dict[str, object]]:
    fork, pin = record.fork, record.pin
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
    resources += [
        _resource(r.name, purl(r.name, r.version), sha256=sha256)
        for r in compiled.published_requirements
        for sha256 in r.hashes
    ]
    resources += [
        _resource(other, patchwheelInterface=interface)
        for other, interface in compiled.compiled_against.items()
    ]
    return resources


def _resource(name: str, uri: str | None = None, **digests: str) -> dict[str, object]:
    return {"name": name, **({"uri": uri} if uri else {}), "digest": digests}
