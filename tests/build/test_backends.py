import pytest

from patchwheel.build.backends import (
    FLIT,
    MATURIN,
    MESON,
    OTHER,
    SCIKIT_BUILD,
    SETUPTOOLS,
    WRAPPED,
    kind_of,
)
from patchwheel.build.requirements import parse_build_system
from tests.fixtures.support import ROOT


@pytest.mark.parametrize(
    ("backend", "requires", "kind"),
    [
        ("mesonpy", ["meson-python"], MESON),
        ("setuptools.build_meta", ["setuptools>=77", "Cython"], SETUPTOOLS),
        ("setuptools.build_meta:__legacy__", [], SETUPTOOLS),
        ("own", ["setuptools"], WRAPPED),
        ("pbr.build", ["pbr", "Setuptools >= 60"], WRAPPED),
        ("own", [], OTHER),
        # setuptools says nothing of what these compile.
        ("setuptools.build_meta", ["setuptools", "setuptools_rust>=1.7"], OTHER),
        ("own", ["setuptools", "cmake"], OTHER),
        ("scikit_build_core.build", ["scikit-build-core"], SCIKIT_BUILD),
        # rapidfuzz's own backend, which adds requirements.
        ("own", ["scikit-build-core>=0.11", "Cython"], SCIKIT_BUILD),
        ("flit_core.buildapi", ["flit_core"], FLIT),
        ("hatchling.build", ["hatchling", "hatch-vcs", "setuptools"], OTHER),
        ("poetry.core.masonry.api", ["poetry-core"], OTHER),
        ("pdm.backend", ["pdm-backend"], OTHER),
        ("maturin", ["maturin"], MATURIN),
    ],
)
def test_the_kind_of_a_backend(backend: str, requires: list[str], kind: object) -> None:
    text = f'[build-system]\nbuild-backend = "{backend}"\nrequires = {requires}\n'
    assert parse_build_system(text.encode()).kind is kind


def test_nothing_that_lists_its_outputs_is_taken_by_another_name() -> None:
    assert kind_of("setuptools_scm", ["setuptools-scm"]) is OTHER


def test_backends_are_named_in_one_module() -> None:
    modules = (ROOT / "src" / "patchwheel").rglob("*.py")
    naming = {
        path.name
        for path in modules
        if path.parent.name != "guest" and '"mesonpy"' in path.read_text()
    }
    assert naming == {"backends.py"}
