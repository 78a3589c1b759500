"""What the import contract cannot say: packages are used through their front door."""

import ast
import functools
import importlib
import inspect
from pathlib import Path

import pytest

from tests.fixtures.support import ROOT

SRC = ROOT / "src" / "patchwheel"
PACKAGES = sorted(path.parent.name for path in SRC.glob("*/__init__.py"))


@functools.cache
def imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    return found + [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_imports_past_the_front_of_a_package(package: str) -> None:
    outside = [path for path in SRC.rglob("*.py") if path.parent.name != package]
    past = {
        (path.name, name)
        for path in outside
        for name in imports(path)
        if name.startswith(f"patchwheel.{package}.")
    }
    # The command line is started by its module.
    assert past <= {("__main__.py", "patchwheel.cli.main")}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_exports_says_what_it_is(package: str) -> None:
    module = importlib.import_module(f"patchwheel.{package}")
    assert module.__doc__
    names = getattr(module, "__all__", [])
    exported = [getattr(module, name) for name in names]
    mine = [x for x in exported if inspect.isclass(x) or inspect.isfunction(x)]
    assert [x.__qualname__ for x in mine if not x.__doc__] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_a_dozen_modules_at_most(package: str) -> None:
    modules = [path for path in (SRC / package).glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= 12
    assert {
        path.name: n for path in modules if (n := len(path.read_text().splitlines())) > 350
    } == {}
