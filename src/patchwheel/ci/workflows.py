"""The CI workflows and the matrix of their cells, made from the manifest."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from string import Template

from patchwheel import __version__
from patchwheel.build import CUDA, PACKAGES
from patchwheel.kit import CheckError, ManifestError, digest, write_atomically
from patchwheel.manifest import Fork, Lock, Manifest, build_settings
from patchwheel.plan import RECIPE
from patchwheel.series import load_series

TEMPLATES = Path(__file__).with_name("templates")
# Written into the project, where people run them too.
SCRIPTS = Path(__file__).with_name("scripts")
WORKFLOWS = Path(".github/workflows")
# Programs that the runner's packages do not have: a fork that names one is built in an image.
IMAGES = {
    "hipcc": "docker.io/rocm/dev-ubuntu-24.04:7.2.1-complete"
    "@sha256:3db551c4e1229aac1857ac44fcb6141bb749f41348eb572452f11279153c13c3"
}
# Minutes after which a cell is ended; the job around it has ten more, to save its results.
QUICK, SLOW, LONGEST = 20, 60, 300


class WorkflowTemplate(Template):
    """Text in which `%%{name}` is replaced: the service's own expressions begin with a dollar."""

    delimiter = "%%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The work of one job."""

    # Selects the commands in ci/run-cell, of which the forks are the arguments.
    kind: str
    minutes: int
    forks: tuple[str, ...]
    python: str = ""
    variant: str = ""
    # Named after its one fork.
    single: bool = False

    @property
    def name(self) -> str:
        fork = self.forks[0] if self.single else ""
        return "-".join(filter(None, (self.kind, fork, self.python, self.variant)))

    @property
    def line(self) -> str:
        """What `ci/run-cell` reads."""
        columns = (self.kind, str(self.minutes), self.python or "-", self.variant or "-")
        return " ".join((*columns, *self.forks))


def cells(manifest: Manifest) -> list[Cell]:
    """Return all cells; upstream's tests of a fork for CUDA have none, since they need a GPU."""
    pythons, forks = manifest.environment.python, manifest.forks.values()
    names = tuple(manifest.forks)
    tested = tuple(f.name for f in forks if CUDA not in f.programs)
    watched = tuple(f.name for f in forks if f.git)
    single = [
        Cell(kind="", minutes=LONGEST, forks=(f.name,), python=p, single=True)
        for p in pythons
        for f in forks
    ]
    compiled = [
        replace(cell, variant=variant)
        for cell in single
        for variant in manifest.forks[cell.forks[0]].variants or ("",)
    ]
    return [
        Cell(kind="plan", minutes=QUICK, forks=names),
        *(replace(cell, kind="graft", minutes=SLOW) for cell in single),
        *(replace(cell, kind="release") for cell in compiled),
        *(Cell(kind="test", minutes=SLOW, forks=tested, python=p) for p in pythons),
        *(Cell(kind="compose", minutes=QUICK, forks=names, python=p) for p in pythons),
        *(Cell(kind=k, minutes=SLOW, forks=names) for k in ("stage", "validate")),
        Cell(kind="promote", minutes=QUICK, forks=names),
        Cell(kind="watch", minutes=SLOW, forks=watched),
        Cell(kind="propose", minutes=LONGEST, forks=watched),
        *(replace(cell, kind="rebuild") for cell in compiled),
    ]


def find_cell(manifest: Manifest, name: str) -> Cell:
    """Return the cell of a name; raises ManifestError when the matrix has none."""
    known = {cell.name: cell for cell in cells(manifest)}
    if name not in known:
        raise manifest.unknown("the matrix has no cell", name, known)
    return known[name]


def matrix(manifest: Manifest, lock: Lock) -> dict[str, list[dict[str, object]]]:
    """Return the cells that depend on a Python by their kind, as a workflow includes them."""
    rows: dict[str, list[dict[str, object]]] = {}
    for cell in cells(manifest):
        if not cell.python:
            continue
        row: dict[str, object] = {"cell": cell.name, **asdict(cell)}
        row["job-minutes"] = cell.minutes + 10
        if cell.single:
            fork = manifest.forks[cell.forks[0]]
            row["container"] = _image(fork.variants.get(cell.variant, fork))
            if cell.kind in {"release", "rebuild"}:
                row["container"] = row["container"] or manifest.environment.platform_image or ""
            if cell.kind == "graft":
                # For caches: it changes with what a graft is made from, and takes no plan.
                row["key"] = digest(_inputs(fork, lock, cell.python))[:16]
        rows.setdefault(cell.kind, []).append(row)
    return rows


