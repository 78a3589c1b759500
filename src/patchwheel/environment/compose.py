"""Composes all wheels and what they depend on into one virtual environment, and checks that the set is what it says.

It sets nothing: SciPy's array-API mode, for one, is SCIPY_ARRAY_API=1 in the process that wants it, before any import.
"""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from patchwheel.build.requirements import site_packages
from patchwheel.environment.unpack import unpack
from patchwheel.guest import INSPECT_ENVIRONMENT
from patchwheel.kit import process, uv
from patchwheel.kit.digest import digest
from patchwheel.kit.errors import CheckError, MachineError
from patchwheel.kit.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from patchwheel.kit.interpreter import Interpreter
    from patchwheel.kit.progress import Report
    from patchwheel.kit.store import Store
    from patchwheel.manifest.lock import Distribution, EnvironmentLock
    from patchwheel.manifest.model import Manifest
    from patchwheel.wheel.make import Finished

KIND: Final = "environments"
UNPACKED: Final = "unpacked"
LAYOUT = 1
# Started in the environment; isolated, so that neither the user's packages nor the current folder count.


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A finished environment; `link` is the user's name for `path`, `packages` are those beside the wheels.

    `places` has, by fork, the folder that its packages are imported from.
    """

    path: Path
    places: Mapping[str, Path]
    link: Path | None
    python: Path
    wheels: tuple[Finished, ...]
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


def compose(
    manifest: Manifest,
    lock: EnvironmentLock,
    wheels: Sequence[Finished],
    *,
    interpreter: Interpreter,
    store: Store,
    index: Callable[[], uv.Index],
    report: Report,
    offline: bool,
    link: Path | None,
    groups: Sequence[str] = (),
    layered: bool = False,
) -> Environment:
    """Return the environment of these wheels and locked distributions, and let `link` point to it.

    It is checked first, so that the link never points to a set that does not work, and told in its pylock.toml.
    Without a link it is for tests, which check more. Layered, it holds nothing itself and sees another environment of
    the distributions, and each wheel unpacked: all but the changed files stay, bytecode included, when a wheel changes.
    Raises MachineError when something else is at the link's place.
    """
    if link:
        _check_link(link)
    packages = [*lock.packages, *(d for name in groups for d in lock.groups[name])]
    named = {manifest.forks[w.fork].distribution: w for w in wheels}
    others = [d.requirement for d in packages]
    ours = [
        f"{name} @ {wheel.path.as_uri()} --hash=sha256:{wheel.sha256}"
        for name, wheel in named.items()
    ]
    lines = [*others, *ours]

    def made(lines: Sequence[str], *seen: str) -> tuple[Path, bool]:
        """Return the environment with `lines` installed and `seen` in its path file; and whether it was there."""
        key = digest(LAYOUT, str(interpreter.path), interpreter.version, sorted(lines))
        key = digest(key, *seen) if seen else key

        def make(folder: Path) -> None:
            log = store.log(KIND, key)
            python = uv.make_venv(folder, interpreter, log=log)
            if lines:
                report.say(f"composing an environment of {len(lines)} distributions")
                uv.install(
                    python,
                    lines,
                    log=log,
                    index=index(),
                    offline=offline,
                    report=report,
                )
            if seen:
                file = site_packages(folder) / "patchwheel.pth"
                file.write_text("".join(f"{line}\n" for line in seen))

        cached = store.find(KIND, key) is not None
        return store.get_in_place(KIND, key, make), cached

    def verified() -> None:
        check_environment(environment, manifest=manifest, report=report)
        text = uv.pylock(
            lines,
            interpreter=interpreter,
            index=index(),
            offline=offline,
            log=store.log(KIND, path.name),
        )
        _check_pylock(text, packages, wheels)
        (path / "pylock.toml").write_text(text)
        (path / "checked").touch()

    if layered:
        below, _ = made(others)
        places = {w.fork: _unpacked(w, store) for w in wheels}
        more = f"import site; site.addsitedir({str(site_packages(below))!r})"
        path, cached = made((), *map(str, places.values()), more)
    else:
        path, cached = made(lines)
        places = {w.fork: site_packages(path) for w in wheels}
    environment = Environment(
        path=path,
        places=places,
        link=link,
        python=path / "bin" / "python",
        wheels=tuple(wheels),
        packages=tuple(packages),
        cached=cached,
    )
    if link:
        if not (path / "checked").exists():
            verified()
        _flip(link, path)
    return environment


def check_environment(environment: Environment, *, manifest: Manifest, report: Report) -> None:
    """Check in the environment itself that it holds exactly its set, and that the forks work in it.

    Every fork imports and carries its label, nothing has another version or is there twice, no second distribution
    owns a fork's package, requirements agree; CuPy shows its configuration, which needs no GPU.
    Raises CheckError with everything that is wrong.
    """
    report.say("checking that the environment's forks import and its versions agree")
    names = {w.fork: manifest.forks[w.fork].distribution for w in environment.wheels}
    expected = {d.name: d.version for d in environment.packages}
    expected |= {_normal(names[w.fork]): w.version for w in environment.wheels}
    forks = [_normal(name) for name in names.values()]
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        problems = _inspect(environment.python, expected, forks, Path(name))
        problems += uv.conflicts(environment.python, log=log)
    label = manifest.environment.label
    problems += [
        f"{names[w.fork]} {w.version} does not carry the label {label}"
        for w in environment.wheels
        if not w.version.partition("+")[2].startswith(f"{label}.")
    ]
    if problems:
        raise CheckError(
            "the environment is not what it must be:"
            + "".join(f"\n  - {problem}" for problem in problems),
            where=environment.path,
            hint="if something else was installed into it, remove that folder: it is then made again",
        )


def _unpacked(wheel: Finished, store: Store) -> Path:
    """Return the wheel's files in a folder of their own, made from those of the fork's last one."""

    def make(folder: Path) -> None:
        last = store.memo("unpacked", wheel.fork)
        unpack(wheel.path, folder, store.find(UNPACKED, str(last["key"])) if last else None)
        store.remember("unpacked", wheel.fork, {"key": wheel.sha256})

    return store.get_in_place(UNPACKED, wheel.sha256, make)


def _inspect(
    python: Path, expected: Mapping[str, str], forks: Iterable[str], folder: Path
) -> list[str]:
    question = {"expected": dict(expected), "forks": list(forks)}
    answer = folder / "answer.json"
    (folder / "question.json").write_text(json.dumps(question))
    try:
        process.logged(
            [python, "-I", INSPECT_ENVIRONMENT, folder / "question.json", answer],
            cwd=folder,
            env=process.base_env(),
            log=folder / "inspect.log",
        )
    except process.CommandError as err:
        raise CheckError(
            "the environment's Python stopped while it imported the forks",
            where=python,
            tail=err.tail,
        ) from err
    return [str(problem) for problem in json.loads(answer.read_text())]


def _check_pylock(text: str, packages: Iterable[Distribution], wheels: Iterable[Finished]) -> None:
    """Compare what was looked up again, by version, with the locked bytes."""
    known = {h for d in packages for h in d.hashes} | {w.sha256 for w in wheels}
    for row in tomllib.loads(text)["packages"]:
        for file in [
            *row.get("wheels", ()),
            *([row["archive"]] if "archive" in row else ()),
        ]:
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
            "something is in the place of the environment's link, and it is not ours",
            where=link,
            expected="nothing, or a link that patchwheel made",
            hint="move it away, or name another place for the environment",
        )


def _flip(link: Path, target: Path) -> None:
    """Let the link point to the environment from one instant to the next, and note it there: `prune` keeps linked ones."""
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


def _normal(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)
