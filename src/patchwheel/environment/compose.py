"""Composes all wheels and their dependencies into one virtual environment.

It sets nothing: SciPy's array-API mode, for one, is SCIPY_ARRAY_API=1 in the process that wants it,
before any import.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from patchwheel import kit
from patchwheel.build import PROMISES, detect_sandbox, open_build_dir, site_packages
from patchwheel.environment.link import ADDED, KIND, check_link, flip_link
from patchwheel.guest import INSPECT_ENVIRONMENT
from patchwheel.project import Project
from patchwheel.wheelfile import read_wheel

if TYPE_CHECKING:
    from patchwheel.build import OwnWheel

UNPACKED: Final = "unpacked"
LAYOUT = 1
# The largest answer of its own Python, in bytes.
ANSWER = 64 << 20
# What an installer takes out of these folders, into site-packages.
SCHEME = re.compile(r"[^/]+\.data/(purelib|platlib)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A finished environment; the user's `link` leads to `path`.

    `places` has, by fork, the folder that its packages are imported from.
    """

    path: Path
    places: Mapping[str, Path]
    link: Path | None = None
    wheels: tuple[OwnWheel, ...]
    packages: tuple[kit.Distribution, ...]
    cached: bool

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

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
    project: Project,
    wheels: Sequence[OwnWheel],
    *,
    link: Path | None,
    groups: Sequence[str] = (),
    added: Sequence[str] = (),
) -> Environment:
    """Return the environment of these wheels and the locked distributions; `link` points to it.

    `added` are requirements besides, met under the lock. Its pylock.toml lists what it holds.
    Raises MachineError when something else is at the link's place.
    """
    if link:
        check_link(link)
    context, packages = project.context, _packages(project, groups)
    packages += _added(project, packages, wheels, added) if added else []
    lines = [*(d.requirement for d in packages), *_wheel_lines(project, wheels)]
    path, cached = _venv(context, lines)
    environment = Environment(
        path=path,
        places={w.fork: site_packages(path) for w in wheels},
        link=link,
        wheels=tuple(wheels),
        packages=tuple(packages),
        cached=cached,
    )
    # Checked before the link is moved, so that it never points to a set that does not work.
    if not (path / "checked").exists():
        check_environment(project, environment)
        text = _pylock(context, lines, log=context.store.log(KIND, path.name))
        _check_pylock(text, packages, wheels)
        (path / "pylock.toml").write_text(text)
        (path / ADDED).write_text(shlex.join(added))
        (path / "checked").touch()
    if link:
        flip_link(link, path)
    return environment


def compose_for_tests(
    project: Project, wheels: Sequence[OwnWheel], *, groups: Sequence[str] = ("test",)
) -> Environment:
    """Return an environment for upstream's tests, in layers, unchecked and without a link.

    It holds nothing itself: its path file leads to an environment of the distributions and to each
    wheel, unpacked.
    """
    # All but changed files stay, bytecode included, when a wheel changes.
    context, packages = project.context, _packages(project, groups)
    below, _ = _venv(context, [d.requirement for d in packages])
    with context.progress.step(f"unpacking {len(wheels)} wheels", brief=True):
        places = {w.fork: _unpacked(w, context.store) for w in wheels}
    more = f"import site; site.addsitedir({str(site_packages(below))!r})"
    path, cached = _venv(context, (), (*map(str, places.values()), more))
    return Environment(
        path=path,
        places=places,
        wheels=tuple(wheels),
        packages=tuple(packages),
        cached=cached,
    )


