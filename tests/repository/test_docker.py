"""The images' files keep to what builds everywhere; docker/test.sh builds them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from patchwheel.ci import workflows
from patchwheel.kit.context import Progress
from patchwheel.kit.interpreter import find_interpreter
from patchwheel.manifest.load import load_manifest
from patchwheel.manifest.lock import load_lock
from tests.fixtures import support

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
IMAGES = ("cpu", "cuda", "rocm")
TEXTS = {name: (DOCKER / f"{name}.Dockerfile").read_text() for name in IMAGES}
README = (DOCKER / "README.md").read_text()
DIGEST = re.compile(r"^ARG (\w+_IMAGE)=\S+:\S+@sha256:[0-9a-f]{64}$", re.MULTILINE)


def stages(text: str) -> list[list[str]]:
    """Return the instructions of each stage, without comments, with continued lines joined."""
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    joined = lines.replace("\\\n", " ").splitlines()
    found: list[list[str]] = []
    for line in filter(None, joined):
        if line.startswith("FROM "):
            found.append([])
        if found:
            found[-1].append(line)
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_buildah_of_debian_stable_understands_the_file(name: str) -> None:
    text = TEXTS[name]
    assert "<<" not in text
    assert "--link" not in text
    assert "--network" not in text


@pytest.mark.parametrize("name", IMAGES)
def test_every_base_is_an_argument_with_a_digest(name: str) -> None:
    pinned = set(DIGEST.findall(TEXTS[name]))
    assert "BASE_IMAGE" in pinned
    built = {"build", "wheels"}
    for stage in stages(TEXTS[name]):
        base = stage[0].split()[1]
        assert base in built or base.strip("${}") in pinned


def test_ci_compiles_for_rocm_where_the_image_is_built() -> None:
    assert f"ARG BASE_IMAGE={workflows.IMAGES['hipcc']}\n" in TEXTS["rocm"]


@pytest.mark.parametrize("name", IMAGES)
def test_the_last_stage_is_what_a_user_may_run(name: str) -> None:
    *build, runtime = stages(TEXTS[name])
    assert len(build) >= 1
    users = [line for line in runtime if line.startswith("USER ")]
    assert users == ["USER 10001:10001"]
    assert runtime.index(users[0]) > max(
        n for n, line in enumerate(runtime) if line.startswith(("RUN ", "COPY "))
    )
    everything = " ".join(runtime)
    assert not re.search(r"\b(gcc|g\+\+|clang|make|pip|uv)\b", everything)
    assert "secret" not in everything
    assert 'CMD ["/opt/patchwheel/entrypoint", "check"]' in everything
    assert 'ENTRYPOINT ["/opt/patchwheel/entrypoint"]' in everything
    for label in (
        'org.opencontainers.image.revision="${REVISION}"',
        'patchwheel.lock.sha256="${LOCK_SHA256}"',
    ):
        assert label in everything


@pytest.mark.parametrize("name", IMAGES)
def test_the_three_differ_only_where_they_must(name: str) -> None:
    """The stages up to where the environment is made are one text."""

    def common(text: str) -> list[str]:
        first = [line.replace(" PATH=/opt/rocm/bin:${PATH}", "") for line in stages(text)[0][1:]]
        first = [re.sub(r"(make-environment).*", r"\1", line) for line in first]
        return [line for line in first if "HCC_AMDGPU_TARGET" not in line]

    assert common(TEXTS[name]) == common(TEXTS["cpu"])


def test_the_context_is_what_the_build_reads() -> None:
    """What a checkout holds beside it, keys and credentials among it, is no part of a build."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert allowed == {
        "ci/requirements.txt",
        "docker",
        "forks.inventory",
        "forks.lock",
        "forks.toml",
        "patches",
        "scripts",
        "src",
    }


def options(command: str) -> set[str]:
    return set(re.findall(r"(?<!\S)(--[a-z-]+|-[a-z])\b", command))


def test_the_readme_builds_and_runs_every_image() -> None:
    shown = re.sub(r"\\\n\s+", "", README)
    for name in IMAGES:
        assert f"-f docker/{name}.Dockerfile" in shown
        assert re.search(rf"docker run .*patchwheel:{name}", shown)
    arguments = set(re.findall(r"--build-arg \"?([A-Z_0-9]+)", shown))
    declared = {a for t in TEXTS.values() for a in re.findall(r"^ARG (\w+)", t, re.MULTILINE)}
    assert arguments <= declared
    assert {"REVISION", "LOCK_SHA256", "HCC_AMDGPU_TARGET"} <= arguments
    [amd] = re.findall(r"docker run .*patchwheel:rocm.*", shown)[:1]
    for words in ("--device=/dev/kfd", "--device=/dev/dri", "--group-add video"):
        assert words in amd
    assert "--gpus all" in shown


