import subprocess
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.pylock import Pylock

from patchwheel.kit import process, uv
from patchwheel.kit.errors import InputError, MachineError
from patchwheel.kit.interpreter import Interpreter
from patchwheel.kit.store import Store
from patchwheel.kit.uv import Distribution, IndexConfig
from tests.fixtures.contexts import make_context
from tests.fixtures.support import Recorder, make_index, make_wheel, program, sha256


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    folder, requires = tmp_path / "wheels", ["pw-alpha", 'pw-gamma; extra == "more"']
    return [
        make_wheel(folder, "pw-alpha", "1.0", {"pw_alpha.py": "x = 1\n"}),
        make_wheel(folder, "pw-alpha", "1.1", {"pw_alpha.py": "x = 2\n"}),
        make_wheel(folder, "pw-beta", "2.0", {"pw_beta.py": "x = 3\n"}, requires=requires),
    ]


@pytest.fixture
def index(tmp_path: Path, wheels: list[Path]) -> IndexConfig:
    return IndexConfig(urls=(make_index(tmp_path / "simple", *wheels),))


@pytest.fixture
def python(tmp_path: Path, interpreter: Interpreter) -> Path:
    return uv.make_venv(tmp_path / "venv", interpreter, log=tmp_path / "log")


def locked(wheel: Path) -> str:
    return f"{wheel.name.partition('-')[0]} @ {wheel.as_uri()} --hash=sha256:{sha256(wheel)}"


def versions(python: Path) -> str:
    script = "from importlib.metadata import distributions as d; "
    script += "print(*sorted(x.name + x.version for x in d()))"
    return subprocess.check_output([python, "-c", script], text=True).strip()


def install(python: Path, requirements: list[str], **options: Any) -> None:
    context = make_context(Store(python.parent / "store"), **options)
    uv.install(context, python, requirements, log=python.parent / "log")


def test_two_installations_do_not_download_the_same_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = [0], [0]

    def run(*_: object, **__: object) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.1)
        running[0] -= 1

    monkeypatch.setattr(uv, "_uv", run)
    (tmp_path / "bin").mkdir()
    calls = [process.started(lambda: install(tmp_path / "bin" / "python", [])) for _ in range(2)]
    for call in calls:
        call(20)
    assert most == [1]


def resolve(
    requirements: list[str],
    interpreter: Interpreter,
    log: Path,
    constraints: tuple[str, ...] = (),
    **options: Any,
) -> tuple[Distribution, ...]:
    context = make_context(Store(log.parent / "store"), interpreter=interpreter, **options)
    return uv.resolve(context, requirements, what="pw", constraints=constraints, log=log)


def test_an_environment_has_the_interpreter_and_nothing_else(
    python: Path, interpreter: Interpreter
) -> None:
    assert python.resolve() == interpreter.path
    assert versions(python) == ""


def test_a_relocatable_environment_is_marked_so(tmp_path: Path, interpreter: Interpreter) -> None:
    folder = tmp_path / "venv"
    uv.make_venv(folder, interpreter, log=tmp_path / "log", relocatable=True)
    assert "relocatable = true" in (folder / "pyvenv.cfg").read_text()


def test_an_environment_that_cannot_be_made_says_why(
    tmp_path: Path, interpreter: Interpreter
) -> None:
    broken = Interpreter(path=tmp_path / "none", version="3.12.1")
    with pytest.raises(MachineError, match="cannot make an environment") as caught:
        uv.make_venv(tmp_path / "venv", broken, log=tmp_path / "log")
    assert caught.value.tail
    assert caught.value.log == tmp_path / "log"


def test_a_wheel_goes_in_by_url_and_hash(python: Path, wheels: list[Path]) -> None:
    install(python, [locked(wheels[0])])
    assert versions(python) == "pw-alpha1.0"


