"""A small real CMake project with modules of Fortran, which only ninja's scans relate."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.fixtures import support
from tests.fixtures.projects import VERSION, built_pin, edited
from tests.integration.test_cmake import FILES

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
AREA, SUM = (f"tinycmake/{name}{SUFFIX}" for name in ("_area", "_sum"))
# What no rule names: the file of a module is called otherwise, and nothing of it is linked.
LIMITS = (
    "module limits\n  use, intrinsic :: iso_c_binding\n  integer(c_int), parameter :: most = 7\n"
)
AREA_F = """\
module area
  use, intrinsic :: iso_c_binding
  use limits, only: most
contains
  function widest() bind(c)
    integer(c_int) :: widest
    widest = most
  end function widest
end module area
"""
AREA_C = """\
#include <Python.h>
int widest(void);
static PyObject *most(PyObject *self, PyObject *none) { return PyLong_FromLong(widest()); }
static PyMethodDef methods[] = {{"most", most, METH_NOARGS, ""}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_area", NULL, -1, methods};
PyMODINIT_FUNC PyInit__area(void) { return PyModule_Create(&module); }
"""
LIST = """
enable_language(Fortran)
add_library(limits STATIC src/numbers.f90)
python_add_library(_area MODULE WITH_SOABI src/area_module.c src/area.f90)
add_dependencies(_area limits)
target_link_libraries(_sum PRIVATE limits)
set_property(TARGET limits PROPERTY Fortran_MODULE_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/mods")
target_include_directories(_area PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/mods")
install(TARGETS _area DESTINATION tinycmake)
"""
SOURCES = {
    **FILES,
    "CMakeLists.txt": FILES["CMakeLists.txt"] + LIST.encode(),
    "src/numbers.f90": LIMITS.encode(),
    "src/area.f90": AREA_F.encode(),
    "src/area_module.c": AREA_C.encode(),
}


@pytest.mark.heavy
@pytest.mark.network
@pytest.mark.compiled
def test_a_module_of_another_target_is_followed(tmp_path: Path) -> None:
    (shelf := tmp_path / "shelf").mkdir()
    support.make_upstream(upstream := tmp_path / "upstream", SOURCES, tag=f"v{VERSION}")
    project = built_pin(tmp_path, shelf, "tinycmake", SOURCES)
    other = edited(project, upstream, tmp_path / "p", {"src/numbers.f90": ("most = 7", "most = 8")})
    plan = other.decided()
    assert plan["route"] == "graft", plan["why"]
    assert {output["path"] for output in plan["outputs"]} == {AREA, SUM}
    proof = json.loads(other.run("verify", "tinycmake", "--from-source", "--json"))
    assert (proof["differences"], proof["unnecessary"]) == ([], [])
    other.run("env", str(tmp_path / "env"))
    script = "import tinycmake._area as a; print(a.most())"
    python = tmp_path / "env" / "bin" / "python"
    assert subprocess.check_output([python, "-c", script], text=True) == "8\n"
