import json
from dataclasses import replace

import pytest

from patchwheel.wheelfile.metadata import parse_filename
from patchwheel.wheelfile.sbom import set_subject

NAME = "demo_x-1.0-1b-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"


def sbom(**subject: object) -> bytes:
    ref = "pkg:pypi/demo_x@1.0?file_name=" + NAME
    component = {"name": "demo_x", "version": "1.0", "bom-ref": ref, "purl": ref}
    return json.dumps(
        {
            "metadata": {"component": {**component, **subject}},
            "components": [component, {"name": "libz", "version": "1.0"}],
            "dependencies": [{"ref": ref, "dependsOn": ["libz"]}, 7],
        }
    ).encode()


def test_an_sbom_gets_the_new_subject() -> None:
    old = parse_filename(NAME, where="")
    new = replace(old, version="1.0+x.h1")
    data = json.loads(set_subject(sbom(), old, new))
    subject = data["metadata"]["component"]
    assert subject["version"] == "1.0+x.h1"
    assert subject["purl"].startswith(
        "pkg:pypi/demo_x@1.0%2Bx.h1?file_name=demo_x-1.0%2Bx.h1-1b-cp312"
    )
    assert data["components"][0] == subject
    assert data["components"][1]["version"] == "1.0"
    assert data["dependencies"][0]["ref"] == subject["bom-ref"]


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"{}",
        b"[]",
        b'{"metadata": {"component": null}}',
        sbom(name="libz"),
        sbom(version="2.0"),
    ],
)
def test_what_is_about_something_else_is_left_alone(data: bytes) -> None:
    old = parse_filename(NAME, where="")
    assert set_subject(data, old, replace(old, version="1.0+x")) == data


def test_a_subject_without_purl_and_reference() -> None:
    old = parse_filename(NAME, where="")
    data = b'{"metadata": {"component": {"name": "demo-x", "version": "1.0"}}}'
    new = json.loads(set_subject(data, old, replace(old, version="1.0+x")))
    assert new["metadata"]["component"] == {"name": "demo-x", "version": "1.0+x"}
