"""Calls of the patched functions on arrays of several libraries, in an environment of the forks.

    .venv-forks/bin/python -m pytest tests/forks [--column torch]

needs pytest and array-api-strict there. `nox -s check-forks` also compares with unpatched releases.
With CUPY_STAND_IN=1, `--column cupy` is made on what stands in for CuPy where there is no GPU.
"""

import os

# SciPy and scikit-learn read it when they are imported. Empty is off, which check-forks asks for.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# The stand-in has to be there before they are.
if os.environ.get("CUPY_STAND_IN"):
    from tests.forks import stand_in

    stand_in.install()