def test_new_bytes_under_an_equal_version_go_in_when_the_url_differs(
    tmp_path: Path, python: Path
) -> None:
    for content in ("x = 1\n", "x = 2\n"):
        folder = tmp_path / sha256(content.encode())
        wheel = make_wheel(folder, "pw-alpha", "1.0", {"pwa.py": content})
        install(python, [locked(wheel)])
    said = subprocess.check_output([python, "-c", "import pwa; print(pwa.x)"])
    assert said == b"2\n"


def test_other_bytes_than_locked_are_refused(
    python: Path, index: IndexConfig, wheels: list[Path]
) -> None:
    lines = [
        f"pw-alpha==1.0 --hash=sha256:{sha256(b'other')}",
        f"pw-alpha @ {wheels[0].as_uri()} --hash=sha256:{sha256(b'other')}",
    ]
    for line in lines:
        with pytest.raises(InputError, match="cannot install") as caught:
            install(python, [line], index=index)
        assert "hash" in "\n".join(caught.value.tail).lower()
    assert versions(python) == ""


def test_nothing_goes_in_without_a_hash(
    python: Path, index: IndexConfig, wheels: list[Path]
) -> None:
    with pytest.raises(InputError):
        install(python, ["pw-alpha==1.0"], index=index)
    assert versions(python) == ""
    install(python, [f"pw-alpha==1.0 --hash=sha256:{sha256(wheels[0])}"], index=index)
    assert versions(python) == "pw-alpha1.0"


def test_dependencies_are_left_out(python: Path, wheels: list[Path], index: IndexConfig) -> None:
    install(python, [locked(wheels[2])], index=index)
    assert versions(python) == "pw-beta2.0"


def test_a_missing_file_is_an_error_of_the_input(tmp_path: Path, python: Path) -> None:
    missing = (tmp_path / "pw_alpha-1.0-py3-none-any.whl").as_uri()
    with pytest.raises(InputError, match="cannot install"):
        install(python, [f"pw-alpha @ {missing} --hash=sha256:{sha256(b'x')}"])


def test_offline_says_that_a_first_run_must_not_be(python: Path) -> None:
    nowhere = IndexConfig(urls=("https://nowhere.invalid/simple",))
    with pytest.raises(InputError) as caught:
        install(python, [f"pw-alpha==1 --hash=sha256:{sha256(b'x')}"], index=nowhere, offline=True)
    assert "--offline" in str(caught.value.hint)