def _image(fork: Fork) -> str:
    """Return the image that a compile needs, or nothing; ManifestError where CI has no machine."""
    from packaging.requirements import Requirement

    requires = {Requirement(text).name for text in fork.build_requires}
    if CUDA in fork.programs and "cuda-toolkit" not in requires:
        raise ManifestError(
            f"{fork.lock_key} needs a CUDA toolkit, and CI has none",
            expected="cuda-toolkit among its build-requires: the toolkit is then made of wheels",
            hint="add it to forks.toml, run `patchwheel lock`, then `patchwheel ci`",
        )
    return next((IMAGES[name] for name in fork.programs if name in IMAGES), "")


def _inputs(fork: Fork, lock: Lock, python: str) -> list[object]:
    build, series = lock.fork(fork, python), load_series(fork.patches)
    requires, base = [d.requirement for d in build.build_requires], build.base
    made_from = [series.digests, requires, base and base.sha256]
    return [RECIPE, fork.pin, build_settings(fork), *made_from]


def render_workflows(manifest: Manifest) -> dict[Path, str]:
    """Return the text of the workflows, and of the scripts that they call, by path."""
    for fork in manifest.all_variants:
        _image(fork)
    programs = {name for fork in manifest.all_variants for name in fork.programs}
    named, environment = sorted(programs - {CUDA, *IMAGES}), manifest.environment
    words = sorted(PACKAGES["apt"].get(name, name) for name in named)
    if environment.platform_image:
        words += ["--rpm", *sorted(PACKAGES["dnf"].get(name, name) for name in named)]
    elif environment.platform:
        image = f"quay.io/pypa/{environment.platform}_x86_64"
        raise ManifestError(
            f"release wheels are for {environment.platform}, and CI has no image of it",
            where=manifest.path,
            expected=f'platform-image = "{image}@sha256:DIGEST" under [environment]',
            hint=f"`docker buildx imagetools inspect {image}` prints the digest",
        )
    required = sorted({name for fork in manifest.all_variants for name in fork.required_env})
    # What a variant requires becomes a variable in the repository's settings.
    variables = [f"{name}: ${{{{ vars.{name} }}}}" for name in required]
    actions = (TEMPLATES / "actions.txt").read_text("utf-8").splitlines()
    values = {
        **{name: pin for name, _, pin in (line.partition("=") for line in actions)},
        "cells": "\n".join(f"#   {cell.name}" for cell in cells(manifest)),
        "packages": shlex.join(words),
        "compiling": "\n          ".join(["PATCHWHEEL_SANDBOX: required", *variables]),
    }
    values["prepare"] = _substitute("prepare.txt", values).rstrip()
    texts = {
        manifest.root / WORKFLOWS / path.name: _substitute(path.name, values)
        for path in sorted(TEMPLATES.glob("*.yml"))
    }
    folder = manifest.root / "ci"
    texts |= {folder / path.name: path.read_text("utf-8") for path in sorted(SCRIPTS.glob("[!_]*"))}
    # Its owner may lock it with hashes.
    if not (requirements := folder / "requirements.txt").exists():
        texts[requirements] = f"patchwheel=={__version__}\n"
    return texts


def _substitute(name: str, values: dict[str, str]) -> str:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    return WorkflowTemplate(text).substitute(values)


def write_workflows(manifest: Manifest, *, check: bool) -> list[Path]:
    """Write workflows and scripts; with `check` raise CheckError instead. Return their paths."""
    texts = render_workflows(manifest)
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    if check and stale:
        problem = f"not what the manifest gives: {', '.join(path.name for path in stale)}"
        hint = "run `patchwheel ci`, and commit what it writes"
        raise CheckError(problem, where=manifest.root / WORKFLOWS, hint=hint)
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, texts[path].encode(), mode=0o644 if path.suffix else 0o755)
    return list(texts)