def test_compose_gives_what_the_run_commands_give() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    for name in IMAGES:
        assert f"dockerfile: docker/{name}.Dockerfile" in text
        assert f"image: patchwheel:{name}" in text
    assert "devices: [/dev/kfd, /dev/dri]" in text
    assert "driver: nvidia" in text


def test_the_scripts_are_programs_that_a_shell_reads() -> None:
    names = ("entrypoint", "hip-base", "make-environment", "need-python", "rocm-libraries")
    for name in (*names, "test.sh"):
        path = DOCKER / name
        assert os.access(path, os.X_OK), name
        support.run("bash" if name == "test.sh" else "sh", "-n", path, status=0)


def run(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=env, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return a folder for PATH with what every system has, and no more."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "sed", "mktemp", "rm", "tail", "cat"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def test_a_base_without_the_python_is_refused_by_name(programs: Path) -> None:
    script, manifest = DOCKER / "need-python", ROOT / "forks.toml"
    said = run(script, manifest, PATH=str(programs))
    assert (said.returncode, "no apt-get" in said.stderr) == (7, True)
    support.write(programs, {"apt-get": "#!/bin/sh\necho no such package >&2\nexit 100\n"})
    (programs / "apt-get").chmod(0o755)
    said = run(script, manifest, PATH=str(programs))
    assert said.returncode == 7
    assert "BASE_IMAGE has no python3.12" in said.stderr
    assert "no such package" in said.stderr
    (programs / "apt-get").write_text("#!/bin/sh\n")
    said = run(script, manifest, PATH=str(programs))
    assert said.returncode == 7
    assert "python3.12 that is not complete" in said.stderr
    support.write(programs, {"python3.12": "#!/bin/sh\nexit 0\n"})
    (programs / "python3.12").chmod(0o755)
    assert run(script, manifest, PATH=str(programs)).returncode == 0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"LOCK_SHA256": "0"}, "REVISION is not given"),
        ({"REVISION": "1"}, "LOCK_SHA256 is ''"),
        ({"REVISION": "1", "LOCK_SHA256": "0" * 64}, "expected forks.lock's"),
    ],
)
@pytest.mark.skipif(Path("/opt/tool").exists(), reason="an image's build stage")
def test_a_label_that_would_lie_stops_the_build(given: dict[str, str], named: str) -> None:
    said = subprocess.run(
        [DOCKER / "make-environment"],
        cwd=ROOT,
        env={"PATH": os.defpath, **given},
        check=False,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 2
    assert named in said.stderr


def test_the_image_for_rocm_is_the_project_with_another_variant_of_cupy() -> None:
    ours = load_manifest(ROOT / "forks.toml")
    rocm = ours.with_variant("rocm7")
    assert {n: f for n, f in rocm.forks.items() if f != ours.forks[n]} == {
        "cupy": ours.forks["cupy"].variants["rocm7"]
    }
    assert rocm.forks["cupy"].programs == ("hipcc",)
    assert "HCC_AMDGPU_TARGET" not in rocm.forks["cupy"].env
    assert rocm.forks["cupy"].required_env == ("HCC_AMDGPU_TARGET",)
    assert TEXTS["rocm"].count("make-environment wheels --variant rocm7\n") == 1
    assert TEXTS["rocm"].count("make-environment --variant rocm7 ") == 1


def test_the_lock_has_all_that_the_image_for_rocm_needs() -> None:
    ours = load_manifest(ROOT / "forks.toml")
    manifest = ours.with_variant("rocm7")
    lock = load_lock(ROOT / "forks.lock")
    packages = {d.name for d in lock.environment(manifest, "3.12").packages}
    assert {"numpy", "matplotlib"} <= packages
    bases = {n: lock.fork(fork, "3.12").base for n, fork in manifest.forks.items()}
    assert all(bases.values())
    assert str(bases["cupy"] and bases["cupy"].filename).startswith("cupy_rocm_7_0-")
    # It is the same pin, so the same tree.
    assert lock.entry(manifest.forks["cupy"]).tree == lock.entry(ours.forks["cupy"]).tree


@pytest.mark.compiled
def test_an_image_gets_the_libraries_that_are_loaded_and_no_compiler(tmp_path: Path) -> None:
    rocm, image = tmp_path / "rocm-7.2.1", tmp_path / "image"
    (tmp_path / "rocm").symlink_to(rocm)
    headers = tmp_path / "headers"
    answer = f"#include <...> search starts here:\n {headers}\nEnd of search list.\n"
    support.write(
        rocm,
        {
            "bin/hipcc": f"#!/bin/sh\ncat >&2 <<'END'\n{answer}END\n",
            "bin/clang": "",
            "lib/rocblas/library/k_gfx90a.dat": "",
            "lib/rocblas/library/k_gfx90a-xnack+.dat": "",
            "lib/rocblas/library/k_gfx906.dat": "",
            "lib/rocblas/library/k_gfx1100.dat": "",
            "lib/rocblas/library/names.dat": "",
        },
    )
    (rocm / "bin/hipcc").chmod(0o755)
    support.write(headers, {"hip/hip_runtime.h": ""})
    module = image / "opt/env/lib/python3.12/site-packages/cupy/core.so"
    module.parent.mkdir(parents=True)

    def library(path: Path, *needed: str) -> None:
        linked = [f"-l:{name}" for name in needed]
        words = ["gcc", "-shared", "-nostdlib", f"-Wl,--no-as-needed,-soname,{path.name}"]
        words += ["-x", "c", os.devnull, "-o", str(path), f"-L{rocm}/lib", *linked]
        subprocess.run(words, check=True)

    library(rocm / "lib/libdeep.so.1")
    library(rocm / "lib/libamdhip64.so.7", "libdeep.so.1")
    library(rocm / "lib/libhiprtc.so.7")
    library(rocm / "lib/libamd_comgr.so.3")
    library(rocm / "lib/libunused.so.1")
    library(module, "libamdhip64.so.7")
    script = [DOCKER / "rocm-libraries", tmp_path / "rocm", image, "gfx90a:sramecc+,gfx1100"]
    said = run(*map(str, script), PATH=os.environ["PATH"])
    assert said.returncode == 0, said.stderr
    out = image / "opt/rocm"
    assert {p.name for p in (out / "lib").glob("*.so*")} == {
        "libamdhip64.so.7",
        "libdeep.so.1",
        "libhiprtc.so.7",
        "libamd_comgr.so.3",
    }
    assert {p.name for p in (out / "lib/rocblas/library").iterdir()} == {
        "k_gfx90a.dat",
        "k_gfx90a-xnack+.dat",
        "k_gfx1100.dat",
        "names.dat",
    }
    assert [p.name for p in (out / "bin").iterdir()] == ["hipcc"]
    assert (image / headers.relative_to("/") / "hip/hip_runtime.h").exists()
    assert (out / "hipcc-answer").read_text() == answer
    assert "no compiler" in run(str(out / "bin/hipcc"), "x.cpp", PATH=os.defpath).stderr

    (rocm / "lib/libdeep.so.1").unlink()
    (rocm / "lib/libhiprtc.so.7").unlink()
    said = run(*map(str, script), PATH=os.environ["PATH"])
    assert said.returncode == 7
    assert "BASE_IMAGE lacks libraries" in said.stderr
    assert "libdeep.so.1 libhiprtc.so" in said.stderr


def test_a_disk_that_is_too_small_is_said_before_anything_is_built(tmp_path: Path) -> None:
    head = "#!/bin/sh\n"
    tools = {
        "id": "echo 0",
        "df": "echo; echo /dev/x 100 90 1234 90% /",
        "buildah": "",
        "debootstrap": f"touch {tmp_path}/called",
    }
    support.write(tmp_path / "bin", {n: head + text for n, text in tools.items()})
    for name in tools:
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "KEEP": str(tmp_path / "work")}
    done = support.run(DOCKER / "test.sh", "cuda", status=7, env=env)
    assert "cuda takes 20 GB" in done.stderr
    assert "1234 MB are free" in done.stderr
    assert not (tmp_path / "called").exists()


@pytest.mark.heavy
@pytest.mark.network
@pytest.mark.parametrize("name", IMAGES)
def test_the_images_build_and_are_as_they_must_be(name: str) -> None:
    if os.getuid() or not shutil.which("buildah"):
        pytest.skip("needs root and buildah")
    python = find_interpreter("3.12", progress=Progress()).path
    support.run(DOCKER / "test.sh", name, status=0, env={"PYTHON": str(python)})
