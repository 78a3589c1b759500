#!/bin/sh
# Set up what lies beside this file, over the CuPy of $PYTHON, and run the checks:
# sh run.sh [OPTIONS of gpu_check.py]
# PYTHON is python3 unless set, OUT (the results) ./out, WORK a temporary folder that is removed.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}
if [ -n "${WORK:-}" ]; then
    mkdir -p "$WORK"
    work=$(CDPATH='' cd -- "$WORK" && pwd)
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' HUP INT TERM
fi
# Nothing is written beside this file or in the home folder; compiled modules are kept, as many
# processes import them.
export PYTHONPYCACHEPREFIX="$work/pyc" MPLCONFIGDIR="$work/mpl"
export CUPY_CACHE_DIR="${CUPY_CACHE_DIR:-$work/kernels}"
# Last in the loader's path: a libcupti of the machine fits its driver better.
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$here/lib"
"$python" "$here/scripts/gpu/gpu_overlay.py" "$here" "$work/site"
export PYTHONPATH="$work/site:$here/site${PYTHONPATH:+:$PYTHONPATH}"
"$python" "$here/scripts/gpu/gpu_check.py" --tests "$here/upstream" --out "${OUT:-out}" "$@"
