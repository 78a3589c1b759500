"""Grafts whose platform tag is above their base's."""

import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from patchwheel.kit.errors import CheckError
from patchwheel.plan.base import Base
from patchwheel.plan.records import Plan
from patchwheel.wheel import build
from patchwheel.wheel.fit import above_policy, risen_tag
from patchwheel.wheel.make import BuiltWheel
from tests.fixtures import support

pytestmark = pytest.mark.compiled
UNLIMITED = SimpleNamespace(environment=SimpleNamespace(platform=None))
OLD, NEW = (f"cp311-abi3-manylinux_2_{n}_x86_64" for n in (17, 39))


def make(folder: Path, tag: str, source: str) -> BuiltWheel:
    """A graft of one module on a base for an old glibc."""
    script = "GLIBC_2.38 { global: f; };\n"
    (folder / "map").write_text(script)
    words = ["-Wl,--version-script=map", "-Wl,-soname,libc.so.6"]
    support.make_library(folder, "libnew.so", *words, source="int f(void) { return 1; }")
    module = support.make_library(folder, "x.so", "libnew.so", source=source)
    base, made = (
        support.make_wheel(folder / name, "pw", "1.0", {"pw/x.so": data}, tag=t)
        for name, t, data in (("base", OLD, b""), ("made", tag, module))
    )
    plan = SimpleNamespace(
        base=Base(kind="upstream", path=base, sha256=support.sha256(base)),
        built=[SimpleNamespace(path="pw/x.so")],
    )
    wheel = SimpleNamespace(fork="pw", path=made, plan=plan, cached=False)
    return cast("BuiltWheel", wheel)


def test_the_module_and_the_symbol_that_raise_a_tag_are_named(
    tmp_path: Path, report: support.Recorder
) -> None:
    project: Any = SimpleNamespace(progress=report, release=False, manifest=UNLIMITED)
    risen = make(tmp_path, NEW, "int f(void); int g(void) { return f(); }")
    why = "the platform tag rises from manylinux_2_17_x86_64 to manylinux_2_39_x86_64: "
    why += "pw/x.so needs f@GLIBC_2.38"
    assert risen_tag(risen.plan, risen.path) == why
    build._check_tags(project, [risen], strict=False)
    assert report.lines == [f"warning: pw: {why}"]
    with pytest.raises(CheckError, match=r"pw: the platform tag rises .* f@GLIBC_2\.38"):
        build._check_tags(project, [risen], strict=True)


@pytest.mark.parametrize("policy", ["manylinux_2_38", "manylinux_2_39", "manylinux_2_40"])
def test_a_release_above_the_manifests_platform_fails_with_module_and_symbol(
    tmp_path: Path, report: support.Recorder, policy: str
) -> None:
    def project(*, release: bool) -> Any:
        environment = SimpleNamespace(platform=policy)
        manifest = SimpleNamespace(environment=environment)
        return SimpleNamespace(progress=report, manifest=manifest, release=release)

    made = make(tmp_path, NEW, "int f(void); int g(void) { return f(); }")
    made.plan.base = None  # type: ignore[misc]
    made.cached = True  # type: ignore[misc]
    build._check_tags(project(release=False), [made], strict=False)
    if policy != "manylinux_2_38":
        build._check_tags(project(release=True), [made], strict=False)
        return
    with pytest.raises(CheckError) as caught:
        build._check_tags(project(release=True), [made], strict=False)
    assert caught.value.message == (
        "pw: its true platform tag, manylinux_2_39_x86_64, is above manylinux_2_38"
    )
    assert "compile it in an image of manylinux_2_38" in str(caught.value)
    low = above_policy(made.path, "manylinux_2_17")
    assert low is not None
    assert low.endswith(": pw/x.so needs f@GLIBC_2.38")
    pure = support.make_wheel(tmp_path / "pure", "pw", "1.0", {})
    made.path = pure  # type: ignore[misc]
    assert above_policy(made.path, "manylinux_2_17") is None


def test_a_tag_that_is_the_bases_is_fine(tmp_path: Path, report: support.Recorder) -> None:
    project: Any = SimpleNamespace(progress=report, release=False, manifest=UNLIMITED)
    same = make(tmp_path, OLD, "int x;")
    assert risen_tag(same.plan, same.path) is None
    build._check_tags(project, [same], strict=True)
    assert report.lines == []


@pytest.mark.parametrize(
    ("here", "built", "says"), [("2.36", True, True), ("2.17", True, False), ("2.36", False, False)]
)
def test_a_plan_says_that_the_tag_may_rise(
    monkeypatch: pytest.MonkeyPatch, here: str, *, built: bool, says: bool
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", here))
    path = Path(f"pw-1.0-{OLD}.whl")
    plan: Any = SimpleNamespace(base=SimpleNamespace(path=path), built=[1] * built, undecided=())
    found = Plan.may_rise(plan)
    assert bool(found) == says
    assert not says or found[0].startswith(
        "it is compiled on glibc 2.36: its platform tag may rise above manylinux_2_17, "
    )
