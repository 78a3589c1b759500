"""The pin of a new fork: what an index, the sdist and upstream's repository say of a project."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import replace
from typing import Any, TypeAlias

from patchwheel import source as sources
from patchwheel.build import parse_build_system, read_table
from patchwheel.kit import InputError, ManifestError, Repository, parsed
from patchwheel.manifest import VERSION, Fork, UpstreamWheel
from patchwheel.project import Project
from patchwheel.upstream.history import History
from patchwheel.wheelfile import field

# A pin, and what to say of the keys of its entry; the key "" stands for the fork itself.
NewPin: TypeAlias = "tuple[sources.Source, dict[str, str]]"

RELEASE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*?)(?:==([^=\s]+))?")
FORGE = re.compile(
    r"https://(github\.com|gitlab\.com|codeberg\.org|bitbucket\.org)"
    # Pages of a forge about people, and the texts that an organisation's repositories share.
    r"/(?!sponsors/|orgs/|users/)[\w.-]+/(?!\.github\b)[\w.-]+"
)
# What a repository is called, the likeliest first.
TITLES = (r"source|\brepo(sitory)?\b|code(?! of)", "github|gitlab", "home")
# The extensions of a certificate of Sigstore's with the repository, its commit and its ref.
EXTENSION = rb"\x06\x0a\x2b\x06\x01\x04\x01\x83\xbf\x30\x01%b\x04.\x0c(.)"
ATTESTED = {"git": rb"\x0c", "commit": rb"\x0d", "tag": rb"\x0e"}
# Further below the root are vendored projects and examples.
DEFINITION = re.compile(r"([^/]+/){0,2}(meson\.build|CMakeLists\.txt|setup\.py|pyproject\.toml)")
FORTRAN = re.compile(rb"(?i)(?:project|add_languages|enable_language)\s*\([^)]*\bfortran\b")
DEPENDENCY = re.compile(rb"\bdependency\(\s*'([\w.+-]+)'")
# Found by Meson itself, or in the build environment.
BUILT_IN = {"blas", "lapack", "numpy", "openmp", "pybind11", "python", "python3", "threads"}


def find_pin(project: Project, what: str) -> NewPin:
    """Return the pin for NAME, NAME==VERSION or URL@REF; raises InputError or ManifestError."""
    url, _, ref = what.removeprefix("git+").rpartition("@")
    if sources.REMOTE.match(url) and ref:
        return _of_commit(project, url, ref)
    if match := RELEASE.fullmatch(what):
        return _of_release(project, match[1], match[2])
    expected = "NAME, NAME==VERSION or URL@REF"
    raise ManifestError(f"{what!r} names no project", expected=expected)


def _new_fork(project: Project, name: str, version: str) -> Fork:
    from packaging.utils import canonicalize_name

    name = canonicalize_name(name)
    if name in project.manifest.forks:
        hint = f"`patchwheel rebase {name} --onto REF` moves its pin"
        raise ManifestError(f"{name} is a fork already", where=project.manifest.path, hint=hint)
    wheel, patches = UpstreamWheel(distribution=name), project.root / "patches" / name
    return Fork(name=name, version=version, patches=patches, upstream_wheel=wheel)


def _of_release(project: Project, name: str, version: str | None) -> NewPin:
    from packaging.version import Version

    index = project.context.index
    notes: dict[str, str] = {}
    with sources.asking(project.context, name):
        pythons = project.manifest.environment.python
        version = version or sources.newest_release(index, name, pythons)
        sdist = sources.find_sdist(index, name, version)
    fork = replace(_new_fork(project, name, version), sdist=sdist)
    source = sources.fetch_pin(project.context, fork)
    metadata = _read(source, "PKG-INFO")
    # As upstream writes it: 1.0.0 is also found as 1.0.
    stated = [*field(metadata, "Version"), version][0]
    if VERSION.fullmatch(stated) and Version(stated) == Version(version):
        fork = replace(fork, version=stated)
    if attested := _attested(project, fork):
        fork = replace(fork, **attested)
        notes["commit"] = "as the attestation of the sdist says: `verify --pin` compares the two"
    elif git := _repository(metadata):
        fork, notes["git"] = _tagged(project, replace(source, fork=replace(fork, git=git)))
    return _described(replace(source, fork=fork), notes)


def _repository(metadata: bytes) -> str | None:
    """Return the repository that a project's metadata names: that of its source, or else any."""
    homes = (f"home, {url}" for url in field(metadata, "Home-page"))
    rows = [*field(metadata, "Project-URL"), *homes]
    rows.sort(key=lambda row: [not re.search(t, row.split(",")[0].lower()) for t in TITLES])
    found = filter(None, map(FORGE.search, rows))
    return next((match[0].removesuffix(".git") for match in found), None)


