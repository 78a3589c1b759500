"""Files of a wheel that are copies of source files, by content and place."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from patchwheel.kit.repo import Repository
from patchwheel.manifest.model import Fork
from patchwheel.plan.copies import find_copies
from patchwheel.source.fetch import Source
from patchwheel.wheelfile.read import read_wheel
from tests.fixtures import support

SO = "demo/_demo.abi3.so"
SOURCES = {
    "pyproject.toml": '[build-system]\nbuild-backend = "maturin"\nrequires = ["maturin"]\n'
    '[project]\nname = "demo"\nreadme = "docs/long.md"\n'
    '[tool.maturin]\npython-source = "python"\nmodule-name = "demo._demo"\n'
    '[tool.ruff.lint.per-file-ignores]\n"__init__.py" = ["F401"]\n"python/demo/a.py" = ["E"]\n'
    '[tool.semantic_release]\nversion_variables = ["python/demo/__init__.py:__version__"]\n',
    "Cargo.toml": '[package]\nname = "demo"\nbuild = "build.rs"\n',
    "src/lib.rs": '// see a.py\nconst T: &str = include_str!("../python/demo/table.py");\n',
    "docs/long.md": "long\n",
    "docs/Makefile": "all: a.py\n",
    "examples/cython/setup.py": "import demo\n",
    "README": "short\n",
    "python/demo/__init__.py": "",
    "python/demo/sub/__init__.py": "",
    "python/demo/a.py": "a = 1\n",
    "python/demo/table.py": "table = 1\n",
    "python/demo/py.typed": "",
    "tests/__init__.py": "",
}
WHEEL = {
    "demo/__init__.py": "",
    "demo/sub/__init__.py": "",
    "demo/a.py": "a = 1\n",
    "demo/table.py": "table = 1\n",
    "demo/py.typed": "",
    SO: "\x7fELF",
}
SURE = {
    "demo/__init__.py": "python/demo/__init__.py",
    "demo/sub/__init__.py": "python/demo/sub/__init__.py",
    "demo/a.py": "python/demo/a.py",
    "demo/table.py": "python/demo/table.py",
    "demo/py.typed": "python/demo/py.typed",
}
READ = {"python/demo/table.py", "docs/long.md", "README"}


def found(
    folder: Path, sources: Mapping[str, str | None], wheel: Mapping[str, str | None]
) -> tuple[dict[str, str], set[str]]:
    repo = Repository.bare(folder / "git")
    kept = {name: text for name, text in {**SOURCES, **sources}.items() if text is not None}
    tree = repo.import_files((name, "100644", text.encode()) for name, text in kept.items())
    fork = Fork(name="demo", version="1.0", patches=folder)
    source = Source(fork=fork, git_dir=repo.git_dir, tree=tree, epoch=support.EPOCH)
    files = {name: text for name, text in {**WHEEL, **wheel}.items() if text is not None}
    path = support.make_wheel(folder, "demo", "1.0", files, tag="cp39-abi3-manylinux_2_28_x86_64")
    copies, reads, _ = find_copies(source, read_wheel(path))
    return copies, {path for path in reads if path.endswith((".py", ".md")) or path == "README"}


def test_equal_files_at_their_place_are_copies(tmp_path: Path) -> None:
    assert found(tmp_path, {}, {}) == (SURE, READ)


@pytest.mark.parametrize(
    ("sources", "wheel", "lost", "read"),
    [
        # Changed on the way, as a version may be put in.
        ({}, {"demo/a.py": "a = 2\n"}, {"demo/a.py"}, {"python/demo/a.py"}),
        # Two places, and nobody knows which one was copied.
        (
            {"other/demo/a.py": "a = 1\n"},
            {},
            {"demo/a.py"},
            {"python/demo/a.py", "other/demo/a.py"},
        ),
        # Compiled beside the source, which Python does not import then.
        ({}, {"demo/a.cpython-312-x86_64-linux-gnu.so": "\x7fELF"}, (), {"python/demo/a.py"}),
        # Named by a script of the build, from its own folder.
        ({"build.rs": 'let x = "./python/demo/a.py";'}, {}, (), {"python/demo/a.py"}),
        ({"cmake/x.cmake": "configure_file(demo/a.py b)"}, {}, (), {"python/demo/a.py"}),
        ({"src/x.c": 'const char *x = R("a.py");'}, {}, (), {"python/demo/a.py"}),
        # A link is no file that can be copied.
        ({"python/demo/a.py": None}, {}, {"demo/a.py"}, ()),
    ],
)
def test_what_is_uncertain_is_no_copy_or_counts_as_read(
    tmp_path: Path,
    sources: Mapping[str, str | None],
    wheel: Mapping[str, str | None],
    lost: set[str],
    read: set[str],
) -> None:
    copies, reads = found(tmp_path, sources, wheel)
    assert copies == {name: path for name, path in SURE.items() if name not in lost}
    assert reads == READ.union(read)


def test_a_copy_may_stand_elsewhere(tmp_path: Path) -> None:
    moved = {"demo/a.py": None, "renamed/a.py": "a = 1\n", "demo/b.py": "a = 1\n"}
    data = {"demo-1.0.data/purelib/demo/sub/py.typed": ""}
    copies, _ = found(tmp_path, {"python/demo/sub/py.typed": ""}, {**moved, **data})
    assert copies["renamed/a.py"] == "python/demo/a.py"
    assert copies["demo-1.0.data/purelib/demo/sub/py.typed"] == "python/demo/sub/py.typed"
    assert "demo/b.py" not in copies
