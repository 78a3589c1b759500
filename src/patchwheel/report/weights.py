"""What the steps of builds cost, kept in the store by fork; and what the next will cost by that."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from patchwheel.kit import Event, PlainReader, Store, parsed, read_regular, write_atomically

# A build counts as replayed where this many steps were, for each that ran.
MOST = 19
KIND, COSTS, CONFIGURE = "weights", "forks.costs", "configure"
STEPS = frozenset({"transpile", "compile", "link", "other"})
# The Python that a module is for: another's costs the same.
PYTHON = re.compile(r"\.(?:cpython-[\w-]+|abi3)(?=\.so\b)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Seconds of CPU by step, what each step needs of the others, and what a build takes besides.

    `besides` is by route; of a compile that was `replayed`, it is everything.
    """

    date: str
    steps: Mapping[str, float] = field(default_factory=dict)
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    besides: Mapping[str, float] = field(default_factory=dict)
    here: bool = True

    def estimate(
        self, route: str, outputs: Collection[str] | None = None, *, configures: bool = False
    ) -> Estimate | None:
        """Return what a build of these outputs, or of all, takes; None where nothing is known."""
        steps = self.steps
        wanted = set(steps) if outputs is None else self.needed(map(plain_name, outputs))
        # Grafts tell little of what a whole compile would cost.
        if not wanted & steps.keys() or (outputs is None and route not in self.besides):
            return None
        chains: dict[str, float] = {}
        # In the order in which they ended.
        for name in (name for name in steps if name in wanted):
            before = max((chains.get(need, 0) for need in self.needs.get(name, ())), default=0)
            chains[name] = before + steps[name]
        total, cores = sum(steps[name] for name in chains), len(os.sched_getaffinity(0))
        alone = self.besides.get(route, 0)
        # A graft elsewhere needs a configured tree, too.
        if configures or not (self.here or outputs is None):
            alone += self.besides.get(CONFIGURE, 0)
        return Estimate(
            cpu=total + alone,
            wall=max(total / cores, *chains.values()) + alone,
            cores=cores,
            date=self.date,
            here=self.here,
            replayed=self.besides.get("replayed") if outputs is None else None,
        )

    def needed(self, outputs: Iterable[str]) -> set[str]:
        """Return these outputs and the steps that they are made by, all by plain name."""
        found, waiting = set[str](), list(outputs)
        while waiting:
            if (name := waiting.pop()) not in found:
                found.add(name)
                waiting += self.needs.get(name, ())
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds that a build takes, of CPU and on so many cores; by what was measured, and when."""

    cpu: float
    wall: float
    cores: int
    date: str
    here: bool
    replayed: float | None = None


def learn(
    store: Store, fork: str, route: str, events: Sequence[Event], replayed: Mapping[str, int]
) -> None:
    """Keep what the steps of a fork's wheel took; what was `replayed` makes no step cheaper."""
    old = _kept(store, fork) or Weights(date="")
    steps, needs, besides = dict(old.steps), dict(old.needs), dict(old.besides)
    ours = [e for e in events if e.kind == "phase"]
    own = sum(e.cpu for e in ours if e.what == f"building {fork}")
    spent = {route: own - sum(e.cpu for e in ours if e.what.startswith(f"configuring {fork} "))}
    mine = [e for e in events if e.fork == fork]
    for run in (e for e in mine if e.kind == "run"):
        ran = [e for e in mine if e.kind in STEPS and run.start <= e.start <= e.end <= run.end]
        busy = max((e.end for e in ran), default=0) - min((e.start for e in ran), default=0)
        alone = run.end - run.start - busy
        # On a machine with other work all of it is slowed down alike.
        share = run.cpu / max(sum(e.end - e.start for e in ran) + alone, 1e-3)
        for step in ran:
            name, took = plain_name(step.what), round(share * (step.end - step.start), 3)
            steps[name] = max(took, steps.get(name, 0)) if replayed.get("hits") else took
            needs[name] = tuple(map(plain_name, step.needs))
        key = CONFIGURE if run.what.startswith("configuring") else route
        # Trees are configured one by one, and kept.
        took = share * alone
        spent[key] = took if key == CONFIGURE else spent.get(key, 0) + took
    # setuptools' compilers run beside the steps that are known.
    least = besides if replayed.get("hits") else {}
    besides |= {key: max(round(took, 2), least.get(key, 0)) for key, took in spent.items()}
    if replayed.get("hits", 0) > MOST * replayed.get("misses", 0):
        besides["replayed"] = own + sum(e.cpu for e in mine if e.kind == "run")
    date = str(dt.datetime.now(dt.UTC).date())
    made = Weights(date=date, steps=steps, needs=needs, besides=besides)
    store.remember(KIND, fork, asdict(made))


def known_weights(store: Store, root: Path, fork: str) -> Weights | None:
    """Return what was measured on this machine, or else what a project's forks.costs says."""
    return _kept(store, fork) or _shipped(root, fork)


def write_costs(store: Store, root: Path, forks: Iterable[str]) -> Path:
    """Write what was measured here into forks.costs, by what nothing else is made of."""
    path, found = root / COSTS, dict[str, object]()
    with contextlib.suppress(OSError, ValueError, TypeError):
        found |= parsed(read_regular(path))
    for fork in forks:
        if not (known := _kept(store, fork)):
            continue
        used = {need for needs in known.needs.values() for need in needs}
        told, steps = set[str](), dict[str, float]()
        for name in sorted(known.steps.keys() - used):
            own = known.needed([name]) - told
            told |= own
            steps[name] = float(f"{sum(known.steps.get(n, 0) for n in own):.2g}")
        besides = {key: float(f"{took:.2g}") for key, took in known.besides.items()}
        found[fork] = {"date": known.date, "steps": steps, "besides": besides}
    write_atomically(path, f"{json.dumps(found, indent=1, sort_keys=True)}\n".encode())
    return path


def plain_name(step: str) -> str:
    """Return a step's name, the same for each Python."""
    return PYTHON.sub("", step)


def step_weights(store: Store, fork: str) -> Mapping[str, float]:
    """Return the seconds of CPU that the steps of a fork took here, by plain name."""
    known = _kept(store, fork)
    return known.steps if known else {}


def _kept(store: Store, fork: str) -> Weights | None:
    return _structured(store.memo(KIND, fork))


def _shipped(root: Path, fork: str) -> Weights | None:
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return _structured({**parsed(read_regular(root / COSTS))[fork], "here": False})
    return None


def _structured(row: dict[str, object] | None) -> Weights | None:
    """Return weights, or None for what is damaged: an estimate is worth no error."""
    with contextlib.suppress(ValueError):
        found: Weights | None = PlainReader().structure(row, Weights | None)
        return found
    return None
