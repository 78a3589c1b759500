"""Small real things for tests: wheels, sdists, git repositories, patches and projects, each in one call."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import textwrap
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Never

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parent.parent
EPOCH = 1_700_000_000


class Recorder:
    """A Report that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[str, int, int | None]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, what: str, done: int, total: int | None) -> None:
        self.steps.append((what, done, total))


def lacking(reason: str) -> Never:
    """Skip, with a reason; where TEST_ALL is set, as in CI, fail: a silent skip may hide a lost promise."""
    if os.environ.get("TEST_ALL"):
        pytest.fail(f"this machine must be able to run every test: {reason}")
    pytest.skip(reason)


def sha256(data: bytes | Path) -> str:
    content = data if isinstance(data, bytes) else data.read_bytes()
    return hashlib.sha256(content).hexdigest()


def copy_project(folder: Path) -> None:
    """Copy what a build of the project's own forks reads, so that nothing is made in the checkout."""
    folder.mkdir(parents=True)
    for name in ("forks.toml", "forks.lock"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "patches", folder / "patches")


def dedent(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str | bytes],
    *,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    metadata: str = "",
) -> Path:
    """Write a minimal, valid wheel with a true RECORD; the same arguments give the same bytes."""
    escaped = name.replace("-", "_")
    info = f"{escaped}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    lines += [f"Requires-Dist: {requirement}\n" for requirement in requires]
    wheel = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: {str(tag.endswith('any')).lower()}\n"
    wheel += "".join(f"Tag: {t}\n" for t in _expanded(tag))
    content = {path: _bytes(data) for path, data in files.items()}
    content[f"{info}/METADATA"] = _bytes("".join(lines) + metadata)
    content[f"{info}/WHEEL"] = _bytes(wheel)
    rows = [f"{p},sha256={_urlsafe(d)},{len(d)}\n" for p, d in content.items()]
    content[f"{info}/RECORD"] = _bytes("".join(rows) + f"{info}/RECORD,,\n")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{escaped}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in content.items():
            row = zipfile.ZipInfo(entry, (2023, 11, 14, 22, 13, 20))
            row.compress_type = zipfile.ZIP_DEFLATED
            row.external_attr = (0o100644) << 16
            archive.writestr(row, data)
    return path


def make_sdist(
    folder: Path, name: str, version: str, files: Mapping[str, str | bytes]
) -> Path:
    """Write NAME-VERSION.tar.gz with a PKG-INFO and `files` below its one folder."""
    top = f"{name.replace('-', '_')}-{version}"
    content = {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{top}.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for entry, data in {**content, **files}.items():
            raw = _bytes(data)
            row = tarfile.TarInfo(f"{top}/{entry}")
            row.size, row.mtime, row.mode = len(raw), EPOCH, 0o644
            archive.addfile(row, io.BytesIO(raw))
    return path


def make_index(folder: Path, *files: Path) -> str:
    """Write a PEP 503 index over `files` and return its file: URL."""
    projects: dict[str, list[Path]] = {}
    for file in files:
        name = file.name.split("-")[0].replace("_", "-").lower()
        projects.setdefault(name, []).append(file)
    for name, found in projects.items():
        rows = [
            f'<a href="{f.as_uri()}#sha256={sha256(f)}">{f.name}</a><br>' for f in found
        ]
        write(folder, {f"{name}/index.html": "<!DOCTYPE html>\n" + "\n".join(rows)})
    return folder.as_uri()


def write(folder: Path, files: Mapping[str, str | bytes | None]) -> None:
    """Write files below a folder; None removes one."""
    for name, data in files.items():
        path = folder / name
        if data is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_bytes(data))


def git(folder: Path, *words: str, stdin: bytes = b"") -> str:
    # Fixtures of a module run before the seal of a test, which has an identity too.
    who = {"NAME": "A U Thor", "EMAIL": "author@example.org"}
    names = {
        f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()
    }
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        input=stdin,
        env={**names, **os.environ},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="surrogateescape").strip()


def make_upstream(
    folder: Path, files: Mapping[str, str | bytes | None], *, tag: str | None = None
) -> str:
    """Make a git repository with one commit, or add a commit to it; return the commit's id."""
    if not (folder / ".git").exists():
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "-q", "-b", "main")
        # So that a full commit can be fetched by its id, as the large hosts allow.
        git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    write(folder, files)
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "--allow-empty", "-m", f"Commit of {len(files)} files")
    if tag:
        git(folder, "tag", tag)
    return git(folder, "rev-parse", "HEAD")


def make_patch(
    upstream: Path,
    changes: Mapping[str, str | bytes | None],
    *,
    subject: str = "Change something",
    body: str = "",
) -> bytes:
    """Commit the changes on top of HEAD and return that commit as a mail, as `git format-patch` writes it."""
    write(upstream, changes)
    git(upstream, "add", "-A", "-f")
    git(upstream, "commit", "-q", "-m", f"{subject}\n\n{body}")
    return git_bytes(
        *(upstream, "format-patch", "-1", "--stdout", "--no-signature", "--zero-commit")
    )


def git_bytes(folder: Path, *words: str) -> bytes:
    return subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, check=True
    ).stdout


def make_series(folder: Path, patches: Mapping[str, bytes]) -> Path:
    """Write a series of patches in their order and return its folder."""
    write(folder, {**patches, "series": "".join(f"{name}\n" for name in patches)})
    return folder


def make_manifest(
    root: Path, forks: Mapping[str, str], *, python: str = "3.12", requires: str = "[]"
) -> Path:
    """Write forks.toml; `forks` maps a name to the TOML lines of its table."""
    text = f'schema = 1\n\n[environment]\nlabel = "arrayapi"\npython = ["{python}"]\nrequires = {requires}\n'
    for name, lines in forks.items():
        text += f"\n[forks.{name}]\n{dedent(lines)}"
    write(root, {"forks.toml": text})
    return root / "forks.toml"


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _urlsafe(data: bytes) -> str:
    raw = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return raw.rstrip(b"=").decode()


def _expanded(tag: str) -> list[str]:
    python, abi, platform = tag.split("-")
    return [
        f"{p}-{a}-{f}"
        for p in python.split(".")
        for a in abi.split(".")
        for f in platform.split(".")
    ]
