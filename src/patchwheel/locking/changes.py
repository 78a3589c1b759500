"""Say in words in what two locks differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from patchwheel.kit import Distribution, digest
from patchwheel.manifest import ForkBuild, Lock

# What is shown and what is compared, or the files of one kind.
Fact = tuple[str, str] | frozenset[object]


def changes(old: Lock, new: Lock) -> list[str]:
    """Return a line for each entry that is new, gone or other than it was."""
    was, now = dict(_entries(old)), dict(_entries(new))
    lines = []
    for name in sorted({*was, *now}):
        if name not in was or name not in now:
            lines.append(f"{name}: {'new' if name in now else 'gone'}")
        elif words := [*_words(was[name], now[name])]:
            lines.append(f"{name}: {', '.join(words)}")
    return lines


def _entries(lock: Lock) -> Iterator[tuple[str, Mapping[str, Fact]]]:
    for key, environment in lock.environments.items():
        groups = {"": environment.packages, **environment.groups}
        yield (
            f"environment {key}",
            {
                f"{group} {name}".strip(): fact
                for group, found in groups.items()
                for name, fact in _versions(found).items()
            },
        )
    for key, fork in lock.forks.items():
        yield (
            key,
            {
                "version": (str(fork.pin.get("version")), digest(dict(fork.pin), fork.tree)),
                "commit": (str(fork.commit), ""),
                "build settings": (fork.settings[:8], ""),
                **{name: (sha256[:8], sha256) for name, sha256 in fork.patches.items()},
                "known of other platforms": frozenset(fork.platforms.items()),
            },
        )
        for python, build in fork.builds.items():
            yield f"{key} {python}", _facts(build)


def _facts(build: ForkBuild) -> Mapping[str, Fact]:
    inventory, base = build.inventory, build.base
    return {
        **_versions(build.build_requires),
        "base": (base.filename if base else "none", base.sha256 if base else ""),
        "wheel": ("for any platform" if inventory.pure else "for one platform", ""),
        "needs": (" and ".join(build.needs) or "no other fork", ""),
        "built": frozenset(inventory.built),
        "copied": frozenset(inventory.verbatim.items()),
        "read": frozenset(inventory.reads),
        "opened by scripts": frozenset(
            (s, p) for s, found in inventory.opened.items() for p in found
        ),
    }


def _versions(found: Iterable[Distribution]) -> dict[str, Fact]:
    return {d.name: (d.version, digest(sorted(d.hashes))) for d in found}


def _words(old: Mapping[str, Fact], new: Mapping[str, Fact]) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        match old.get(name), new.get(name):
            case frozenset(was), frozenset(now):
                for found, how in ((now - was, "more"), (was - now, "fewer")):
                    if found:
                        files = "file is" if len(found) == 1 else "files are"
                        yield f"{len(found)} {how} {files} {name}"
            case None, (str(shown), _):
                yield f"{name} {shown} is new"
            case (str(shown), _), None:
                yield f"{name} is gone"
            case (str(before), _), (str(shown), _) if before != shown:
                yield f"{name} {before} -> {shown}"
            case was, now if was != now:
                yield f"{name} has other content"
            case _:
                pass
