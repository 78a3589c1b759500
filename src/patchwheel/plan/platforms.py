"""Plans grafts on each wheel that upstream published of a pin, whatever machine it is for.

Nothing is configured or compiled for them: such a wheel is taken as a file, and what it holds is
read from it. A change is carried over only if it reaches nothing but copies.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product

from patchwheel.build import OwnWheel
from patchwheel.kit import Change, GraftNotPossible, ManifestError
from patchwheel.manifest import BuildInventory, Fork, ForkBuild
from patchwheel.plan.base import Base
from patchwheel.plan.classify import PYPROJECT, Rules
from patchwheel.plan.copies import copied_lists, find_copies, named_by_build
from patchwheel.plan.plan import Planner
from patchwheel.plan.records import Decision, Plan, patches_by_path
from patchwheel.plan.trace import Action, Effect
from patchwheel.project import Project
from patchwheel.wheelfile import PLATFORM

# Raised whenever something else is proven of such a wheel: it is part of its key.
CHECKS = "1"
VERSIONED = re.compile(r"(manylinux|musllinux|macosx)_(\d+)_(\d+)_(\w+)")
LEGACY = {f"manylinux{name}_": f"manylinux_2_{n}_" for name, n in ((1, 5), (2010, 12), (2014, 17))}
QUOTED = re.compile(r"'([^']*)'")
MESON = re.compile(r"(.*/)?meson\.build")


@dataclass
class PlatformPlanner(Planner):
    """Plans one patched tree on one wheel."""

    base: Base | None = None

    @functools.cached_property
    def build(self) -> ForkBuild:
        """What is locked for the build here, with what the wheel holds; raises GraftNotPossible."""
        locked = self.project.build(self.fork)
        known, source = locked.inventory, self.tree.source
        if self.base is None:
            reads = known.reads | named_by_build(source.git_dir, source.tree)
            return replace(locked, inventory=replace(known, reads=reads))
        copies, reads, differs = find_copies(source, self.base.wheel)
        theirs = self.fork.upstream_wheel
        meant = theirs.only_in_base if theirs else ()
        differs = [name for name in differs if not any(fnmatchcase(name, g) for g in meant)]
        if others := [name for name in differs if name in known.verbatim]:
            problem = f"its {others[0]} is not the pin's; if it is meant, only-in-base can name it"
            raise GraftNotPossible(problem)
        built = frozenset(self.base.outputs.keys() - copies.keys())
        inventory = BuildInventory(
            verbatim=copies, built=built, reads=known.reads | reads, opened=known.opened
        )
        return replace(locked, inventory=inventory)

    @functools.cached_property
    def changed(self) -> list[Change]:
        return self.repo.changes(self.tree.source.tree, self.tree.tree)

    @property
    def hopeless(self) -> tuple[str, ...]:
        """Say which changes no wheel can follow, by what is locked: no wheel need be read."""
        rules, culprit = Rules(self.build.inventory), patches_by_path(self.tree)
        judged = {
            change.path: rules.judge(change)
            for change in self.changed
            if change.status == "M" and change.path != PYPROJECT and not MESON.match(change.path)
        }
        return tuple(
            f"{path}: {verdict.why} ({culprit(path)})"
            for path, verdict in judged.items()
            if verdict.effect in {"compile", "trace"}
        )

    def graft(self, base: Base) -> Plan:
        """Return the plan of a graft; raises GraftNotPossible with what makes it none."""
        decision = self._decision(base, lambda: self.changed)
        if decision.route == "compile":
            raise GraftNotPossible("; ".join(decision.why))
        return self.on(base)

    def _key_parts(
        self, decision: Decision, base: Base | None
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        parts, pending = super()._key_parts(decision, base)
        return {**parts, PLATFORM: CHECKS}, pending

    @functools.cached_property
    def needs(self) -> dict[str, OwnWheel | None]:
        return {}

    def _trace(
        self, _base: Base, changes: list[Change], follow: list[str], decision: Decision
    ) -> tuple[Decision, tuple[Effect, ...]]:
        """Follow copies, and what the lists in a meson.build add and take away."""
        status = {change.path: change.status for change in changes}
        copies = self.build.inventory.verbatim.items()
        effects = [
            Effect(path=name, action="remake", source=source, by=(source,))
            for name, source in copies
            if status.get(source) == "M"
        ]
        explained: set[str] = set()
        for change in changes:
            found = self._listed(change, status) if MESON.fullmatch(change.path) else None
            if found is not None:
                effects += found
                explained |= {change.path, *(effect.source for effect in found)}
        if left := tuple(line for line in follow if line.partition(": ")[0] not in explained):
            return replace(decision, route="compile", why=left), ()
        # In one order for all wheels: it is in the key.
        return decision, tuple(sorted(effects, key=lambda effect: effect.path))

    def _listed(self, change: Change, status: dict[str, str]) -> list[Effect] | None:
        """Return what a meson.build adds and removes; None if that is not all that it changes."""
        blobs = self.repo.read([change.old.oid, change.new.oid])
        texts = [blobs[blob.oid].decode(errors="replace") for blob in (change.old, change.new)]
        (rest, old), (left, new) = map(copied_lists, texts)
        if change.status != "M" or rest != left or len(old) != len(new):
            return None
        copies, folder = self.build.inventory.verbatim, change.path.removesuffix("meson.build")
        effects = []
        for before, after in zip(old, new, strict=True):
            names, later = set(QUOTED.findall(before)), set(QUOTED.findall(after))
            kept = {f"{folder}{name}" for name in names & later}
            # Where the others of the list are, the build of this wheel has taken the list.
            places = {s: out.rpartition("/")[0] for out, s in copies.items() if s in kept}
            known = places.keys() == kept and len({*places.values()}) == 1
            if before != after and not (known and _plain(before) == _plain(after)):
                return None
            for name in sorted(names ^ later):
                source, path = f"{folder}{name}", f"{next(iter(places.values()))}/{name}"
                if "/" in name or status.get(source) != ("A" if name in later else "D"):
                    return None
                action: Action = "add" if name in later else "remove"
                effects.append(Effect(path=path, action=action, source=source, by=(source,)))
        return effects


def _plain(text: str) -> str:
    """Return a list without its names."""
    return re.sub(r"[\s,]", "", QUOTED.sub("", text))


def platform_bases(
    project: Project,
    forks: Sequence[Fork],
    platforms: Sequence[str] = (),
    pythons: Sequence[str] = (),
) -> list[tuple[Fork, dict[str, str]]]:
    """Return name and sha256 of the locked wheels that fit one of each, of all for none.

    Raises ManifestError when none is locked, or for a platform or a Python that no wheel fits.
    """
    path = project.manifest.lock_path
    locked = [(fork, project.lock.entry(fork).platforms) for fork in forks]
    if missing := [fork.name for fork, wheels in locked if not wheels]:
        problem = f"no wheels of upstream's are locked for {missing[0]}"
        hint = f"run `patchwheel lock {missing[0]}`; it may be that upstream has none"
        raise ManifestError(problem, where=path, hint=hint)
    names = [name for _, wheels in locked for name in wheels]
    for want in [*((p, "") for p in platforms), *(("", p) for p in pythons)]:
        if not any(_fits(name, *want) for name in names):
            known = {name.removesuffix(".whl").split("-")[-1 if want[0] else -2] for name in names}
            problem = f"upstream has no wheel for {''.join(want)}"
            raise ManifestError(problem, where=path, expected=f"one of {', '.join(sorted(known))}")
    wants = [*product(platforms or [""], pythons or [""])]
    return [
        (fork, {n: s for n, s in sorted(wheels.items()) if any(_fits(n, *w) for w in wants)})
        for fork, wheels in locked
    ]


def machine(filename: str) -> str:
    """Name what a wheel is for: `macosx_11_0_arm64 with cp313t`."""
    _, abi, platform = filename.removesuffix(".whl").split("-")[-3:]
    return f"{platform} with {abi}"


def _fits(filename: str, platform: str, python: str) -> bool:
    """Whether a wheel can be installed there; "" is any."""
    _, abis, tags = filename.removesuffix(".whl").split("-")[-3:]
    here = not platform or any(_runs_on(platform, tag) for tag in tags.split("."))
    known = {f"cp{python.replace('.', '')}", "abi3", "none"}
    return here and (not python or not known.isdisjoint(abis.split(".")))


def _runs_on(machine: str, platform: str) -> bool:
    """Whether a machine takes wheels of a platform: those of an older glibc or macOS too."""
    for name, modern in LEGACY.items():
        platform, machine = platform.replace(name, modern), machine.replace(name, modern)
    old, new = VERSIONED.fullmatch(platform), VERSIONED.fullmatch(machine)
    if not (old and new):
        return platform in {machine, "any"}
    same = old[1] == new[1] and old[4] in {new[4], "universal2"}
    return same and [int(n) for n in old.group(2, 3)] <= [int(n) for n in new.group(2, 3)]
