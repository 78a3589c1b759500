"""A small project with a source tree, a series and an upstream wheel, to plan and graft on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Never

import support

from patchwheel.build.requirements import Shop
from patchwheel.kit.repo import Repository
from patchwheel.manifest.lock import ForkBuild, Survey
from patchwheel.manifest.model import Fork, UpstreamWheel
from patchwheel.plan.plan import Base, make_plan
from patchwheel.series.apply import apply_series
from patchwheel.series.files import load_series
from patchwheel.source.fetch import Source
from patchwheel.wheel.make import make_wheel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from patchwheel.kit.store import Store
    from patchwheel.plan.plan import Plan
    from patchwheel.series.apply import PatchedTree
    from patchwheel.wheel.make import Wheel

PYPROJECT = """\
[build-system]
requires = ["meson-python"]
build-backend = "mesonpy"

[project]
name = "pw-demo"
version = "1.0"
requires-python = ">=3.9"
dependencies = ["numpy>=2"]

[project.optional-dependencies]
plot = ["matplotlib", "tqdm; python_version < '3.9' or extra == 'x'"]
"""
METADATA = """\
Requires-Python: >=3.9
Requires-Dist: numpy>=2
Provides-Extra: plot
Requires-Dist: matplotlib; extra == "plot"
Requires-Dist: tqdm; (python_version < "3.9" or extra == "x") and extra == "plot"

# pw-demo
"""
FILES: dict[str, str] = {
    "pyproject.toml": PYPROJECT,
    "meson.build": "project('pw-demo', 'cython')\n",
    "README.md": "# pw-demo\n",
    "LICENSE": "free\n",
    "docs/index.md": "docs\n",
    "tests/test_a.py": "def test(): pass\n",
    "benchmarks/time_a.py": "1\n",
    ".github/workflows/ci.yml": "on: push\n",
    "tools/gen.py": "print()\n",
    "tools/helper.py": "x = 1\n",
    "src/pw_demo/__init__.py": "from pw_demo import a\n",
    "src/pw_demo/a.py": "one = 1\ntwo = 2\n",
    "src/pw_demo/both.py": "table = [1, 2]\n",
    "src/pw_demo/data.txt": "1 2 3\n",
    "src/pw_demo/fast.h": "#define X 1\n",
    "src/pw_demo/_fast.pyx": "def f(): return 1\n",
    "src/pw_demo/notes.rst.txt": "not installed\n",
}
SHIPPED = ("__init__.py", "a.py", "both.py", "data.txt", "fast.h")
BUILT = "pw_demo/_fast.so"
TAG = "cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
SBOM = """{"bomFormat": "CycloneDX", "metadata": {"component": {"name": "pw_demo", "version": "1.0",
 "bom-ref": "pkg:pypi/pw_demo@1.0?file_name=pw_demo-1.0-TAG.whl", "purl": "pkg:pypi/pw_demo@1.0?file_name=pw_demo-1.0-TAG.whl"}},
 "dependencies": [{"ref": "pkg:pypi/pw_demo@1.0?file_name=pw_demo-1.0-TAG.whl"}]}""".replace(
    "TAG", TAG
)
SURVEY = Survey(
    verbatim={f"pw_demo/{n}": f"src/pw_demo/{n}" for n in SHIPPED},
    built=(BUILT,),
    reads=frozenset(
        {"meson.build", "tools/gen.py", "src/pw_demo/both.py", "src/pw_demo/_fast.pyx"}
    ),
)


class Untraced:
    """Means of a project whose build cannot be followed: what reaches its code is a compile."""

    def parts(self, *, graft: bool) -> dict[str, str]:
        return {"toolchain": "gcc", "lean": str(graft)}

    def trace(self, *_: object) -> None:
        return None


@dataclass
class Bench:
    """Plans and makes wheels of the project in one folder."""

    folder: Path
    store: Store
    label: str = "arrayapi"
    survey: Survey = SURVEY
    upstream_wheel: UpstreamWheel | None = field(
        default_factory=lambda: UpstreamWheel(distribution="pw-demo")
    )
    count: int = 0

    def __post_init__(self) -> None:
        self.upstream = self.folder / "upstream"
        support.make_upstream(self.upstream, dict(FILES))
        self.git_dir = self.folder / "git"
        self.tree = Repository.bare(self.git_dir).import_files(
            (name, "100644", text.encode()) for name, text in FILES.items()
        )
        self.base_path = self.wheel()

    def wheel(
        self, changes: Mapping[str, str] | None = None, name: str = "base"
    ) -> Path:
        files = {w: FILES[s] for w, s in SURVEY.verbatim.items()}
        files |= {BUILT: "\x7fELF machine code", "pw_demo.libs/libx-1.so": "\x7fELF"}
        files |= (
            {"pw_demo-1.0.data/scripts/demo": "#!python\n"} if name == "data" else {}
        )
        files |= {"pw_demo-1.0.dist-info/sboms/a.cdx.json": SBOM}
        return support.make_wheel(
            self.folder / name,
            "pw-demo",
            "1.0",
            files | dict(changes or {}),
            tag=TAG,
            metadata=METADATA,
        )

    @property
    def base(self) -> Base:
        sha256 = support.sha256(self.base_path)
        return Base(kind="upstream", path=self.base_path, sha256=sha256)

    @property
    def build(self) -> ForkBuild:
        return ForkBuild(build_requires=(), base=None, survey=self.survey)

    @property
    def fork(self) -> Fork:
        return Fork(
            name="pw-demo",
            version="1.0",
            patches=self.folder / "patches",
            upstream_wheel=self.upstream_wheel,
        )

    def patched(
        self, *patches: Mapping[str, str | bytes | None], prefix: str = ""
    ) -> PatchedTree:
        """Return the tree after a series of patches, each given as the files that it writes or removes."""
        support.git(self.upstream, "checkout", "-q", "-B", "work", "main")
        mails = {
            f"{prefix}{number:04}.patch": support.make_patch(
                self.upstream, changes, body="Upstream-Status: Pending"
            )
            for number, changes in enumerate(patches, 1)
        }
        self.count += 1
        folder = support.make_series(self.folder / f"patches{self.count}", mails)
        source = Source(
            fork=self.fork,
            git_dir=self.git_dir,
            tree=self.tree,
            epoch=support.EPOCH,
            origin="sdist",
        )
        return apply_series(source, load_series(folder), store=self.store)

    def plan(
        self,
        *patches: Mapping[str, str | bytes | None],
        tree: PatchedTree | None = None,
        base: Base | None = None,
        from_source: bool = False,
    ) -> Plan:
        return make_plan(
            tree or self.patched(*patches),
            self.build,
            base=base or self.base,
            from_source=from_source,
            means=Untraced(),
            store=self.store,
            label=self.label,
        )

    def make(self, plan: Plan, store: Store | None = None) -> Wheel:
        def unused() -> Never:
            raise AssertionError

        return make_wheel(
            plan,
            self.build,
            Shop(
                find_interpreter=unused,
                find_index=unused,
                store=store or self.store,
                report=support.Recorder(),
            ),
        )
