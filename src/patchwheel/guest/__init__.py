"""Files that run in other interpreters or processes, never in this one: only their paths are used.

They import nothing of patchwheel and work with whatever Python a build environment has.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
INSPECT_BUILD = _FOLDER / "inspect_build.py"
INSPECT_CMAKE = _FOLDER / "inspect_cmake.py"
MODULE_STEPS = _FOLDER / "module_steps.py"
WATCH_READS = _FOLDER / "watch_reads.py"
NOTE_FAILURES = _FOLDER / "note_failures.py"
INSPECT_ENVIRONMENT = _FOLDER / "inspect_environment.py"
TEMPORARY_NAMES = _FOLDER / "temporary_names.py"
REPLAY_TRANSPILERS = _FOLDER / "replay_transpilers.py"
CLOCK_SOURCE = _FOLDER / "clock.c"
