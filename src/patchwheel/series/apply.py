"""Apply a series to a source tree, all or nothing, without fuzz and without a work tree."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchwheel import patch as patching  # loaded where a patch is read
from patchwheel.kit import Change, GitError, PatchError, Repository, Store, digest
from patchwheel.patch import Patch, paths_of
from patchwheel.series.files import Series
from patchwheel.source import Source

APPLY = ("apply", "--cached", "--whitespace=nowarn")
# The staged objects are temporary: neither the disk nor their size matters.
TEMPORARY = ("-c", "core.fsync=none", "-c", "core.looseCompression=0")
# A pack for each series; git gets slow when it has to look into hundreds of them.
MANY_PACKS = 50
REF = "refs/patchwheel/trees"
REPORT = "this should not happen: please report it with the patch"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchedTree:
    """`tree` is in the source's git dir; with `dev` it holds the files of an open work tree."""

    source: Source
    tree: str
    series: Series
    dev: bool = False


def apply_series(source: Source, series: Series, *, store: Store) -> PatchedTree:
    """Apply a series, or return the known result; raises PatchError, and then changes nothing."""
    if not series.patches:
        return PatchedTree(source=source, tree=source.tree, series=series)
    key = digest(source.tree, [patch.sha256 for patch in series.patches])

    def known() -> str:
        found = store.memo("tree", key)
        # The ref keeps git from pruning the tree; a repository that was made again lacks both.
        return str(found["tree"]) if found and (source.git_dir / REF / key).exists() else ""

    if not (tree := known()):
        # Builds of two forks may want it at once, and git fails to write the same pack twice.
        with store.lock(f"series-{key}"):
            if not (tree := known()):
                tree = _apply(source, series.patches, ref=f"{REF}/{key}")
                store.remember("tree", key, {"tree": tree})
    return PatchedTree(source=source, tree=tree, series=series)


def start_simulation(source: Source, patches: Sequence[Patch]) -> patching.Simulation:
    """Return a simulation on the source tree that has read the files of the patches."""
    repo = Repository(source.git_dir)
    return patching.Simulation(repo.files(source.tree), repo.read, paths_of(patches))


def _apply(source: Source, patches: Sequence[Patch], *, ref: str) -> str:
    for patch in patches:
        patching.check_patch(patch)
    repo = Repository(source.git_dir)
    try:
        with stage_patches(repo, source.tree, patches) as (changes, env):
            _check_result(source, patches, changes)
            made = [change for change in changes if change.status != "D"]
            gone = [change.path for change in changes if change.status == "D"]
            contents = repo.read([change.new.oid for change in made], env=env)
        rows = ((change.path, change.new.mode, contents[change.new.oid]) for change in made)
        tree = repo.import_files(rows, onto=source.tree, removed=gone, ref=ref)
    except GitError as err:
        # This names the patch, the file and the hunk; where it finds nothing, git names the patch.
        simulation = start_simulation(source, patches)
        for patch in patches:
            simulation.apply(patch)
        patch_trees(repo, source.tree, patches)
        raise PatchError(f"the series does not apply: {err.stderr}", hint=REPORT) from err
    if sum(1 for _ in (repo.git_dir / "objects" / "pack").glob("*.pack")) > MANY_PACKS:
        repo.git("repack", "-q", "-d", "--geometric=2")
    return tree


def _check_result(source: Source, patches: Sequence[Patch], changes: Sequence[Change]) -> None:
    """Refuse what git lets pass, such as a hunk that fits in several places."""
    repo, changed = Repository(source.git_dir), {change.path for change in changes}
    files = {change.path: change.old for change in changes if change.status != "A"}
    # A later patch of the series may have restored a file.
    named = paths_of(patches)
    if restored := named - changed:
        files |= repo.files(source.tree, *sorted(restored))
    simulation = patching.Simulation(files, repo.read, named)
    for patch in patches:
        simulation.apply(patch)
    # `git apply` inside another repository exits with 0 and changes nothing.
    if wrong := changed ^ simulation.changed().keys():
        problem = f"{min(wrong)} did not become what the series says"
        raise PatchError(problem, where=repo.git_dir, hint=REPORT)


@contextlib.contextmanager
def stage_patches(
    repo: Repository, tree: str, patches: Sequence[Patch]
) -> Iterator[tuple[list[Change], Mapping[str, str]]]:
    """Apply patch files to a tree, all or nothing, within a context; raises GitError.

    Gives the changes, and the environment in which git reads their temporary objects.
    """
    with repo.index(tree) as index:
        objects = Path(index["GIT_INDEX_FILE"]).with_name("objects")
        objects.mkdir()
        known = str(repo.git_dir.absolute() / "objects")
        env = {
            **index,
            "GIT_OBJECT_DIRECTORY": str(objects),
            # A list, whose entries may hold a colon only within quotes.
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": '"' + re.sub(r'(["\\])', r"\\\1", known) + '"',
        }
        names = [patch.path.absolute() for patch in patches]
        for number, patch in enumerate(patches):
            if patch.plain is not patch.data:
                names[number] = objects.with_name(str(number))
                names[number].write_bytes(patch.plain)
        repo.git(*TEMPORARY, *APPLY, *map(str, names), env=env)
        yield repo.changes("--cached", tree, command="diff-index", env=env), env


def patch_trees(repo: Repository, tree: str, patches: Iterable[Patch]) -> list[str]:
    """Apply patches one after another and return the tree after each, which no ref holds."""
    trees = []
    with repo.index(tree) as index:
        for patch in patches:
            try:
                repo.git(*APPLY, "-", stdin=patch.plain, env=index)
            except GitError as err:
                problem = f"{patch.name} does not apply: {err.stderr.strip()}"
                raise PatchError(problem, where=patch.path) from err
            trees.append(repo.text("write-tree", env=index))
    return trees
