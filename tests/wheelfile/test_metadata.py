from dataclasses import replace

import pytest

from patchwheel.kit.errors import InputError
from patchwheel.wheelfile.metadata import (
    field,
    has_variant_label,
    labelled,
    normalize_name,
    parse_filename,
    same_version,
    set_dependencies,
    set_field,
    set_tags,
)

NAME = "demo_x-1.0-1b-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
TEXT = b"""Metadata-Version: 2.1
Name: demo-x
Version: 1.0
License: first line
        second: line

        Version: 9
Requires-Dist: numpy>=2
Requires-Dist: Foo.Bar (>=1)
Requires-Python: >=3.9

Version: not a field
""".replace(b"\n\n        Version", b"\n        Version")
PROJECT = {"requires-python": ">=3.9", "dependencies": ["numpy >= 2", "foo_bar>=1"]}


def test_file_names() -> None:
    name = parse_filename(NAME, where="here")
    assert (name.name, name.version, name.build) == ("demo_x", "1.0", "1b")
    assert name.filename == NAME
    assert name.expanded_tags == [
        "cp312-cp312-manylinux_2_27_x86_64",
        "cp312-cp312-manylinux_2_28_x86_64",
    ]
    with pytest.raises(InputError, match="no wheel's file name"):
        parse_filename("demo.whl", where="here")


@pytest.mark.parametrize(
    "name",
    [
        "demo-1.0+x.habc-py3-none-any-cuda13.whl",
        "demo-1.0-1b-cp312-cp312-win_amd64-x86_64_v3.whl",
        "demo-1.0-py3-none-any-null.whl",
    ],
)
def test_a_variant_wheel_is_known_by_its_name(name: str) -> None:
    assert has_variant_label(name)
    with pytest.raises(InputError, match=r"has a variant label \(PEP 825\)"):
        parse_filename(name, where="here")


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        "demo-1.0-py3-none-any.whl",
        "demo-1.0-1-py3-none-any.whl",
        "demo-1.0-py3-none-any-CUDA.whl",
        "demo-1.0-py3-none-any-a_label_that_is_too_long.whl",
        "demo-1.0-py3-none-any-.whl",
        "demo.whl",
    ],
)
def test_another_name_is_none_of_a_variant_wheel(name: str) -> None:
    assert not has_variant_label(name)


def test_the_label_is_a_valid_local_version_and_stays_in_the_file_name() -> None:
    version = labelled("1.18.1", "array.api", "1a2b3c4d" + "0" * 56, graft=True)
    assert version == "1.18.1+array.api.h1a2b3c4d.graft"
    assert labelled("1.0", "x", "ab" * 32, graft=False) == "1.0+x.habababab"
    name = replace(parse_filename(NAME, where=""), version=version)
    from packaging.utils import parse_wheel_filename

    distribution, parsed, *_ = parse_wheel_filename(name.filename)
    assert (distribution, str(parsed)) == ("demo-x", version)


def test_fields_end_at_the_first_empty_line_and_keep_their_continuations() -> None:
    assert field(TEXT, "version") == ["1.0"]
    edited = set_field(TEXT, ["Version"], [("Version", "1.0+x")])
    assert edited == TEXT.replace(b"\nVersion: 1.0\n", b"\nVersion: 1.0+x\n")
    assert set_field(b"Name: x\n", ["Tag"], [("Tag", "a")]) == b"Name: x\nTag: a\n"


def test_latin_1_is_read_and_becomes_utf_8() -> None:
    data = "Version: 1\nAuthor: Zo\xeb\n\nna\xefve\n".encode("latin-1")
    assert field(data, "Author") == ["Zo\xeb"]
    edited = set_field(data, ["Version"], [("Version", "2")])
    assert edited.decode() == "Version: 2\nAuthor: Zo\xeb\n\nna\xefve\n"


def test_versions_are_compared_by_what_they_mean() -> None:
    assert same_version("1.0", "1.0.0")
    assert same_version("1.0-1", "1.0.post1")
    assert not same_version("1.0", "1.0.1")
    assert not same_version("1.0", "of today")


def test_tags_that_agree_are_left_alone() -> None:
    wheel = b"Wheel-Version: 1.0\nTag: b-b-b\nTag: a-a-a\n\n"
    assert set_tags(wheel, ["a-a-a", "b-b-b"]) == wheel
    assert field(set_tags(wheel, ["c-c-c"]), "Tag") == ["c-c-c"]


def test_dependencies_follow_the_project() -> None:
    new = {**PROJECT, "dependencies": ["numpy>=2.1"], "requires-python": ">=3.10"}
    extras = {"My.Plot": ["a", "b; os_name=='nt'"]}
    text = set_dependencies(TEXT, PROJECT, {**new, "optional-dependencies": extras})
    assert field(text, "Requires-Dist") == [
        "numpy>=2.1",
        'a; extra == "my-plot"',
        'b; os_name == "nt" and extra == "my-plot"',
    ]
    assert field(text, "Provides-Extra") == ["my-plot"]
    assert field(text, "Requires-Python") == [">=3.10"]
    assert text.endswith(b"\n\nVersion: not a field\n")


def test_dependencies_that_the_base_does_not_have() -> None:
    with pytest.raises(InputError, match="other requirements"):
        set_dependencies(TEXT, {**PROJECT, "dependencies": ["numpy>=3"]}, PROJECT)


def test_names_are_normalised() -> None:
    assert normalize_name("Foo__Bar.baz") == "foo-bar-baz"
