"""Installed into every build environment: temporary names that depend on the command alone.

Cython writes the name of a temporary folder into the C file that --generate-shared makes; with
random names, no two builds of SciPy are equal. Each process has a sequence of its own, so that
parallel steps meet no name of each other's; where they do, tempfile goes on to the next.
"""

import os
import random
import string
import sys
import tempfile

# A build's temporary folder lies in the build's own, whose place differs between machines.
# Not by pathlib, which is slow to import: this starts often.
FOLDER = os.path.dirname(os.environ.get("TMPDIR", ""))  # noqa: PTH120
WORDS = "\0".join(sys.orig_argv).replace(FOLDER, "").replace(sys.prefix, "")


# Names, not secrets. As threads share it, an iterator that is safe in them.
_random = random.Random(WORDS)  # noqa: S311
_names = map("".join, iter(lambda: _random.choices(string.ascii_lowercase, k=8), []))
# There is no public way to give tempfile its names.
tempfile._name_sequence = _names  # type: ignore[attr-defined]  # noqa: SLF001