def check_environment(project: Project, environment: Environment) -> None:
    """Check in the sandbox that an environment holds exactly its set, and that it works.

    Every fork and each of its remade modules imports, it carries its label, each distribution is
    there once in its version and with the files of its RECORD, no other owns a fork's package,
    requirements agree; CuPy shows its configuration, which needs no GPU. Raises CheckError with
    everything that is wrong.
    """
    from packaging.utils import canonicalize_name

    forks, label = project.manifest.forks, project.manifest.environment.label
    ours = {canonicalize_name(forks[w.fork].distribution): w.version for w in environment.wheels}
    expected: dict[str, str] = {d.name: d.version for d in environment.packages} | ours
    # What others published was compared with the lock when it was installed, RECORD or not.
    compared = None if environment.cached else [*ours]
    question: dict[str, object] = {"expected": expected, "forks": [*ours], "compared": compared}
    what = "checking that the environment's forks import and its versions agree"
    with project.progress.step(what):
        problems, checked = _inspect(project.context, environment, question)
    problems += [
        f"{name} {version} does not carry the label {label}"
        for name, version in ours.items()
        if not version.partition("+")[2].startswith(f"{label}.")
    ]
    if problems:
        hint = "if something was installed into it, remove that folder and run the command again"
        hint += "; `patchwheel env --with NAME` adds packages"
        if any("not installed" in problem for problem in problems):
            hint = "run `patchwheel lock`; add what it misses to environment.requires in forks.toml"
        raise kit.CheckError(
            "\n  - ".join(["the environment failed its checks:", *problems]),
            where=environment.path,
            hint=hint,
        )
    for line in checked:
        project.progress.say(line)


def _inspect(
    context: kit.Context, environment: Environment, question: dict[str, object]
) -> tuple[list[str], list[str]]:
    """Return what the environment's Python, and uv, which starts it too, finds and has checked."""
    # It runs what the distributions start by themselves (.pth), so not on the host.
    sandbox, prefix = detect_sandbox(context.sandbox), context.interpreter.path.parent.parent
    context.note(f"sandbox: {PROMISES[sandbox.level]}")
    with open_build_dir(
        "environment",
        sandbox=sandbox,
        store=context.store,
        limits=context.limits,
        env=environment.path,
        read=[prefix, kit.uv_bin()],
    ) as place:
        asked = place.scripts / "question.json"
        asked.write_text(json.dumps(question))
        script = Path(shutil.copy(INSPECT_ENVIRONMENT, place.scripts))
        python, out = place.env_inside / "bin" / "python", place.inside / "out" / "answer.json"
        env = {"PATH": os.defpath, "HOME": f"{place.inside}/home", "LC_ALL": "C.UTF-8"}
        log = context.store.log(KIND, "check")
        run = functools.partial(place.run, cwd=place.work / "src", env=env, log=log)
        try:
            run([python, "-I", place.path_inside(script), place.path_inside(asked), out])
            answer = kit.parsed(kit.read_untrusted(place.work, "out/answer.json", limit=ANSWER))
            problems, checked = (list(map(str, rows)) for rows in answer)
        except (kit.process.CommandError, FileNotFoundError, ValueError, TypeError) as err:
            problem = "the environment's Python stopped while it imported the forks"
            tail = getattr(err, "tail", ())
            raise kit.CheckError(problem, where=environment.python, tail=tail) from err
        return problems + kit.uv.conflicts(python, run=run), checked


def _packages(project: Project, groups: Sequence[str]) -> list[kit.Distribution]:
    lock = project.lock.environment(project.manifest, project.python)
    return [*lock.packages, *(d for name in groups for d in lock.groups[name])]


def _added(
    project: Project,
    held: Sequence[kit.Distribution],
    wheels: Sequence[OwnWheel],
    wanted: Sequence[str],
) -> list[kit.Distribution]:
    """Return what these requirements need besides what the environment holds, which stays."""
    pins = [*(f"{d.name}=={d.version}" for d in held), *_wheel_lines(project, wheels)]
    log = project.store.log(KIND, "resolve")
    try:
        what = "what is added to the environment"
        found = kit.uv.resolve(project.context, wanted, what=what, constraints=pins, log=log)
    except kit.InputError as err:
        # What is no requirement has been told what is one.
        unknown = any("was not found in" in line for line in err.tail)
        stay = "what is locked stays; `patchwheel lock --upgrade NAME` moves it"
        err.hint = err.hint or ("correct the name" if unknown else stay if err.tail else None)
        raise
    names = {d.name for d in held}
    return [d for d in found if d.name not in names]


