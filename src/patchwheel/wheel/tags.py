"""Says why the platform tag of a graft is not that of its base."""

from __future__ import annotations

import re
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
    why = ""
    if match := MACHINE.match(old):
        policies = load_policies(Path(str(resources.files("auditwheel"))).parent, match[1])
        entries = read_wheel(wheel.path).entries
        for output in wheel.plan.built:
            entry = entries.get(base.outputs.get(output.path, output.path))
            content = entry.content() if entry else b""
            needs = sorted(read_symbols(content)[0]) if content.startswith(MAGIC) else []
            for symbol, version in needs:
                if version and not policies.admits(old.split(".")[0], {version}):
                    why = why or f": {output.path} needs {symbol}@{version}"
    return f"the platform tag rises from {old} to {new}{why}"


def _platform(wheel: Path) -> str:
    return wheel.stem.rpartition("-")[2]
