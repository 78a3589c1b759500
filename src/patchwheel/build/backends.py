"""The kinds of build backends: how each is asked what it makes, and what carries out its steps.

No other module names a backend. `guest/inspect_build.py` has the code that runs beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendKind:
    """What is particular to some backends; the defaults fit any.

    What has a `listed_by` lists the outputs and their sources without compiling anything; of others
    a finished wheel tells. A build that has `steps` is followed from sources to outputs.
    """

    modules: frozenset[str] = frozenset()
    listed_by: Literal["meson", "setuptools", "cmake", ""] = ""
    steps: Literal["ninja", "python", ""] = ""
    # Whether it can only copy files, so that a build tells at once what is in its wheel.
    copies: bool = False
    # Backends ask for them on machines that lack them only, and a lock cannot depend on that.
    tools: tuple[str, ...] = ()
    # Config settings, with a place for the build directory.
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    # Whether it does without the compiler flags of the interpreter's own build.
    own_flags: bool = False
    # Whether it compiles Rust, for which builds need the program cargo.
    rust: bool = False
    # Whether it can be told to make only what is installed.
    installed_only: bool = False


MESON = BackendKind(
    modules=frozenset({"mesonpy"}),
    listed_by="meson",
    steps="ninja",
    tools=("ninja>=1.11",),
    # Without a folder every build has a random one, which ends up in what it makes.
    settings={"build-dir": "{inside}/meson"},
    own_flags=True,
    installed_only=True,
)
SETUPTOOLS = BackendKind(modules=frozenset({"setuptools"}), listed_by="setuptools", steps="python")
# A backend of the project's own, or another's, that calls setuptools.
WRAPPED = BackendKind(listed_by="setuptools")
FLIT = BackendKind(modules=frozenset({"flit_core"}), copies=True)
MATURIN = BackendKind(modules=frozenset({"maturin"}), rust=True)
# CMake lists only what it installs, so it installs stand-ins for what it would compile.
SCIKIT_BUILD = BackendKind(
    modules=frozenset({"scikit_build_core"}),
    listed_by="cmake",
    steps="ninja",
    tools=("cmake>=3.17", "ninja>=1.11"),
    settings={"build-dir": "{inside}/meson"},
)
# Some compile only with a plugin or a script of the project's, as far as we can see.
OTHER = BackendKind(modules=frozenset({"hatchling", "poetry", "pdm"}))
KINDS = (MESON, SETUPTOOLS, SCIKIT_BUILD, FLIT, MATURIN, OTHER)
# With one of these, setuptools starts builds that its lists of extension modules do not describe.
BESIDE_SETUPTOOLS = frozenset({"setuptools-rust", "scikit-build", "cmake"})


def kind_of(module: str, requires: Collection[str]) -> BackendKind:
    """Return the kind of a backend by its top-level module and what it requires, by name."""
    found = next((kind for kind in KINDS if module in kind.modules), None)
    if found in (None, SETUPTOOLS) and not BESIDE_SETUPTOOLS.isdisjoint(requires):
        return OTHER
    if found is None and "scikit-build-core" in requires:
        return SCIKIT_BUILD
    return found or (WRAPPED if "setuptools" in requires else OTHER)