def test_a_full_disk_is_an_error_of_the_machine(
    tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = program(tmp_path / "uv", "echo 'error: No space left on device (os error 28)'; exit 2")
    monkeypatch.setattr(uv, "uv_bin", lambda: fake)
    with pytest.raises(MachineError, match="no room"):
        install(python, [])


def test_downloads_become_progress(
    tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "echo 'Downloading a (3MiB)'; echo 'Downloading b (1.5KiB)'\n"
    fake = program(tmp_path / "uv", f"{script}echo ' Downloaded a'; echo; echo ' Downloaded b'")
    monkeypatch.setattr(uv, "uv_bin", lambda: fake)
    report = Recorder()
    install(python, [], progress=report)
    total = (3 << 20) + 1536
    assert [(done, whole) for _, done, whole in report.steps] == [
        (0, 3 << 20),
        (0, total),
        (3 << 20, total),
        (total, total),
    ]


def test_resolution_names_versions_and_the_hashes_of_what_fits(
    tmp_path: Path, index: IndexConfig, wheels: list[Path], interpreter: Interpreter
) -> None:
    found = resolve(["pw-beta"], interpreter, tmp_path / "log", index=index)
    assert found == (
        Distribution(name="pw-alpha", version="1.1", hashes=(sha256(wheels[1]),)),
        Distribution(name="pw-beta", version="2.0", hashes=(sha256(wheels[2]),)),
    )


def test_constraints_bind(tmp_path: Path, index: IndexConfig, interpreter: Interpreter) -> None:
    log = tmp_path / "log"
    lower = resolve(["pw-beta"], interpreter, log, index=index, constraints=("pw-alpha<1.1",))
    assert lower[0].version == "1.0"


def test_wheels_in_a_folder_are_resolved_and_hashed(
    tmp_path: Path, wheels: list[Path], interpreter: Interpreter
) -> None:
    folder = IndexConfig(find_links=(str(wheels[0].parent), str(tmp_path / "missing")))
    index = IndexConfig(urls=((tmp_path / "gone").as_uri(),), find_links=folder.find_links)
    for places in (folder, index):
        words = uv.index_arguments(places)
        assert words == ["--no-index", "--find-links", str(wheels[0].parent)]
    found = resolve(["pw-alpha==1.0"], interpreter, tmp_path / "log", index=folder)
    assert found[0].hashes == (sha256(wheels[0]),)


def test_what_cannot_be_resolved_is_explained(
    tmp_path: Path, index: IndexConfig, interpreter: Interpreter
) -> None:
    with pytest.raises(InputError, match="no set of versions") as caught:
        resolve(["pw-alpha>=7"], interpreter, tmp_path / "log", index=index)
    assert "pw-alpha>=7" in "\n".join(caught.value.tail)
    assert caught.value.hint is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ('archive = {url = "https://x/a.tar.gz", hashes = {sha256 = "0"}}', "pw-alpha: no wheel"),
        (
            'wheels = [{url = "https://x/pw_alpha-1-py3-none-any.whl", hashes = {md5 = "0"}}]',
            "pw-alpha: no wheel",
        ),
        ("wheels = []", "not valid: .*packages"),
    ],
)
def test_a_file_without_a_sha256_cannot_be_locked(tmp_path: Path, files: str, message: str) -> None:
    package = f'[[packages]]\nname = "pw-alpha"\nversion = "1"\n{files}\n'
    with pytest.raises(InputError, match=message):
        uv._distributions(f'lock-version = "1.0"\ncreated-by = "uv"\n{package}', tmp_path / "log")


def test_pylock_says_where_each_file_is(
    tmp_path: Path, index: IndexConfig, wheels: list[Path], interpreter: Interpreter
) -> None:
    store = Store(tmp_path / "store")
    context = make_context(store, interpreter=interpreter, index=index, offline=True)
    lines = ["pw-alpha==1.0", f"pw-beta @ {wheels[2].as_uri()}"]
    text = uv.pylock(context, lines, "--no-deps", log=tmp_path / "log")
    pylock = Pylock.from_dict(tomllib.loads(text))
    alpha, beta = pylock.packages
    assert alpha.wheels
    assert alpha.wheels[0].hashes == {"sha256": sha256(wheels[0])}
    assert beta.archive
    assert beta.archive.hashes == {"sha256": sha256(wheels[2])}


def test_unmet_requirements_are_found(tmp_path: Path, python: Path, wheels: list[Path]) -> None:
    def run(argv: Sequence[str | Path]) -> None:
        process.logged(argv, cwd=tmp_path, env={}, log=tmp_path / "log")

    install(python, [locked(wheels[2])])
    (problem,) = uv.conflicts(python, run=run)
    assert "pw-alpha" in problem
    install(python, [locked(wheels[0])])
    assert uv.conflicts(python, run=run) == []
    with pytest.raises(InputError, match="cannot check"):
        uv.conflicts(tmp_path / "none", run=run)


def test_the_main_index_comes_first_and_no_index_means_none() -> None:
    places = IndexConfig(urls=("https://main.example/simple", "https://more.example/simple"))
    assert uv.index_arguments(places) == [
        "--default-index",
        "https://main.example/simple",
        "--index",
        "https://more.example/simple",
    ]
    assert uv.index_arguments(IndexConfig()) == ["--no-index"]
    equal = IndexConfig(urls=places.urls[:1], equal=True)
    assert uv.index_arguments(equal)[2:] == ["--index-strategy", "unsafe-best-match"]
