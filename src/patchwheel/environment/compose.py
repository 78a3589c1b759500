"""Composes all wheels and their dependencies into one virtual environment.

It sets nothing: SciPy's array-API mode, for one, is SCIPY_ARRAY_API=1 in the process that wants it,
before any import.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from patchwheel.build import site_packages
from patchwheel.environment.check import check_environment
from patchwheel.environment.unpack import unpack
from patchwheel.kit import CheckError, MachineError, digest, uv, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from patchwheel.build import OwnWheel
    from patchwheel.kit import Context, Distribution, Store
    from patchwheel.project import Project

KIND: Final = "environments"
UNPACKED: Final = "unpacked"
LAYOUT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A finished environment; the user's `link` leads to `path`.

    `places` has, by fork, the folder that its packages are imported from.
    """

    path: Path
    places: Mapping[str, Path]
    link: Path | None
    python: Path
    wheels: tuple[OwnWheel, ...]
    packages: tuple[Distribution, ...]
    cached: bool

    def to_json(self) -> dict[str, object]:
        return {
            "path": str(self.path),
            "link": str(self.link) if self.link else None,
            "python": str(self.python),
            "cached": self.cached,
            "wheels": {w.fork: w.version for w in self.wheels},
            "packages": {d.name: d.version for d in self.packages},
        }


def compose_environment(
    project: Project, wheels: Sequence[OwnWheel], *, link: Path | None, groups: Sequence[str] = ()
) -> Environment:
    """Return the environment of these wheels and the locked distributions; `link` points to it.

    It is checked before the link is moved, so that the link never points to a set that does not
    work; its pylock.toml lists what it holds. Raises MachineError when something else is at the
    link's place.
    """
    if link:
        _check_link(link)
    context, packages = project.context, _packages(project, groups)
    lines = [*(d.requirement for d in packages), *_wheel_lines(project, wheels)]
    path, cached = _venv(context, lines)
    environment = Environment(
        path=path,
        places={w.fork: site_packages(path) for w in wheels},
        link=link,
        python=path / "bin" / "python",
        wheels=tuple(wheels),
        packages=tuple(packages),
        cached=cached,
    )
    if not (path / "checked").exists():
        check_environment(project, environment)
        text = uv.pylock(context, lines, "--no-deps", log=context.store.log(KIND, path.name))
        _check_pylock(text, packages, wheels)
        (path / "pylock.toml").write_text(text)
        (path / "checked").touch()
    if link:
        _flip(link, path)
    return environment


def compose_for_tests(
    project: Project, wheels: Sequence[OwnWheel], *, groups: Sequence[str] = ("test",)
) -> Environment:
    """Return an environment for upstream's tests, in layers, unchecked and without a link.

    It holds nothing itself: its path file leads to an environment of the distributions and to each
    wheel, unpacked. All but changed files stay, bytecode included, when a wheel changes.
    """
    context, packages = project.context, _packages(project, groups)
    below, _ = _venv(context, [d.requirement for d in packages])
    places = {w.fork: _unpacked(w, context.store) for w in wheels}
    more = f"import site; site.addsitedir({str(site_packages(below))!r})"
    path, cached = _venv(context, (), (*map(str, places.values()), more))
    return Environment(
        path=path,
        places=places,
        link=None,
        python=path / "bin" / "python",
        wheels=tuple(wheels),
        packages=tuple(packages),
        cached=cached,
    )


def _packages(project: Project, groups: Sequence[str]) -> list[Distribution]:
    lock = project.lock.environment(project.manifest, project.python)
    return [*lock.packages, *(d for name in groups for d in lock.groups[name])]


def _wheel_lines(project: Project, wheels: Sequence[OwnWheel]) -> list[str]:
    named = {project.manifest.forks[w.fork].distribution: w for w in wheels}
    return [
        f"{name} @ {wheel.path.as_uri()} --hash=sha256:{wheel.sha256}"
        for name, wheel in named.items()
    ]


def _venv(context: Context, lines: Sequence[str], paths: Sequence[str] = ()) -> tuple[Path, bool]:
    """Return a virtual environment of these requirements, and whether it was there already.

    `paths` are the lines of its path file.
    """
    store, interpreter = context.store, context.interpreter
    key = digest(LAYOUT, str(interpreter.path), interpreter.version, sorted(lines))
    key = digest(key, *paths) if paths else key

    def make(folder: Path) -> None:
        log = store.log(KIND, key)
        python = uv.make_venv(folder, interpreter, log=log)
        if lines:
            context.progress.say(f"composing an environment of {len(lines)} distributions")
            uv.install(context, python, lines, log=log)
        if paths:
            file = site_packages(folder) / "patchwheel.pth"
            file.write_text("".join(f"{line}\n" for line in paths))

    cached = store.find(KIND, key) is not None
    return store.get(KIND, key, make), cached


def _unpacked(wheel: OwnWheel, store: Store) -> Path:
    """Return the wheel's files in a folder of their own, made from those of the fork's last one."""

    def make(folder: Path) -> None:
        last = store.memo("unpacked", wheel.fork)
        unpack(wheel.path, folder, store.find(UNPACKED, str(last["key"])) if last else None)
        store.remember("unpacked", wheel.fork, {"key": wheel.sha256})

    return store.get(UNPACKED, wheel.sha256, make)


def _check_pylock(text: str, packages: Iterable[Distribution], wheels: Iterable[OwnWheel]) -> None:
    """Compare what was looked up again, by version, with the locked bytes."""
    known = {h for d in packages for h in d.hashes} | {w.sha256 for w in wheels}
    for row in tomllib.loads(text)["packages"]:
        for file in [*row.get("wheels", ()), *([row["archive"]] if "archive" in row else ())]:
            if file["hashes"]["sha256"] not in known:
                raise CheckError(
                    f"{row['name']}: the index has another file for this version than was locked",
                    expected=f"{row['version']} with a locked sha256",
                    hint="run `patchwheel lock`",
                )


def _check_link(link: Path) -> None:
    if link.is_symlink() and link.readlink().parent.name == KIND:
        return
    if link.is_symlink() or link.exists():
        raise MachineError(
            "this path exists and was not created by patchwheel",
            where=link,
            expected="nothing, or a link that patchwheel made",
            hint="move it away, or name another place for the environment",
        )


def _flip(link: Path, target: Path) -> None:
    """Move the link atomically, and note it in the environment: `prune` keeps linked ones."""
    try:
        noted = target / "links"
        links = noted.read_text().splitlines() if noted.exists() else []
        if str(link) not in links:
            write_atomically(noted, "".join(f"{x}\n" for x in [*links, link]).encode())
        if link.is_symlink() and link.readlink() == target:
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError as err:
        raise MachineError(
            f"the environment's link cannot be written: {err.strerror}", where=link
        ) from err
