"""forks.toml as frozen records. Unknown keys, wrong types and impossible values never get past here."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from patchwheel.kit.errors import ManifestError
from patchwheel.manifest.toml_reader import TomlReader, near

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Settings = Mapping[str, str | tuple[str, ...]]

SCHEMA = 1
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LABEL = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9]+)*")
VERSION = re.compile(r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.(post|dev)[0-9]+)*")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
PYTHON = re.compile(r"3\.[0-9]+")
PINS = ("git", "tag", "commit", "version", "sdist")
HOW = (
    *("upstream-wheel", "config-settings", "env", "build-requires", "system"),
    *("lacking", "demands"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdist:
    filename: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamWheel:
    """The published wheel that a graft may take outputs from.

    `only_in_base` and `only_in_build` are globs of wheel paths in which it may differ from the pin's own build.
    """

    distribution: str
    only_in_base: tuple[str, ...] = ()
    only_in_build: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """An upstream project, pinned, with the folder of our series.

    `build_requires` replaces or adds to the project's own build requirements, by name;
    `system` names programs that a compile needs beyond a C and a C++ compiler; `lacking` gives the config settings
    with which a graft does without one of them; `demands` names variables that whoever builds must set.

    `variants` are forks of the same source and series that are built in another way, by their names; the fork is the
    first of them. Any other one has its name in `variant`.
    """

    name: str
    version: str
    patches: Path
    git: str | None = None
    tag: str | None = None
    commit: str | None = None
    sdist: Sdist | None = None
    upstream_wheel: UpstreamWheel | None = None
    config_settings: Settings = field(default_factory=lambda: MappingProxyType({}))
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    build_requires: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    lacking: Mapping[str, Settings] = field(default_factory=lambda: MappingProxyType({}))
    demands: tuple[str, ...] = ()
    variant: str = ""
    variants: Mapping[str, Fork] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def locked_as(self) -> str:
        """The name of what forks.lock holds of it."""
        return f"{self.name}:{self.variant}" if self.variant else self.name

    @property
    def distribution(self) -> str:
        """The name that our wheel carries."""
        return self.upstream_wheel.distribution if self.upstream_wheel else self.name

    @property
    def pin(self) -> dict[str, str | None]:
        """What names the upstream state, for keys: the commit may become known later without changing it."""
        return {
            "version": self.version,
            "git": self.git if not self.sdist else None,
            "commit": self.commit if not self.sdist else None,
            "sdist": self.sdist.sha256 if self.sdist else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    label: str
    python: tuple[str, ...]
    requires: tuple[str, ...] = ()
    test_requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    path: Path
    environment: EnvironmentSpec
    forks: Mapping[str, Fork]

    @property
    def every(self) -> list[Fork]:
        """All forks in all their variants."""
        forks = self.forks.values()
        return [v for f in forks for v in (f.variants or {"": f}).values()]

    @property
    def root(self) -> Path:
        return self.path.parent

    @property
    def lock_path(self) -> Path:
        return self.path.with_suffix(".lock")

    def select(self, names: Sequence[str], variant: str | None = None) -> list[Fork]:
        """Return the named forks in the manifest's order, all of them for no name.

        With a variant: as that, and for no name all that have it.
        """
        for name in names:
            if name not in self.forks:
                raise ManifestError(
                    f"no fork is called {name!r}{near(name, list(self.forks))}",
                    where=self.path,
                    expected=f"one of {', '.join(self.forks)}",
                )
        chosen = [f for n, f in self.forks.items() if not names or n in names]
        if variant is None:
            return chosen
        having = [f for f in chosen if variant in f.variants]
        if lacking := [f for f in chosen if f not in having and (names or not having)]:
            known = sorted({v for f in lacking for v in f.variants})
            raise ManifestError(
                f"{lacking[0].name} has no variant {variant!r}{near(variant, known)}",
                where=self.path,
                expected=f"one of {', '.join(known)}" if known else None,
            )
        return [f.variants[variant] for f in having]


def load_manifest(path: Path) -> Manifest:
    """Read forks.toml; the error names the file, the key and, where it can be found, the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise ManifestError(
            "there is no such manifest",
            where=path,
            hint="run patchwheel where forks.toml is, or name it with --manifest",
        ) from err
    except (OSError, UnicodeDecodeError) as err:
        raise ManifestError(f"cannot be read: {err}", where=path) from err
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise ManifestError(f"is not valid TOML: {err}", where=path) from err
    return _Reader(path.absolute(), text).manifest(data)


