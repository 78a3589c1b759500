from collections.abc import Mapping
from pathlib import Path

import pytest

from patchwheel.build.ninja import Edge
from patchwheel.kit.store import Store
from patchwheel.plan.graph import READS_FILES, Graph
from patchwheel.plan.scan_references import (
    MODULES,
    SYSTEM,
    list_headers,
    scan_header,
    scan_references,
)
from tests.fixtures import support

SO = "//pw/fast.so"
FILES = {
    "pw/__init__.py": "import pw.other\n",
    "pw/other.py": "",
    "pw/fast.pyx": "from .near cimport one\ncdef extern from 'deep/fast.h': pass\n",
    "pw/fast.pxd": "from pw.far cimport two\n",
    "pw/near.pxd": "include 'part.pxi'\n",
    "pw/part.pxi": "",
    "pw/far.pxd": "",
    "pw/unrelated.pxd": "",
    "inc/deep/fast.h": '#include "made.h"\n#define MORE "more.h"\n#include MORE\n',
    "inc/more.h": "",
    "other/made.h.in": "",
    "tools/gen.py": "import helper\nopen('table.txt')\n",
    "tools/helper.py": "",
    "tools/table.txt": "",
    "far/helper.py": "",
    "data/one.txt": "",
    "data/deep/two.txt": "",
}
EDGES = (
    Edge(
        outputs=("//pw/fast.c",),
        inputs=("pw/fast.pyx", "//pw/__init__.py"),
        command="cython pw/fast.pyx",
    ),
    Edge(outputs=("//pw/fast.o",), inputs=("//pw/fast.c",), command="c_COMPILER"),
    Edge(outputs=(SO,), inputs=("//pw/fast.o",), command="c_LINKER"),
    Edge(
        outputs=("//pw/__init__.py",),
        inputs=("pw/__init__.py",),
        command="meson --internal copy",
        program="meson --internal copy",
    ),
    Edge(
        outputs=("//made.h",),
        inputs=("other/made.h.in",),
        command="python tools/gen.py data --for cython",
        program="python gen.py data",
        named=("tools/gen.py", "data"),
    ),
)


def graph(
    files: Mapping[str, str] = FILES,
    opened_by_script: Mapping[str, frozenset[str]] | None = None,
    fully_traced: frozenset[str] = frozenset(),
) -> Graph:
    return Graph(
        EDGES,
        files,
        lambda path: scan_references(path, files[path]),
        opened_by_script=opened_by_script or {},
        fully_traced=fully_traced,
    )


def test_everything_that_a_module_may_be_made_from_is_reached() -> None:
    found = graph().closure(SO)
    assert found.contents == FILES.keys() - {
        "pw/__init__.py",
        "pw/other.py",
        "pw/unrelated.pxd",
        "far/helper.py",
    }


def test_a_package_marker_counts_by_existence() -> None:
    found = graph().closure(SO)
    assert "pw/__init__.py" not in found.contents
    assert "pw/__init__.py" in found.exists
    assert graph({**FILES, "pw/__init__.pyx": ""}).closure(SO).exists > found.exists


def test_a_new_header_that_is_found_first_is_reached() -> None:
    found = graph({**FILES, "other/deep/fast.h": ""}).closure(SO)
    assert {"other/deep/fast.h", "inc/deep/fast.h"} <= found.contents


def test_what_a_script_is_known_to_open_replaces_what_it_mentions() -> None:
    opened = {"tools/gen.py": frozenset({"tools/helper.py", "far/helper.py"})}
    fully_traced = frozenset({"tools/gen.py", "tools/helper.py", "far/helper.py"})
    found = graph(opened_by_script=opened, fully_traced=fully_traced).closure(SO).contents
    assert {"tools/helper.py", "far/helper.py"} <= found
    assert "tools/table.txt" not in found
    # A script that was changed may open something else: then both count.
    found = graph(opened_by_script=opened).closure(SO).contents
    assert {"tools/table.txt", "far/helper.py"} <= found