def _tagged(project: Project, source: sources.Source) -> tuple[Fork, str]:
    """Return the fork with its release's tag and commit, or without; and what to say of them."""
    fork, unknown = source.fork, "tag and commit are not known: the repository"
    remote = sources.Remote(project.context, fork, Repository(source.git_dir))
    try:
        if project.offline:
            sources.refuse(fork, "nothing is asked offline")
        out = remote.run(remote.url, "ls-remote", "--tags", "--", remote.url)
    except InputError as err:
        project.progress.say(f"{err.message}; tag and commit stay unknown")
        return fork, f"{unknown} could not be reached"
    refs = {name.removeprefix("refs/tags/"): oid for oid, name in map(str.split, out.splitlines())}
    prefix = rf"(|v|rel|release|{re.escape(fork.name)})[-_/.]?v?"
    for tag in filter(re.compile(prefix + re.escape(fork.version)).fullmatch, refs):
        # An annotated tag is listed twice: itself, and the commit that it names.
        commit = refs.get(f"{tag}^{{}}", refs[tag])
        return replace(fork, tag=tag, commit=commit), "as the metadata of the sdist says"
    return fork, f"{unknown} has no tag for {fork.version}"


def _of_commit(project: Project, url: str, ref: str) -> NewPin:
    name = re.split(r"[/:]", url.removesuffix(".git").rstrip("/"))[-1]
    fork = replace(_new_fork(project, name, "0"), git=url)
    history = History(project.context, fork)
    history.update()
    commit = history.resolve(ref)
    if commit is None:
        sources.refuse(fork, f"{url} has no tag, branch or commit {ref}", hint=history.nearest(ref))
    number = re.search(rf"(?:^|[^\d.])(\d+\.{VERSION.pattern})$", ref)
    version = number[1] if number else history.stated_version(commit)
    tag = ref if history.repo.text("for-each-ref", f"refs/tags/{ref}") else None
    pin: dict[str, Any] = {"version": version, "git": url, "tag": tag, "commit": commit}
    source = sources.fetch_pin(project.context, replace(fork, **pin), origin="git")
    stated = str(read_table(_read(source, "pyproject.toml"), "project", url).get("name", name))
    return _described(replace(source, fork=replace(_new_fork(project, stated, version), **pin)), {})


def _described(source: sources.Source, notes: dict[str, str]) -> NewPin:
    """Add what the source tells of its build."""
    system = parse_build_system(_read(source, "pyproject.toml"))
    notes[""] = f"built by {system.backend}"
    paths = filter(DEFINITION.fullmatch, Repository(source.git_dir).files(source.tree))
    text = b"".join(_read(source, path) for path in paths)
    rust = system.kind.rust or b"setuptools_rust" in text
    programs = (*["gfortran"] * bool(FORTRAN.search(text)), *["cargo"] * rust)
    if names := {*map(os.fsdecode, DEPENDENCY.findall(text))} - BUILT_IN:
        notes["programs"] = f"its meson.build looks for {', '.join(sorted(names))}"
    return replace(source, fork=replace(source.fork, programs=programs)), notes


def _read(source: sources.Source, path: str) -> bytes:
    repo = Repository(source.git_dir)
    oids = [blob.oid for name, blob in repo.files(source.tree, path).items() if name == path]
    return b"".join(repo.read(oids).values())


def _attested(project: Project, fork: Fork) -> dict[str, Any]:
    """Return git, commit and tag by the sdist's attestation (PEP 740), which is not verified."""
    assert fork.sdist  # noqa: S101  (it was found on the index)
    url = sources.find_file(project.context.index, fork.name, fork.sdist.filename).provenance or ""
    if project.offline or not url.startswith(("https://", "http://")):
        return {}

    try:
        provenance = sources.get_body("asking for the attestation", url)
        return read_attestation(provenance, fork.sdist.sha256)
    except (InputError, ValueError, LookupError, TypeError) as err:
        project.progress.say(f"{fork.name}: its attestation is not used: {err}")
        return {}


def read_attestation(provenance: bytes, sha256: str) -> dict[str, str]:
    """Return what the first attestation says of its build; ValueError for that of another file."""
    bundle = parsed(provenance)["attestation_bundles"][0]["attestations"][0]
    statement = parsed(base64.b64decode(bundle["envelope"]["statement"]))
    if statement["subject"][0]["digest"]["sha256"] != sha256:
        raise ValueError("it is of another file")
    certificate = base64.b64decode(bundle["verification_material"]["certificate"])
    rows: dict[str, str] = {}
    for key, number in ATTESTED.items():
        if match := re.search(EXTENSION % number, certificate, re.DOTALL):
            rows[key] = certificate[match.end() : match.end() + match[1][0]].decode()
    if not re.fullmatch("[0-9a-f]{40}", rows["commit"]) or not FORGE.fullmatch(rows["git"]):
        raise ValueError("it names no commit")
    # A release may be made from a branch.
    tag = rows.pop("tag", "").partition("refs/tags/")[2]
    return {**rows, "tag": tag} if tag else rows
