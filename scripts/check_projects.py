"""Patch real projects of the index as a user would, and observe each patch after import.

`nox -s projects -- [NAME...] [--python-only] [--newest] [--keep FOLDER]` takes each project from an
empty folder through `init`, `add`, a patch of Python, and one of compiled code where there is some:
`dev`, a commit, `export`, `build`, `env`, and an import. What it found goes to
docs/reference/projects.json, and the page beside it is written from that. Without `--newest` a
project is tried at the version that is recorded. Exit status 6 when a project no longer does what
its record says.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "docs" / "reference" / "projects.json"
BEGIN, END = "<!-- written by check_projects: begin -->", "<!-- end -->"
MESSAGE = (
    "Show that it is patched",
    "Carried for a test.",
    "Upstream-Status: Inappropriate [test]",
)
# Above what a message shows of a log.
LOGGED = "last lines of the log:"
# A build that is silent for longer is stopped by patchwheel itself.
PATIENCE = 3 * 3600


class Edit(NamedTuple):
    """A change of one file, and an expression that is true only after it."""

    file: str
    module: str
    old: str = ""
    new: str = "\nPATCHED = True\n"
    shown: str = "module.PATCHED"
    # Keys of the fork that the change needs.
    keys: dict[str, Any] = {}  # noqa: RUF012  (never changed)


class Case(NamedTuple):
    name: str
    backend: str
    python: Edit | None
    compiled: Edit | None = None


def after(file: str, module: str, line: str, more: str) -> Edit:
    """Return the edit that writes more behind the first such line."""
    return Edit(file, module, line, line + more)


CASES = (
    Case(
        "contourpy",
        "meson-python",
        Edit("lib/contourpy/__init__.py", "contourpy"),
        after(
            "src/wrap.cpp",
            "contourpy._contourpy",
            "py::mod_gil_not_used()) {\n",
            '    m.attr("PATCHED") = 1;\n',
        ),
    ),
    Case(
        "pywavelets",
        "meson-python",
        Edit("pywt/__init__.py", "pywt"),
        Edit("pywt/_extensions/_dwt.pyx", "pywt._extensions._dwt"),
    ),
    Case(
        "pandas",
        "meson-python",
        Edit("pandas/__init__.py", "pandas"),
        Edit("pandas/_libs/missing.pyx", "pandas._libs.missing"),
    ),
    Case(
        "statsmodels",
        "meson-python",
        Edit("statsmodels/api.py", "statsmodels.api"),
        Edit("statsmodels/robust/_qn.pyx", "statsmodels.robust._qn"),
    ),
    Case(
        "numpy",
        "meson-python",
        Edit("numpy/matlib.py", "numpy.matlib"),
        Edit("numpy/random/_sfc64.pyx", "numpy.random._sfc64"),
    ),
    Case(
        "shapely",
        "meson-python",
        Edit("src/shapely/__init__.py", "shapely"),
        Edit("src/shapely/_geometry_helpers.pyx", "shapely._geometry_helpers"),
    ),
    Case(
        "lxml",
        "setuptools",
        Edit("src/lxml/ElementInclude.py", "lxml.ElementInclude"),
        Edit("src/lxml/builder.py", "lxml.builder", keys={"env": {"WITH_CYTHON": "true"}}),
    ),
    Case(
        "pyproj",
        "setuptools",
        Edit("pyproj/__init__.py", "pyproj"),
        Edit("pyproj/_network.pyx", "pyproj._network"),
    ),
    Case(
        "regex",
        "setuptools",
        Edit("regex/__init__.py", "regex"),
        after(
            "src/_regex.c",
            "regex._regex",
            'PyDict_SetItemString(d, "MAGIC", x);',
            ' PyDict_SetItemString(d, "PATCHED", x);',
        ),
    ),
    Case(
        "kiwisolver",
        "setuptools",
        Edit("py/kiwisolver/__init__.py", "kiwisolver"),
        after(
            "py/src/kiwisolver.cpp",
            "kiwisolver._cext",
            'if( PyModule_AddObject( mod, "__version__", pyversion.get() ) < 0',
            ' || PyModule_AddIntConstant( mod, "PATCHED", 1 ) < 0',
        ),
    ),
    Case(
        "cffi",
        "setuptools",
        Edit("src/cffi/__init__.py", "cffi"),
        after(
            "src/c/_cffi_backend.c",
            "_cffi_backend",
            'if (v == NULL || PyModule_AddObject(m, "__version__", v) < 0',
            ' || PyModule_AddIntConstant(m, "PATCHED", 1) < 0',
        ),
    ),
    Case(
        "markupsafe",
        "setuptools",
        Edit("src/markupsafe/__init__.py", "markupsafe"),
        after(
            "src/markupsafe/_speedups.c",
            "markupsafe._speedups",
            "static PyMethodDef module_methods[] = {\n",
            '    {"PATCHED", (PyCFunction)escape_unicode, METH_O, NULL},\n',
        ),
    ),
    Case(
        "msgpack",
        "setuptools",
        Edit("msgpack/ext.py", "msgpack.ext"),
        # What Cython made of the .pyx file ships, and the build takes that.
        after(
            "msgpack/_cmsgpack.c",
            "msgpack._cmsgpack",
            "if (PyDict_SetItem(__pyx_mstate_global->__pyx_d, __pyx_mstate_global->__pyx_n_u_test,"
            " __pyx_t_3) < (0)",
            ' || PyDict_SetItemString(__pyx_mstate_global->__pyx_d, "PATCHED", Py_True) < (0)',
        ),
    ),
    Case(
        "psutil",
        "setuptools",
        Edit("psutil/_common.py", "psutil._common"),
        after(
            "psutil/_psutil_linux.c",
            "psutil._psutil_linux",
            "PyObject *mod = PyModule_Create(&moduledef);\n",
            '    if (mod != NULL) PyModule_AddIntConstant(mod, "PATCHED", 1);\n',
        ),
    ),
    Case(
        "numexpr",
        "setuptools",
        Edit("numexpr/utils.py", "numexpr.utils"),
        after(
            "numexpr/module.cpp",
            "numexpr.interpreter",
            'if (PyModule_AddObject(m, "opcodes", d) < 0',
            ' || PyModule_AddIntConstant(m, "PATCHED", 1) < 0',
        ),
    ),
    Case(
        "greenlet",
        "setuptools",
        Edit("src/greenlet/__init__.py", "greenlet"),
        after(
            "src/greenlet/greenlet.cpp",
            "greenlet._greenlet",
            'm.PyAddObject("GREENLET_USE_GC", 1);',
            ' m.PyAddObject("PATCHED", 1);',
        ),
    ),
    Case(
        "cftime",
        "setuptools",
        Edit("src/cftime/__init__.py", "cftime"),
        Edit("src/cftime/_cftime.pyx", "cftime._cftime"),
    ),
    Case("requests", "setuptools", Edit("src/requests/__init__.py", "requests")),
    Case(
        "bcrypt",
        "setuptools with setuptools-rust",
        Edit("src/bcrypt/__init__.py", "bcrypt"),
    ),
    Case(
        "h5py",
        "its own, on setuptools",
        Edit("h5py/__init__.py", "h5py"),
        Edit("h5py/h5l.pyx", "h5py.h5l"),
    ),
    Case(
        "yarl",
        "its own, on setuptools",
        Edit("yarl/_url.py", "yarl._url"),
        Edit("yarl/_quoting_c.pyx", "yarl._quoting_c"),
    ),
    Case(
        "pyyaml",
        "its own, on setuptools",
        Edit("lib/yaml/__init__.py", "yaml"),
        Edit("yaml/_yaml.pyx", "yaml._yaml"),
    ),
    Case(
        "argon2-cffi-bindings",
        "scikit-build-core",
        Edit("src/_argon2_cffi_bindings/__init__.py", "_argon2_cffi_bindings"),
        Edit(
            "extras/libargon2/src/argon2.c",
            "_argon2_cffi_bindings",
            'return "Missing arguments";',
            'return "PATCHED";',
            "module.ffi.string(module.lib.argon2_error_message(-30)) == b'PATCHED'",
        ),
    ),
    Case(
        "rapidfuzz",
        "scikit-build-core",
        Edit("src/rapidfuzz/__init__.py", "rapidfuzz"),
        # What Cython made of the .pyx file ships, and CMake takes that.
        after(
            "src/rapidfuzz/utils_cpp.cxx",
            "rapidfuzz.utils_cpp",
            "if (PyDict_SetItem(__pyx_mstate_global->__pyx_d, __pyx_mstate_global->__pyx_n_u_test,"
            " __pyx_t_6) < (0)",
            ' || PyDict_SetItemString(__pyx_mstate_global->__pyx_d, "PATCHED", Py_True) < (0)',
        ),
    ),
    Case(
        "boost-histogram",
        "scikit-build-core",
        Edit("src/boost_histogram/__init__.py", "boost_histogram"),
        after(
            "src/module.cpp",
            "boost_histogram._core",
            "PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {\n",
            '    m.attr("PATCHED") = 1;\n',
        ),
    ),
    Case(
        "pyzmq",
        "scikit-build-core",
        Edit("zmq/__init__.py", "zmq"),
        Edit("zmq/backend/cython/_zmq.py", "zmq.backend.cython._zmq"),
    ),
    Case("pybind11", "scikit-build-core", Edit("pybind11/__init__.py", "pybind11")),
    Case("idna", "flit-core", Edit("idna/__init__.py", "idna")),
    Case("attrs", "hatchling", Edit("src/attr/__init__.py", "attr")),
    Case("fastapi", "pdm-backend", Edit("fastapi/__init__.py", "fastapi")),
    Case("rich", "poetry-core", Edit("rich/__init__.py", "rich")),
    Case("tomlkit", "poetry-core", Edit("tomlkit/__init__.py", "tomlkit")),
    Case(
        "zeroconf",
        "poetry-core with Cython",
        Edit("src/zeroconf/__init__.py", "zeroconf"),
        Edit("src/zeroconf/_updates.py", "zeroconf._updates"),
    ),
    Case(
        "orjson",
        "maturin",
        Edit("pysrc/orjson/__init__.py", "orjson"),
        Edit(
            "src/lib.rs",
            "orjson",
            'env!("CARGO_PKG_VERSION")',
            '"PATCHED"',
            "module.__version__ == 'PATCHED'",
            {"programs": ["cargo"]},
        ),
    ),
    Case(
        "rpds-py",
        "maturin",
        None,
        Edit(
            "src/lib.rs",
            "rpds",
            '"HashTrieMap({{',
            '"PATCHED({{',
            "repr(module.HashTrieMap()) == 'PATCHED({})'",
            {"programs": ["cargo"], "crates": "crates"},
        ),
    ),
)


class NotSoError(Exception):
    """A step of a project that failed; its text is what the table says."""


def run(folder: Path, *words: str | Path) -> str:
    """Run a command; return its output, or raise the error that it printed."""
    command = [*map(str, words)]
    ours = command[1] == "-m"
    name = " ".join(command[2:5] if ours else [Path(command[0]).name, command[1]])
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise NotSoError(f"`{name}` takes more than {PATIENCE} s") from error
    with (folder / "log").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        [told] = [line for line in said if line.startswith("error: ")][:1] or said[-1:] or [""]
        if LOGGED in said:
            lines = said[said.index(LOGGED) + 1 :]
            told += f": {[*takewhile(lambda line: not line.startswith('log: '), lines)][-1]}"
        raise NotSoError(f"`{name}` exits with {done.returncode}: {told.removeprefix('error: ')}")
    return done.stdout


def ours(folder: Path, *words: str) -> str:
    return run(folder, sys.executable, "-m", "patchwheel", *words)


def timed(folder: Path, *words: str) -> tuple[float, str]:
    begin = time.monotonic()
    output = ours(folder, *words)
    return round(time.monotonic() - begin, 1), output


def patch(folder: Path, name: str, edit: Edit) -> dict[str, Any]:
    """Add a patch, build and install; return the route and seconds once its effect is seen."""
    if edit.keys:
        manifest = folder / "forks.toml"
        document: Any = tomlkit.parse(manifest.read_text(encoding="utf-8"))
        document["forks"][name].update(edit.keys)
        manifest.write_text(tomlkit.dumps(document), encoding="utf-8")
        ours(folder, "lock", name)
    tree = folder / "work" / name
    if not tree.exists():
        ours(folder, "dev", name)
    if "crates" in edit.keys and not (folder / "crates").exists():
        run(folder, "cargo", "vendor", "--manifest-path", tree / "Cargo.toml", "crates")
    path = tree / edit.file
    text = path.read_text(encoding="utf-8")
    if edit.old not in text:
        raise NotSoError(f"{edit.file} has no {edit.old!r} any more")
    # Another name in each run: a wheel of an earlier one, in the store, would prove nothing.
    mark = f"PATCHED{time.time_ns()}"
    new, effect = edit.new.replace("PATCHED", mark), edit.shown.replace("PATCHED", mark)
    text = text.replace(edit.old, new, 1) if edit.old else text.rstrip("\n") + "\n" + new
    path.write_text(text, encoding="utf-8")
    messages = [word for text in MESSAGE for word in ("-m", text)]
    run(folder, "git", "-C", tree, "commit", "-qa", *messages)
    ours(folder, "export", name)
    seconds, output = timed(folder, "build", "--json")
    [wheel] = json.loads(output)
    ours(folder, "env")
    code = (
        f"import importlib\nmodule = importlib.import_module({edit.module!r})\n"
        f"print(bool({effect}))"
    )
    shown = run(folder, folder / ".venv-forks/bin/python", "-c", code).strip()
    if shown != "True":
        raise NotSoError(f"the wheel is made, but `{edit.shown}` is not true of {edit.module}")
    plan = wheel["plan"]
    found = {"route": plan["route"], "seconds": seconds}
    # A wheel of pure Python is only copied together.
    pure = str(wheel["path"]).endswith("-any.whl")
    return found | ({"why": plan["why"][0]} if plan["route"] == "compile" and not pure else {})


def attempt(folder: Path, name: str, edit: Edit) -> dict[str, Any]:
    try:
        return patch(folder, name, edit)
    except NotSoError as error:
        return {"route": "no", "why": str(error).replace(f"{folder}/", "")}


def check(case: Case, version: str, folder: Path, *, python_only: bool) -> dict[str, Any]:
    """Take one project through all of it; return its row."""
    row: dict[str, Any] = {}
    ours(folder, "init", "--python", "3.12")
    try:
        row["add"], _ = timed(folder, "add", f"{case.name}=={version}" if version else case.name)
    except NotSoError as error:
        return row | {"version": version, "why": str(error).replace(f"{folder}/", "")}
    manifest: Any = tomlkit.parse((folder / "forks.toml").read_text(encoding="utf-8"))
    row["version"] = str(manifest["forks"][case.name]["version"])
    for kind, edit in (("python", case.python), ("compiled", case.compiled)):
        if edit and not (python_only and kind == "compiled"):
            row[kind] = attempt(folder, case.name, edit)
    return row


def cell(edit: Edit | None, found: dict[str, Any] | None) -> tuple[str, str]:
    """Return what a patch of one kind came to, and its seconds."""
    if not edit or not found:
        return "not run" if edit else "-", "-"
    return found["route"], str(found.get("seconds", "-"))


def table(record: dict[str, Any]) -> str:
    """Return the page's generated part: a row for each case, and the reasons of each no."""
    lines = [
        "| project | backend | `add`, s | Python | s | compiled | s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    reasons = []
    for case in CASES:
        row = record.get(case.name, {})
        parts = {"Python": (case.python, row.get("python"))}
        parts["compiled"] = (case.compiled, row.get("compiled"))
        added = str(row.get("add", "no" if row else "not run"))
        cells = [f"{case.name} {row.get('version', '')}".strip(), case.backend, added]
        cells += [word for part in parts.values() for word in cell(*part)]
        lines.append(f"| {' | '.join(cells)} |")
        whys = {"`add`": row} | {kind: found or {} for kind, (_, found) in parts.items()}
        reasons += [f"* {case.name}, {kind}: {r['why']}" for kind, r in whys.items() if "why" in r]
    return "\n".join(
        [
            *lines,
            "",
            *(["Why not, or why all of it was compiled:", "", *reasons, ""] if reasons else []),
        ]
    )


def write_page(record: dict[str, Any], path: Path) -> None:
    """Put the table of a record where the page has the old one."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, behind = rest.partition(END)
    page = f"{before}{BEGIN}\n\n{table(record)}\n{END}{behind}"
    path.write_text(page, encoding="utf-8")


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return where a project that was tried again no longer does what it did."""
    kinds: list[str] = [kind for kind in ("python", "compiled") if kind in before and kind in now]
    routes = {kind: (before[kind]["route"], now[kind]["route"]) for kind in kinds}
    if "add" in before and "add" not in now:
        routes["add"] = ("ok", "no")
    return [f"{kind}: {was} before, {is_} now" for kind, (was, is_) in routes.items() if was != is_]


def main() -> None:
    parser = argparse.ArgumentParser(prog="projects", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of the table by default")
    parser.add_argument("--python-only", action="store_true", help="no patch of compiled code")
    parser.add_argument("--newest", action="store_true", help="not the version on record")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work there, and leave it")
    parser.add_argument("--record", type=Path, default=RECORD, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.names) - {case.name for case in CASES}:
        parser.error(f"no such project in the table: {', '.join(sorted(unknown))}")
    record = json.loads(options.record.read_text()) if options.record.exists() else {}
    other = []
    for case in CASES:
        if options.names and case.name not in options.names:
            continue
        before = record.get(case.name)
        version = "" if options.newest or not before else before["version"]
        with tempfile.TemporaryDirectory(prefix=f"{case.name}-") as temporary:
            folder = options.keep.absolute() / case.name if options.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            row = check(case, version, folder, python_only=options.python_only)
        print(f"{case.name}: {json.dumps(row)}", flush=True)
        other += [f"{case.name}, {line}" for line in differences(before or {}, row)]
        # What this run leaves out stays as an earlier one found it.
        kept = before if before and options.python_only else {}
        same = kept.get("version") == row["version"]
        record[case.name] = kept | row if same else row
        ordered = {c.name: record[c.name] for c in CASES if c.name in record}
        options.record.write_text(json.dumps(ordered, indent=1) + "\n")
        write_page(ordered, options.record.with_suffix(".md"))
    print("\n".join(other))
    raise SystemExit(6 if other else 0)


if __name__ == "__main__":
    main()
