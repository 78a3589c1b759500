"""P18: a release that was signed is not changed in one byte, and a fix is said in SBOM and VEX."""

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from patchwheel.kit import CheckError, InputError, MachineError
from patchwheel.release import check_release, make_index, sign_sums, stage_release
from patchwheel.wheelfile import read_wheel
from tests.fixtures import support
from tests.fixtures.projects import Site
from tests.security.hostile import RELEASE, make_attack
from tests.security.test_parsers import bounded

BODY = "Upstream-Status: Pending\nFixes: CVE-2026-12345\nFixes: CVE-2026-0001\nFixes: #12\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("signed")
    made = make_attack(folder).site
    upstream = folder / "upstream"
    support.make_upstream(upstream, {"other.txt": "a\n"})
    patch = support.make_patch(
        upstream,
        {"demo.txt": "b\n"},
        subject="Close a hole",
        body=BODY,
    )
    support.make_series(made.patches, {"0010-hole.patch": patch})
    for words in (("lock",), RELEASE):
        status, said = made.tried(*words)
        assert status == 0, said
    return made


@pytest.fixture
def dist(site: Site, tmp_path: Path) -> Path:
    return shutil.copytree(site.root / "dist/release", tmp_path / "dist")


def write_key(
    path: Path, private: Ed25519PrivateKey, encryption: KeySerializationEncryption | None = None
) -> Path:
    encryption = encryption or NoEncryption()
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key.pem", Ed25519PrivateKey.generate())


def test_a_signed_release_is_verified_offline_by_name(site: Site, dist: Path, key: Path) -> None:
    public = site.run("release", "sign", str(dist), "--key", str(key)).strip()
    trusted = ("--trust", f"other:{'0' * 64}", "--trust", f"release:{public}")
    told = json.loads(site.run("verify", str(dist), *trusted, "--json"))
    assert (told["signed-by"], told["problems"]) == (["release"], [])
    [wheel] = dist.glob("*.whl")
    assert json.loads(site.run("verify", str(wheel), *trusted, "--json"))["signed-by"]
    said = site.run("verify", str(dist), "--trust", f"other:{'0' * 64}", status=6)
    assert "is no signature of SHA256SUMS by other" in said
    for wrong in (public, f"x:{public[1:]}", f":{public}"):
        assert "expected NAME:KEY" in site.run("verify", str(dist), "--trust", wrong, status=2)


