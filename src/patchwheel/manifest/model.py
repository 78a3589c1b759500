"""The records of forks.toml. Their types, rules and descriptions are the only list of its keys."""

# No `from __future__ import annotations`: the reader and scripts/forks_schema.py read the types.
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from patchwheel.kit import ManifestError, did_you_mean
from patchwheel.manifest.convert import Rule

SCHEMA = 1
VERSION = re.compile(r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.(post|dev)[0-9]+)*")
# A fork pins at least one of these sets of keys.
SOURCES = (("sdist",), ("git", "commit"))

Text = Annotated[str, Rule("a string that is not empty")]
Name = Annotated[
    str, Rule("a normalised name such as scikit-learn or cuda13", r"[a-z0-9]+(-[a-z0-9]+)*")
]
Label = Annotated[
    str,
    Rule("lower-case letters, digits and dots, such as arrayapi", r"[a-z][a-z0-9]*(\.[a-z0-9]+)*"),
]
DistName = Annotated[
    str, Rule("the name of a distribution", r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
]
Version = Annotated[str, Rule("a PEP 440 version without a local part", VERSION.pattern)]
Commit = Annotated[str, Rule("all 40 hexadecimal digits", r"[0-9a-f]{40}")]
Sha256 = Annotated[str, Rule("64 hexadecimal digits", r"[0-9a-f]{64}")]
SdistName = Annotated[str, Rule("NAME-VERSION.tar.gz", r"[^/]+\.tar\.gz")]
Policy = Annotated[
    str, Rule("a platform of wheels such as manylinux_2_28", r"manylinux_2_[1-9][0-9]*")
]
Image = Annotated[
    str,
    Rule("an image pinned by digest: NAME@sha256:DIGEST", r"[a-z0-9][\w./:-]*@sha256:[0-9a-f]{64}"),
]
PythonTag = Annotated[str, Rule("a Python version such as 3.12", r"3\.[0-9]+")]
Strings = tuple[str, ...]
Settings = Mapping[str, str | Strings]


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


# In the records of what the file says, `Annotated` adds the description of a key to its type. The
# key is the name of the field with `-` for `_`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdist:
    """A source distribution of an index."""

    filename: Annotated[SdistName, "File name of the source distribution."]
    sha256: Annotated[Sha256, "Its sha256."]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamWheel:
    """The published wheel that a graft may take outputs from."""

    distribution: Annotated[DistName, "Name of the wheel, and of ours; the fork's by default."] = ""
    only_in_base: Annotated[Strings, "Globs of wheel paths that a build of the pin lacks."] = ()
    only_in_build: Annotated[Strings, "Globs of wheel paths that upstream's wheel lacks."] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How the wheel of a fork is named and built: the keys that a variant has too."""

    upstream_wheel: Annotated[
        UpstreamWheel | Literal[False] | None,
        "The published wheel to take unaffected files from; `false`: there is none, compile.",
    ] = None
    config_settings: Annotated[Settings, "Config settings for the build backend (PEP 517)."] = (
        field(default_factory=_empty)
    )
    env: Annotated[Mapping[str, Text], "Environment variables of the build."] = field(
        default_factory=_empty
    )
    build_requires: Annotated[
        Strings, "Requirements (PEP 508) added to the project's own, or replacing them by name."
    ] = ()
    programs: Annotated[
        Strings,
        "Programs that a compile needs besides a C and a C++ compiler; `cuda` is the CUDA toolkit, "
        "`hipcc` is ROCm, `pkg-config:geos` a library that pkg-config knows, `cargo` Rust.",
    ] = ()
    crates: Annotated[
        Text | None,
        "Folder of vendored Rust crates, from the manifest's, as `cargo vendor` writes it: "
        "a build has no network.",
    ] = None
    without: Annotated[
        Mapping[str, Settings],
        "For one of the `programs`: config settings to add for a graft where it is missing.",
    ] = field(default_factory=_empty)
    required_env: Annotated[
        Strings, "Variables that whoever builds must set; they count in the key of the wheel."
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkTable(BuildOptions):
    """What forks.toml says of a fork."""

    version: Annotated[Version, "Upstream's version, without a local part."]
    sdist: Annotated[Sdist | None, "The source distribution: the source, if it is given."] = None
    git: Annotated[Text | None, "Upstream's repository: https, ssh or file."] = None
    tag: Annotated[Text | None, "Tag of the pinned release."] = None
    commit: Annotated[Commit | None, "Full id of the pinned commit."] = None
    submodules: Annotated[
        Mapping[Text, Text | Literal[False]],
        "For the path of a submodule: another address, or `false` to leave it out.",
    ] = field(default_factory=_empty)
    tests: Annotated[
        Strings, "Globs of test files that `patchwheel test` runs beside those found by name."
    ] = ()
    variants: Annotated[
        Mapping[Name, BuildOptions], "Ways to build the fork, by name; the first is the default."
    ] = field(default_factory=_empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork(ForkTable):
    """An upstream project, pinned, with the folder of its patch series.

    A fork with variants is the first of them. `variants` then holds each as a fork of its own,
    with its name in `variant`; the first has the name "" there, as the default.
    """

    name: str
    patches: Path
    # Filled in by the loader: its own name without the key, None for `false`.
    upstream_wheel: UpstreamWheel | None = None
    variant: str = ""
    variants: Mapping[str, "Fork"] = field(default_factory=_empty)

    @property
    def lock_key(self) -> str:
        """Its key in forks.lock."""
        return f"{self.name}:{self.variant}" if self.variant else self.name

    @property
    def distribution(self) -> str:
        """The name of our wheel."""
        return self.upstream_wheel.distribution if self.upstream_wheel else self.name

    @property
    def pin(self) -> dict[str, str | None]:
        """The upstream state for keys; with an sdist, a commit may be added without changing it."""
        sdist = self.sdist.sha256 if self.sdist else None
        git, commit = (None, None) if sdist else (self.git, self.commit)
        return {"version": self.version, "git": git, "commit": commit, "sdist": sdist}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    label: Annotated[Label, "Local version that marks our wheels: `1.18.1+LABEL.h1a2b3c4d`."]
    python: Annotated[
        tuple[PythonTag, ...],
        Rule('a list such as ["3.12"]'),
        "Python versions to build for; the first is the default.",
    ]
    platform: Annotated[
        Policy | None,
        "The newest system that release wheels may need: one with a higher true tag is an error.",
    ] = None
    platform_image: Annotated[
        Image | None, "The image of that system, by digest: CI compiles release wheels in it."
    ] = None
    requires: Annotated[Strings, "Requirements besides the forks and their dependencies."] = ()
    test_requires: Annotated[Strings, "Requirements that `patchwheel test` adds."] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestTable:
    """What forks.toml says."""

    schema: Annotated[Literal[1], "Version of this format."]
    environment: Annotated[EnvironmentSpec, "The environment that all wheels are installed into."]
    forks: Annotated[
        Mapping[Name, ForkTable],
        "A table for each fork, by its normalised distribution name; "
        "its series is in `patches/NAME`.",
    ] = field(default_factory=_empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `forks.toml` says, checked: the environment, and the forks by lock key."""

    path: Path
    environment: EnvironmentSpec
    forks: Mapping[str, Fork]

    @property
    def all_variants(self) -> list[Fork]:
        """Every variant of every fork, and the forks that have none."""
        forks = self.forks.values()
        return [v for f in forks for v in (f.variants or {"": f}).values()]

    @property
    def other_variants(self) -> list[str]:
        """The names of all variants that are not a fork's first."""
        return sorted({fork.variant for fork in self.all_variants if fork.variant})

    @property
    def root(self) -> Path:
        return self.path.parent

    @property
    def lock_path(self) -> Path:
        return self.path.with_suffix(".lock")

    @property
    def inventory_path(self) -> Path:
        return self.path.with_suffix(".inventory")

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that are changed together."""
        return self.lock_path, self.inventory_path, self.path

    def select(self, names: Sequence[str], variant: str | None = None) -> list[Fork]:
        """Return the named forks, or all, in the manifest's order.

        With a variant, return that variant of each named fork, or of each fork that has it.
        """
        if not self.forks:
            hint = "`patchwheel add NAME` pins the newest release of a project"
            raise ManifestError("has no fork yet", where=self.path, hint=hint)
        if unknown := [name for name in names if name not in self.forks]:
            raise self.unknown("no fork is called", unknown[0], self.forks)
        chosen = [f for n, f in self.forks.items() if not names or n in names]
        if variant is None:
            return chosen
        having = [f for f in chosen if variant in f.variants]
        if others := [f for f in chosen if f not in having and (names or not having)]:
            known = sorted({v for f in others for v in f.variants})
            raise self.unknown(f"{others[0].name} has no variant", variant, known)
        return [f.variants[variant] for f in having]

    def unknown(self, problem: str, name: str, known: Collection[str]) -> ManifestError:
        """Return the error for a name that is none of the `known`."""
        message = f"{problem} {name!r}{did_you_mean(name, known)}"
        expected = f"one of {', '.join(known)}" if known else None
        return ManifestError(message, where=self.path, expected=expected)

    def with_variant(self, variant: str | None) -> "Manifest":
        """Return a manifest in which each fork that has the variant is that variant."""
        if variant is None:
            return self
        chosen = {fork.name: fork for fork in self.select([], variant)}
        return replace(self, forks=MappingProxyType({**self.forks, **chosen}))