def test_steps_tell_commands_and_their_inputs_apart() -> None:
    steps = graph().closure(SO).steps
    assert steps == graph({**FILES, "new.txt": ""}).closure(SO).steps
    edges = [*EDGES[:2], Edge(outputs=(SO,), inputs=("//pw/fast.o",), command="other")]
    other = Graph(edges, FILES, lambda _path: (), opened_by_script={}, fully_traced=frozenset())
    assert other.closure(SO).steps != steps


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("a.c", '# include <sys/a.h>\n#include "../b.h"\n', {"sys/a.h", "b.h"}),
        ("a.cu", '#  define X "x.cuh"\n', {"x.cuh"}),
        ("a.pyx", "cdef extern from '<a.h>':\n", {"a.h"}),
        ("a.pyx", 'cdef extern from *:\n    """\n    #include "v.h"\n    """', {"v.h"}),
        (
            "a.pyx",
            "cimport x.y as z, w",
            {"x/__init__.pxd", "x/y/__init__.pxd", "x/y.pxd", "w.pxd", "w/__init__.pxd"},
        ),
        (
            "a.pxd",
            "from . cimport (one,  # why\n    two as t)",
            {"one.pxd", "two.pxd", "one/__init__.pxd", "two/__init__.pxd"},
        ),
        ("a.pyx.tp", "include 'x_{{name}}.pxi'", {"x_*.pxi"}),
        ("a.f90", "      INCLUDE 'common.inc'\n", {"common.inc"}),
        ("a.f90", "  USE, intrinsic :: iso_c_binding\n  use omp_lib\n  use = 1\n", set()),
        ("a.F90", "  use, non_intrinsic :: limits, only: most\n", MODULES),
        ("a.f", "      use limits\n", MODULES),
        ("a.f90.src", "submodule (limits) more\n", MODULES),
        ("a.py", "import b\n", {"^b.py", "^b/__init__.py"}),
        ("a.py", "open('t/x.json')\n", {"t/x.json"}),
        ("a.txt", '#include "b.h"\nimport b\n', {"b.h"}),
        (
            "a.h",
            "#define SORT <__SYSTEM_ROOT/detail/sort.h>\n#include <Eigen/Core.h>\n",
            {"*/detail/sort.h", "Eigen/Core.h"},
        ),
        ("cuda/std/span", "#include <cuda/x.h>\n", {"cuda/x.h"}),
        ("a.bin", '#include "b.h"\nimport b\n', set()),
        (
            "functions.json",
            '{"_cosine.h": {"f": "dd"}, "special.h++": {}, "version": "1.2"}',
            {"_cosine.h", "special.h"},
        ),
        ("gen.py", "write('deep/special.h++')", {"deep/special.h"}),
    ],
)
def test_mentions(path: str, text: str, found: set[str]) -> None:
    assert scan_references(path, text) == found


@pytest.mark.parametrize(
    ("program", "reads"),
    [
        ("gcc $ARGS -MD", True),
        ("ccache x86_64-linux-gnu-g++-12 $ARGS", True),
        ("rm -f $out", True),
        ("gcc-ar $LINK_ARGS $out", True),
        ("cython -3 x.pyx", True),
        ("python3.12 cythoner.py x.pyx", True),
        ("pythran -E x.py", True),
        ("meson --internal copy", True),
        ("meson --internal exe", False),
        ("python gen.py cython", False),
        ("gen-gcc-table out", False),
    ],
)
def test_compilers_read_files_and_any_other_program_may_read_folders(
    program: str, *, reads: bool
) -> None:
    assert bool(READS_FILES.fullmatch(program)) == reads


PACKAGES = "lib/python3.12/site-packages"
# Headers of a build environment that include what a project has.
HEADERS = {
    "nvidia/include/groups.h": '#include <cuda/atomic>\n#include "near.h"\n',
    "nvidia/include/near.h": "#include <vector>\n#include <deep/x.h>\n",
    "nvidia/include/deep/x.h": '#include "far/y.h"\n#include "../groups.h"\n',
    "nvidia/lib/groups.h": "#include <never.h>\n",
}
PROJECT = {f"own/{name}" for name in ("cuda/atomic", "deep/x.h", "far/y.h", "never.h", "vector")}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    support.write(tmp_path / "env", {f"{PACKAGES}/{name}": text for name, text in HEADERS.items()})
    return tmp_path / "env"


def reached(environment: Path, store: Store, end: str) -> set[str]:
    """Return what a source file with one reference reaches of the project."""
    headers = list_headers(environment, store)

    def references(path: str) -> set[str]:
        if not path.startswith(SYSTEM):
            return {end} if path == "a.cu" else set()
        text = (environment / PACKAGES / path.removeprefix(SYSTEM)).read_text()
        return scan_header(path, text, headers)

    files = {"a.cu", *PROJECT}
    graph = Graph(
        (), files, references, opened_by_script={}, fully_traced=frozenset(), headers=headers
    )
    return {path.removeprefix("own/") for path in graph.closure("a.cu").contents - {"a.cu"}}


@pytest.mark.parametrize("end", ["groups.h", "include/groups.h", "x.h"])
def test_what_headers_include_is_followed_to_what_a_project_may_have(
    environment: Path, store: Store, end: str
) -> None:
    assert reached(environment, store, end) == {"cuda/atomic", "deep/x.h", "far/y.h"}


@pytest.mark.parametrize("end", ["nowhere.h", "*/groups.h"])
def test_what_no_header_or_only_a_template_names_is_not_followed(
    environment: Path, store: Store, end: str
) -> None:
    assert reached(environment, store, end) == set()


def test_the_walk_through_an_environment_is_remembered(environment: Path, store: Store) -> None:
    found = list_headers(environment, store)
    (environment / PACKAGES / "nvidia/include/new.h").write_text("")
    assert list_headers(environment, store) == found
    assert reached(environment, store, "near.h") == {"cuda/atomic", "deep/x.h", "far/y.h"}
