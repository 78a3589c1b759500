"""Says why the platform tag of a graft is not that of its base."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from patchwheel.wheel.fit import MAGIC, load_policies, read_symbols
from patchwheel.wheel.make import BuiltWheel
from patchwheel.wheelfile import read_wheel

MACHINE = re.compile(r"manylinux(?:_\d+_\d+|\d+)_(\w+)")


def risen_tag(wheel: BuiltWheel) -> str | None:
    """Name the module and the symbol that raise a graft's tag above its base's; None if none do."""
    base = wheel.plan.base
    if base is None or _platform(base.path) == _platform(wheel.path):
        return None
    old, new = _platform(base.path), _platform(wheel.path)
    names = [base.outputs.get(output.path, output.path) for output in wheel.plan.built]
    why = _first_need(wheel, names, old.split(".")[0])
    return f"the platform tag rises from {old} to {new}{why}"


def above_policy(wheel: BuiltWheel, policy: str) -> str | None:
    """Name the module and the symbol that need more than a policy; None if none do."""
    platform = _platform(wheel.path)
    minors = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", platform)]
    if platform == "any" or min(minors, default=99) <= int(policy.rpartition("_")[2]):
        return None
    machine = MACHINE.match(platform)
    names = sorted(read_wheel(wheel.path).entries)
    why = _first_need(wheel, names, f"{policy}_{machine[1]}") if machine else ""
    return f"its true platform tag, {platform}, is above {policy}{why}"


def _first_need(wheel: BuiltWheel, names: Iterable[str], tag: str) -> str:
    """Return the first symbol of these members that a platform tag does not promise."""
    if not (match := MACHINE.match(tag)):
        return ""
    policies = load_policies(Path(str(resources.files("auditwheel"))).parent, match[1])
    entries = read_wheel(wheel.path).entries
    for name in names:
        content = entries[name].content() if name in entries else b""
        needs = sorted(read_symbols(content)[0]) if content.startswith(MAGIC) else []
        for symbol, version in needs:
            if version and not policies.admits(tag, {version}):
                return f": {name} needs {symbol}@{version}"
    return ""


def _platform(wheel: Path) -> str:
    return wheel.stem.rpartition("-")[2]