class _Reader(TomlReader):
    def manifest(self, data: dict[str, object]) -> Manifest:
        self.known(data, (), ("schema", "environment", "forks"))
        if data.get("schema") != SCHEMA or data["schema"] is True:
            self.fail(
                ("schema",),
                f"is {data.get('schema')!r}",
                f"schema = {SCHEMA}, the only one that this patchwheel reads",
            )
        forks = self.table(data, (), "forks", required=True)
        if not forks:
            self.fail(("forks",), "is empty", "at least one [forks.NAME] table")
        environment = self.table(data, (), "environment", required=True)
        found = {n: self.fork(n, self.table(forks, ("forks",), n)) for n in forks}
        manifest = Manifest(
            path=self.path,
            environment=self.environment(environment),
            forks=MappingProxyType(found),
        )
        self.distinct(manifest.every)
        return manifest

    def distinct(self, forks: Sequence[Fork]) -> None:
        names: dict[str, str] = {}
        for fork in forks:
            other = names.setdefault(fork.distribution, fork.locked_as)
            if other != fork.locked_as:
                self.fail(
                    ("forks", fork.name),
                    f"carries the name {fork.distribution!r}, as {other} does",
                    "another name for each wheel of the environment",
                )

    def environment(self, table: dict[str, object]) -> EnvironmentSpec:
        at = ("environment",)
        self.known(table, at, ("label", "python", "requires", "test-requires"))
        python = self.strings(table, at, "python")
        if not python:
            self.fail((*at, "python"), "is empty", 'a list such as ["3.12"]')
        for tag in python:
            self.match(tag, (*at, "python"), PYTHON, "a Python such as 3.12")
        return EnvironmentSpec(
            label=self.match(
                self.string(table, at, "label"),
                (*at, "label"),
                LABEL,
                "lower-case letters and digits, dots between them, such as arrayapi",
            ),
            python=python,
            requires=self.strings(table, at, "requires"),
            test_requires=self.strings(table, at, "test-requires"),
        )

    def fork(self, name: str, table: dict[str, object]) -> Fork:
        at = ("forks", name)
        self.known(table, at, (*PINS, *HOW, "variants"))
        self.match(name, at, NAME, "a normalised distribution name such as scikit-learn")
        commit = self.optional(table, at, "commit")
        if commit is not None:
            self.match(commit, (*at, "commit"), COMMIT, "all 40 hexadecimal digits")
        fork = Fork(
            name=name,
            version=self.match(
                self.string(table, at, "version"),
                (*at, "version"),
                VERSION,
                "a PEP 440 version without a local part",
            ),
            patches=self.path.parent / "patches" / name,
            git=self.optional(table, at, "git"),
            tag=self.optional(table, at, "tag"),
            commit=commit,
            sdist=self.sdist(table, at),
            **self.how(name, table, at),
        )
        if not fork.sdist and not (fork.git and fork.commit):
            self.fail(at, "pins no source", "an `sdist`, or `git` with a full `commit`")
        return self.with_variants(fork, table, at)

    def how(self, name: str, table: dict[str, object], at: tuple[str, ...]) -> dict[str, Any]:
        """Return what a table says about building and naming the wheel."""
        return {
            "upstream_wheel": self.upstream_wheel(name, table, at),
            "config_settings": self.settings(table, at, "config-settings"),
            "env": self.mapping(table, at, "env"),
            "build_requires": self.strings(table, at, "build-requires"),
            "system": self.strings(table, at, "system"),
            "lacking": self.lacking(table, at),
            "demands": self.strings(table, at, "demands"),
        }

    def with_variants(self, fork: Fork, table: dict[str, object], at: tuple[str, ...]) -> Fork:
        """Return the fork as its first variant; what a variant says replaces the fork's, `env` variable by variable."""
        raw = self.table(table, at, "variants")
        at = (*at, "variants")
        found: dict[str, Fork] = {}
        for name in raw:
            self.match(name, (*at, name), NAME, "a name such as cuda13")
            own = self.table(raw, at, name)
            self.known(own, (*at, name), HOW)
            says = self.how(fork.name, own, (*at, name))
            says = {k: v for k, v in says.items() if k.replace("_", "-") in own}
            env = MappingProxyType({**fork.env, **says.get("env", {})})
            variant = name if found else ""
            found[name] = replace(fork, **says | {"env": env, "variant": variant})
        if not found:
            return fork
        first = next(iter(found.values()))
        return replace(first, variants=MappingProxyType(found))

    def sdist(self, table: dict[str, object], at: tuple[str, ...]) -> Sdist | None:
        if "sdist" not in table:
            return None
        at = (*at, "sdist")
        sdist = self.table(table, at[:-1], "sdist")
        self.known(sdist, at, ("filename", "sha256"))
        filename = self.string(sdist, at, "filename")
        if "/" in filename or not filename.endswith(".tar.gz"):
            self.fail((*at, "filename"), f"is {filename!r}", "NAME-VERSION.tar.gz")
        sha256 = self.string(sdist, at, "sha256")
        self.match(sha256, (*at, "sha256"), SHA256, "64 hexadecimal digits")
        return Sdist(filename=filename, sha256=sha256)

    def upstream_wheel(
        self, name: str, table: dict[str, object], at: tuple[str, ...]
    ) -> UpstreamWheel | None:
        """No key means a wheel of the fork's own name; `upstream-wheel = false` means that there is none."""
        value = table.get("upstream-wheel")
        if value is False:
            return None
        if value is None:
            return UpstreamWheel(distribution=name)
        wheel = self.table(table, at, "upstream-wheel")
        at = (*at, "upstream-wheel")
        self.known(wheel, at, ("distribution", "only-in-base", "only-in-build"))
        return UpstreamWheel(
            distribution=self.optional(wheel, at, "distribution") or name,
            only_in_base=self.strings(wheel, at, "only-in-base"),
            only_in_build=self.strings(wheel, at, "only-in-build"),
        )

    def lacking(self, table: dict[str, object], at: tuple[str, ...]) -> Mapping[str, Settings]:
        raw = self.table(table, at, "lacking")
        at = (*at, "lacking")
        for tool in raw:
            if tool not in self.strings(table, at[:-1], "system"):
                self.fail((*at, tool), "is not listed", "a tool that `system` names")
        return MappingProxyType({t: self.settings(raw, at, t) for t in raw})

    def settings(self, table: dict[str, object], at: tuple[str, ...], key: str) -> Settings:
        found: dict[str, str | tuple[str, ...]] = {}
        raw = self.table(table, at, key)
        for name, value in raw.items():
            if isinstance(value, str):
                found[name] = value
            else:
                found[name] = self.strings(raw, (*at, key), name)
        return MappingProxyType(found)