def test_each_byte_of_a_signed_release_counts(dist: Path, key: Path) -> None:
    trusted = {"release": sign_sums(dist, key)}
    assert check_release(dist, trusted=trusted).problems == ()
    names = sorted(path.name for path in dist.iterdir())
    assert {"SHA256SUMS", "SHA256SUMS.sig", "openvex.json", "pylock.toml"} < {*names}
    for path in sorted(dist.iterdir()):
        data = path.read_bytes()
        step = 1 if path.suffix == ".sig" else max(1, len(data) // 10)
        for at in range(0, len(data), step):
            # 0x20 is the case of a letter.
            for bit in (1, 0x20):
                changed = bytearray(data)
                changed[at] ^= bit
                path.write_bytes(changed)
                assert check_release(dist, trusted=trusted).problems, (path.name, at, bit)
        path.write_bytes(data)
        path.unlink()
        assert path.suffix != ".whl" or not list(dist.glob("*.whl"))
        if path.suffix != ".whl":
            assert check_release(dist, trusted=trusted).problems, path.name
        path.write_bytes(data)
    assert check_release(dist, trusted=trusted).problems == ()


def test_what_was_made_anew_is_not_signed(dist: Path, key: Path, tmp_path: Path) -> None:
    """Everything agrees, without the key."""
    trusted = {"release": sign_sums(dist, key)}
    [wheel] = dist.glob("*.whl")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(wheel, alone)
    assert check_release(alone / wheel.name).problems == ()
    assert "is not signed" in check_release(alone / wheel.name, trusted=trusted).problems[0]
    for name in ("SHA256SUMS", "SHA256SUMS.sig"):
        shutil.copy(dist / name, alone)
    assert check_release(alone / wheel.name, trusted=trusted).problems == ()
    other = write_key(tmp_path / "other.pem", Ed25519PrivateKey.generate())
    sign_sums(dist, other)
    assert check_release(dist).problems == ()
    assert (
        "no signature of SHA256SUMS by release" in check_release(dist, trusted=trusted).problems[0]
    )
    renamed = alone / wheel.name.replace("py3", "py4")
    (alone / wheel.name).rename(renamed)
    assert any("is in no SHA256SUMS" in p for p in check_release(renamed, trusted=trusted).problems)


def test_the_signature_of_other_sums_goes(site: Site, tmp_path: Path) -> None:
    one = site.apart(tmp_path)
    dist, patch = one.root / "dist/release", one.patches / "0010-hole.patch"
    public = sign_sums(dist, write_key(tmp_path / "key.pem", Ed25519PrivateKey.generate()))
    signature = (dist / "SHA256SUMS.sig").read_bytes()
    # A user's own, and what one left that was killed while it wrote.
    support.write(dist, {".SHA256SUMS.abcdefgh.tmp": "half", ".SHA256SUMS.mine.tmp": "mine"})
    for words in (RELEASE, ("index", str(dist))):
        one.run(*words)
        assert (dist / "SHA256SUMS.sig").read_bytes() == signature
    assert [path.name for path in dist.glob(".*")] == [".SHA256SUMS.mine.tmp"]
    (dist / ".SHA256SUMS.mine.tmp").unlink()
    patch.write_bytes(patch.read_bytes().replace(b"CVE-2026-0001", b"CVE-2026-0002"))
    one.run(*RELEASE)
    assert not (dist / "SHA256SUMS.sig").exists()
    said = one.run("verify", str(dist), "--trust", f"release:{public}", status=6)
    assert "there is no file SHA256SUMS.sig, so it is not signed" in said


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("kind", [fifo, endless, huge])
def test_what_is_no_file_beside_a_wheel_is_not_read(
    dist: Path, key: Path, kind: Callable[[Path], None]
) -> None:
    """Who hands on a release may put anything in its folder."""
    make_index(dist)
    trusted = {"release": sign_sums(dist, key)}
    names = [str(p.relative_to(dist)) for p in dist.rglob("*") if p.is_file()]
    [wheel] = dist.glob("*.whl")
    for name in [*names, f"{wheel.name}.cdx.json"]:
        place, away = dist / name, dist.with_name("away")
        if there := place.exists():
            place.rename(away)
        kind(place)
        with bounded(60, waits=True):
            try:
                checked = check_release(dist, trusted=trusted).problems
            except InputError as err:
                checked = (str(err),)
            assert checked, name
            with contextlib.suppress(InputError, CheckError):
                make_index(dist)
            if place.name == "SHA256SUMS":
                with pytest.raises(InputError, match="there is no such file"):
                    sign_sums(dist, key)
        place.unlink()
        if there:
            away.rename(place)
        assert check_release(dist, trusted=trusted).problems == (), name


def test_a_key_that_cannot_sign(dist: Path, tmp_path: Path, key: Path) -> None:
    private = Ed25519PrivateKey.generate()
    locked = write_key(tmp_path / "locked.pem", private, BestAvailableEncryption(b"x"))
    curve = tmp_path / "curve.pem"
    curve.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    public = tmp_path / "public.pem"
    public.write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for file, problem in (
        (locked, "is no private key without a password"),
        (public, "is no private key without a password"),
        (curve, "is a key of ecdsa"),
        (tmp_path / "gone.pem", "there is no such file"),
    ):
        with pytest.raises(InputError, match=problem):
            sign_sums(dist, file)
    (dist / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match="there is no such file"):
        sign_sums(dist, key)
    assert not (dist / "SHA256SUMS.sig").exists()


def test_without_the_library_the_extra_is_named(
    dist: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = {"a": sign_sums(dist, key)}
    monkeypatch.setitem(sys.modules, "securesystemslib", None)
    for act in (lambda: sign_sums(dist, key), lambda: check_release(dist, trusted=trusted)):
        with pytest.raises(MachineError, match="signatures need securesystemslib") as caught:
            act()
        assert caught.value.hint == "install patchwheel[sign]"


def test_a_fix_of_a_vulnerability_is_said(dist: Path) -> None:
    [path] = dist.glob("*.whl")
    wheel = read_wheel(path)
    fixes = ("CVE-2026-0001", "CVE-2026-12345")
    assert wheel.record.patches[0].fixes == fixes
    sbom = json.loads(wheel.metadata("sboms/patchwheel.cdx.json"))
    [patch] = sbom["metadata"]["component"]["pedigree"]["patches"]
    assert patch["resolves"] == [{"type": "security", "id": name} for name in fixes]
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(sbom)) is None
    vex = json.loads((dist / "openvex.json").read_text())
    assert vex["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert [s["vulnerability"]["name"] for s in vex["statements"]] == [*fixes]
    for statement in vex["statements"]:
        [product] = statement["products"]
        assert statement["status"] == "fixed"
        assert product["@id"].startswith("pkg:pypi/demo@1.0%2B")
        assert product["hashes"] == {"sha-256": wheel.sha256}
    (dist / "openvex.json").write_text("{}")
    assert any("openvex.json: line 1" in problem for problem in check_release(dist).problems)


def test_what_a_message_says_now_is_said_beside_a_wheel_that_was_made_before(
    site: Site, tmp_path: Path
) -> None:
    now = site.apart(tmp_path)
    dist, patch = now.root / "dist/release", now.patches / "0010-hole.patch"
    [path], before = dist.glob("*.whl"), patch.read_bytes()
    bytes_before, files_before = path.read_bytes(), {f.name: f.read_bytes() for f in dist.iterdir()}
    after = before.replace(b"Status: Pending", b"Status: Backport [0123abc]")
    patch.write_bytes(after.replace(b"Fixes: CVE-2026-0001\n", b"Fixes: CVE-2026-7777\n"))
    assert now.build(*RELEASE[1:]) == path
    assert path.read_bytes() == bytes_before
    beside = dist / f"{path.name}.cdx.json"
    sbom = json.loads(beside.read_text())
    [said] = sbom["metadata"]["component"]["pedigree"]["patches"]
    assert said["type"] == "backport"
    assert said["diff"]["url"].endswith(f"0010-hole.patch#sha256={support.sha256(patch)}")
    # Another document than the one in the wheel, of the same files.
    inside = json.loads(read_wheel(path).metadata("sboms/patchwheel.cdx.json"))
    assert sbom["formulation"] == inside["formulation"]
    assert sbom["serialNumber"] != inside["serialNumber"]
    fixes = ["CVE-2026-12345", "CVE-2026-7777"]
    assert [row["id"] for row in said["resolves"]] == fixes
    vex = json.loads((dist / "openvex.json").read_text())
    assert [row["vulnerability"]["name"] for row in vex["statements"]] == fixes
    assert beside.name in (dist / "SHA256SUMS").read_text()
    for place in (dist, path):
        assert json.loads(now.run("verify", str(place), "--json"))["problems"] == []
    # It follows from the wheel in all but the patches, and goes where the wheel goes.
    other = beside.read_bytes().replace(b'"demo', b'"demo-x', 1)
    no_name = beside.read_bytes().replace(b"/0010-hole.patch#", rb"/\ud800#")
    for lie in (other, no_name, b"{}"):
        honest = beside.read_bytes()
        beside.write_bytes(lie)
        for place in (dist, path):
            assert f"{beside.name}: line" in now.run("verify", str(place), status=6)
        beside.write_bytes(honest)
    cell = {"cell": "release-demo", "wheels": [{"file": path.name, "sha256": support.sha256(path)}]}
    support.write(dist, {"reports/release-demo.json": json.dumps(cell)})
    staged, expected = tmp_path / "publish/staged", {"release-demo": ("demo", "3.12")}
    support.write(tmp_path / "earlier", {path.name: bytes_before, beside.name: "of then"})
    for earlier in (None, tmp_path / "earlier"):
        stage_release(dist, staged, expected, earlier=earlier)
        for folder in ("release", "site"):
            assert (staged / folder / beside.name).read_bytes() == beside.read_bytes()
            assert (staged / folder / "openvex.json").read_text().count("CVE-2026-7777") == 1
    # What the wheel says itself is said once.
    (dist / "reports/release-demo.json").unlink()
    (dist / "reports").rmdir()
    patch.write_bytes(re.sub(rb"Fixes: .*\n", b"", before))
    now.build(*RELEASE[1:])
    assert not (dist / "openvex.json").exists()
    assert json.loads(now.run("verify", str(dist), "--json"))["problems"] == []
    patch.write_bytes(before)
    now.build(*RELEASE[1:])
    assert {f.name: f.read_bytes() for f in dist.iterdir()} == files_before