def _wheel_lines(project: Project, wheels: Sequence[OwnWheel]) -> list[str]:
    forks = project.manifest.forks
    return [
        f"{forks[w.fork].distribution} @ {w.path.as_uri()} --hash=sha256:{w.sha256}" for w in wheels
    ]


def _venv(
    context: kit.Context, lines: Sequence[str], paths: Sequence[str] = ()
) -> tuple[Path, bool]:
    """Return a virtual environment of these requirements, and whether it was there already.

    `paths` are the lines of its path file.
    """
    store, interpreter = context.store, context.interpreter
    key = kit.digest(LAYOUT, str(interpreter.path), interpreter.version, sorted(lines), *paths)

    def make(folder: Path) -> None:
        log = store.log(KIND, key)
        python = kit.uv.make_venv(folder, interpreter, log=log)
        if lines:
            count = f"{len(lines)} distribution{'s' * (len(lines) != 1)}"
            with context.progress.step(f"composing an environment of {count}"):
                kit.uv.install(context, python, lines, log=log)
        if paths:
            file = site_packages(folder) / "patchwheel.pth"
            file.write_text("".join(f"{line}\n" for line in paths))

    # Looked at once: it has thousands of files.
    path = store.find(KIND, key)
    return (path, True) if path else (store.get(KIND, key, make), False)


def _unpacked(wheel: OwnWheel, store: kit.Store) -> Path:
    """Return the wheel's files in a folder of their own, made from those of the fork's last one."""

    def make(folder: Path) -> None:
        last = store.memo("unpacked", wheel.fork)
        unpack(wheel.path, folder, store.find(UNPACKED, str(last["key"])) if last else None)
        store.remember("unpacked", wheel.fork, {"key": wheel.sha256})

    return store.get(UNPACKED, wheel.sha256, make)


def unpack(wheel: Path, folder: Path, before: Path | None) -> None:
    """Unpack a wheel so that it can be imported; equal files of `before` are copied."""
    known = _hashes(before) if before else {}
    for entry in read_wheel(wheel).entries.values():
        place = SCHEME.sub("", entry.name)
        target, last = folder / place, (before or folder) / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (entry.sha256 and known.get(entry.name) == entry.sha256 and last.exists()):
            target.write_bytes(entry.content())
            target.chmod(entry.mode)
            continue
        # With its date, which bytecode names. A link would be one file in two environments.
        shutil.copy2(last, target)
        stem = last.name.removesuffix(".py")
        for path in last.parent.glob(f"__pycache__/{stem}.*.pyc") if stem != last.name else ():
            (cache := target.parent / "__pycache__").mkdir(exist_ok=True)
            shutil.copy2(path, cache / path.name)


def _hashes(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in folder.glob("*.dist-info/RECORD"):
        with path.open(newline="", encoding="utf-8") as stream:
            found |= {row[0]: row[1] for row in csv.reader(stream)}
    return found


def _pylock(context: kit.Context, lines: Sequence[str], *, log: Path) -> str:
    # Of a version's wheels, those for this platform were locked.
    flags = ("--no-deps", "--python-platform", kit.uv.PLATFORM)
    # The installation has just read the pages of the index, which uv keeps.
    with contextlib.suppress(kit.InputError):
        if not context.offline:
            return kit.uv.pylock(context, lines, *flags, "--offline", log=log)
    return kit.uv.pylock(context, lines, *flags, log=log)


def _check_pylock(
    text: str, packages: Iterable[kit.Distribution], wheels: Iterable[OwnWheel]
) -> None:
    # uv looked the files up again, by version.
    known = {h for d in packages for h in d.hashes} | {w.sha256 for w in wheels}
    for row in tomllib.loads(text)["packages"]:
        files = [*row.get("wheels", ()), *filter(None, [row.get("archive")])]
        if {file["hashes"]["sha256"] for file in files} - known:
            raise kit.CheckError(
                f"{row['name']}: the index has another file for this version than was locked",
                expected=f"{row['version']} with a locked sha256",
                hint="run `patchwheel lock`",
            )
