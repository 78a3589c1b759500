"""Checks from within that an environment holds exactly its set, and that the forks work in it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from patchwheel.guest import INSPECT_ENVIRONMENT
from patchwheel.kit import CheckError, process, uv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from patchwheel.environment.compose import Environment
    from patchwheel.project import Project


def check_environment(project: Project, environment: Environment) -> None:
    """Check in the environment itself that it holds exactly its set, and that the forks work in it.

    Every fork imports and carries its label, each distribution is there once in its version, no
    other owns a fork's package, requirements agree; CuPy shows its configuration, which needs no
    GPU.
    Raises CheckError with everything that is wrong.
    """
    manifest = project.manifest
    project.progress.say("checking that the environment's forks import and its versions agree")
    from packaging.utils import canonicalize_name

    names = {w.fork: manifest.forks[w.fork].distribution for w in environment.wheels}
    expected = {d.name: d.version for d in environment.packages}
    expected |= {canonicalize_name(names[w.fork]): w.version for w in environment.wheels}
    forks = [canonicalize_name(name) for name in names.values()]
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
            "the environment failed its checks:"
            + "".join(f"\n  - {problem}" for problem in problems),
            where=environment.path,
            hint="if something was installed into it, remove that folder and run the command again",
        )


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
