"""A project: manifest, lock and the context of a run, read once and handed down."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING

from patchwheel.kit import Context, ManifestError, digest, explicit_interpreter
from patchwheel.manifest import load_lock, load_manifest, recover, transaction

if TYPE_CHECKING:
    from pathlib import Path

    from patchwheel.kit import CacheUse, Progress, SandboxMode, Store
    from patchwheel.manifest import Fork, ForkBuild, ForkLock, Lock, Manifest
    from patchwheel.remote import Remote


@dataclass(frozen=True, eq=False)
class Project:
    """What every command starts from; nothing is read before it is needed.

    `python_option` is a version such as 3.12 or the path of an interpreter; by default it is the
    first version that the manifest names. With `variant`, the forks that have it are that variant.
    """

    manifest_path: Path
    store: Store
    progress: Progress
    _: KW_ONLY
    python_option: str | None = None
    offline: bool = False
    jobs: int | None = None
    sandbox: SandboxMode = "auto"
    keep_failed: bool = False
    compile_cache: CacheUse = "write"
    variant: str | None = None
    without_patches: bool = False
    release: bool = False
    # Everything is compiled, without a base wheel; uncommitted edits of open work trees count.
    from_source: bool = False
    dev: bool = False
    # What is done or said once in a run, other manifests and Pythons included.
    done: dict[str, object] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def manifest(self) -> Manifest:
        # A rebase that was interrupted while it replaced files is finished before anything is read.
        if fork := recover(self.manifest_path.absolute().parent, self.manifest_path.name):
            self.progress.say(f"{fork}: finished an interrupted change of pin, lock and series")
        return load_manifest(self.manifest_path).with_variant(self.variant)

    @functools.cached_property
    def lock(self) -> Lock:
        # Without a fork there is nothing to lock.
        self.manifest.select(())
        return load_lock(self.manifest.lock_path)

    def locked(self, fork: Fork) -> ForkLock | None:
        """Return what is locked for the fork's pin; None without a lock, or for another pin."""
        with contextlib.suppress(ManifestError):
            return self.lock.entry(fork)
        return None

    @functools.cached_property
    def python(self) -> str:
        """The version of Python that wheels are for, such as 3.12; raises ManifestError."""
        supported = self.manifest.environment.python
        version = self.python_option or supported[0]
        if not version[0].isdigit():
            # A manifest of one Python asks for that one, and is told what was given instead.
            several = len(supported) > 1
            version = explicit_interpreter(version).python if several else supported[0]
        if version not in supported:
            raise ManifestError(
                f"Python {version} is not in the manifest's list",
                where=self.manifest.path,
                expected=f"one of {', '.join(supported)}",
                hint="or add it to `python` there, and run `patchwheel lock`",
            )
        return version

    @functools.cached_property
    def context(self) -> Context:
        """What stages below need of it, by the same names."""
        return Context(**{row.name: getattr(self, row.name) for row in fields(Context)})

    @property
    def explicit(self) -> str | None:
        """The interpreter that the user named, if it is not by its version."""
        option = self.python_option
        return option if option and not option[0].isdigit() else None

    @functools.cached_property
    def remote(self) -> Remote | None:
        """The shared store; None where none is set, or nothing made elsewhere may be used."""
        if self.release or self.compile_cache == "off":
            return None
        from patchwheel.remote import open_remote

        remote = open_remote(self.context.note, self.context.limits.remote)
        return None if remote and self.offline and not remote.url.startswith("file:") else remote

    @property
    def root(self) -> Path:
        return self.manifest.root

    @property
    def environment_link(self) -> Path:
        return self.root / ".venv-forks"

    @property
    def dist(self) -> Path:
        """The folder that wheels are copied to; each kind of them has one of its own."""
        kind = "unpatched" if self.without_patches else "release" if self.release else ""
        return self.root / "dist" / kind

    def build(self, fork: Fork) -> ForkBuild:
        """Return the lock's entry for a fork and this Python; raises ManifestError if outdated."""
        return self.lock.fork(fork, self.python)

    def wheels_of(self, fork: Fork, folder: Path | None = None) -> list[Path]:
        """Return the fork's wheels in a folder, dist/ by default."""
        name = fork.distribution.replace("-", "_")
        label = self.manifest.environment.label
        return sorted((folder or self.dist).glob(f"{name}-*+{label}.*.whl"))

    def wheels_here(self, fork: Fork, folder: Path | None = None) -> list[Path]:
        """Return those that fit this Python."""
        pythons = {f"cp{self.python.replace('.', '')}", "py3"}
        tags = {path: path.stem.split("-")[-3:-1] for path in self.wheels_of(fork, folder)}
        return [
            path
            for path, (python, abi) in tags.items()
            if abi == "abi3" or not pythons.isdisjoint(python.split("."))
        ]

    def work_folder(self, fork: Fork) -> Path:
        return self.root / "work" / fork.name

    def exclusive(self, fork: Fork) -> contextlib.AbstractContextManager[None]:
        """Let no other process change the fork's work tree, series or pin meanwhile."""
        place = digest(str(self.work_folder(fork).absolute()))[:16]
        busy = f"another patchwheel is changing {fork.name}"
        return self.store.lock(f"change-{place}", busy=busy)

    def copy_to(self, folder: Path) -> None:
        """Copy manifest, lock and patches: all that a build reads of the project."""
        transaction.copy_files(self.manifest, folder, links=False)
