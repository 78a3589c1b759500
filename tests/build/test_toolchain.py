from pathlib import Path

import pytest

from patchwheel.build import toolchain
from patchwheel.kit.errors import MachineError
from patchwheel.kit.store import Store


class FakeCompiler:
    """A gcc that is a script, with a pass and a library of its own, and a count of its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.calls = folder / "calls"
        for name in ("cc1", "libgomp.so"):
            (folder / name).write_text(name)
        script = f"""\
            #!/bin/sh
            echo "$@" >> {self.calls}
            case "$1" in
                --version) echo "gcc (fake) 12.2.0"; echo "Copyright" ;;
                -print-prog-name=cc1) echo {folder}/cc1 ;;
                -print-file-name=libgomp.so) echo {folder}/libgomp.so ;;
                -print-*=*) echo "${{1#*=}}" ;;
            esac
            """
        for name in ("gcc", "g++"):
            self.program(name, script)

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text("\n".join(line.strip() for line in text.splitlines()))
        path.chmod(0o755)

    def count(self) -> int:
        return len(self.calls.read_text().splitlines())


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    compiler = FakeCompiler(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{compiler.folder}:/usr/bin:/bin")
    return compiler


def test_a_tool_is_asked_once(fake: FakeCompiler, store: Store) -> None:
    first = toolchain.identify(["gcc", "gcc"], store=store)
    calls = fake.count()
    assert toolchain.identify(["gcc"], store=store) == first
    assert fake.count() == calls
    assert first["gcc"].version == "gcc (fake) 12.2.0"
    assert first["gcc"].program == fake.folder / "gcc"


@pytest.mark.parametrize("part", ["cc1", "libgomp.so"])
def test_what_is_behind_the_driver_counts(fake: FakeCompiler, store: Store, part: str) -> None:
    before = toolchain.key(toolchain.identify(["gcc"], store=store))
    (fake.folder / part).write_text("another one")
    assert toolchain.key(toolchain.identify(["gcc"], store=store)) != before
    (fake.folder / part).unlink()
    assert toolchain.key(toolchain.identify(["gcc"], store=store)) != before


def test_the_place_of_a_compiler_does_not_count(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = set()
    for name in ("one", "other"):
        compiler = FakeCompiler(tmp_path / name)
        # The same bytes at another place.
        compiler.program(
            "gcc",
            """\
            #!/bin/sh
            case "$1" in
                -print-prog-name=cc1) echo "$(dirname "$0")/cc1" ;;
                *) echo "gcc (fake) 12.2.0" ;;
            esac
            """,
        )
        monkeypatch.setenv("PATH", f"{compiler.folder}:/usr/bin:/bin")
        keys.add(toolchain.key(toolchain.identify(["gcc"], store=store)))
    assert len(keys) == 1


def test_cc_and_a_launcher_are_honoured(
    fake: FakeCompiler, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = toolchain.identify(["gcc"], store=store)["gcc"]
    fake.program("launcher", '#!/bin/sh\nexec "$@"\n')
    monkeypatch.setenv("CC", f"launcher {fake.folder}/gcc")
    found = toolchain.identify(["gcc"], store=store)["gcc"]
    assert found.words == ("launcher", f"{fake.folder}/gcc")
    assert found.program == fake.folder / "gcc"
    assert found.identity != plain.identity


def test_everything_missing_is_one_error_with_the_command(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain, "_manager", lambda: "apt")
    with pytest.raises(MachineError) as caught:
        toolchain.identify(["gcc", "gfortran"], store=store, fork="demo")
    assert caught.value.message == "demo: cannot compile: gcc and gfortran are not installed"
    assert "sudo apt-get install gcc libc6-dev gfortran" in str(caught.value)
    assert "patchwheel doctor" in str(caught.value)


def test_a_library_is_what_pkg_config_has(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lib, script = tmp_path / "lib", tmp_path / "pkg-config"
    lib.mkdir()
    (lib / "geos.pc").write_text("Version: 3.11")
    (lib / "libgeos_c.so").write_text("elf")
    script.write_text(f"""#!/bin/sh
case "$*" in
    "--exists geos") ;;
    "--modversion geos") echo 3.11 ;;
    "--variable=pcfiledir geos" | "--variable=libdir geos") echo {lib} ;;
    "--libs-only-l geos") echo -lgeos_c ;;
    *) echo "no $*" >&2; exit 1 ;;
esac
""")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    name = "pkg-config:geos"
    found = toolchain.identify([name], store=store)[name]
    assert (found.program, found.version) == (script, "3.11")
    assert toolchain.identify([name], store=store)[name] == found
    for file in ("geos.pc", "libgeos_c.so"):
        (lib / file).write_text(f"another {file}")
        again = toolchain.identify([name], store=store)[name]
        assert again.identity != found.identity
        found = again
    with pytest.raises(MachineError, match="demo: cannot compile: pkg-config:proj is not"):
        toolchain.identify(["pkg-config:proj"], store=store, fork="demo")
    commands = []
    for manager in ("apt", "dnf", ""):
        monkeypatch.setattr(toolchain, "_manager", lambda manager=manager: manager)
        commands.append(toolchain.install_command(["pkg-config:libproj"]))
    assert commands == [
        "sudo apt-get install pkg-config libproj-dev",
        "sudo dnf install 'pkgconfig(libproj)'",
        "install libproj with your distribution's package manager",
    ]
    script.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolchain.find(name) is None


def test_a_compiler_that_does_not_run_is_named(fake: FakeCompiler, store: Store) -> None:
    fake.program("gcc", "#!/bin/sh\necho broken >&2\nexit 3\n")
    with pytest.raises(MachineError, match="does not work") as caught:
        toolchain.identify(["gcc"], store=store)
    assert caught.value.tail == ("broken",)


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=ubuntu\nID_LIKE=debian", "sudo apt-get install g++ gfortran"),
        ('ID="rocky"\nID_LIKE="rhel centos"', "sudo dnf install gcc-c++ gcc-gfortran"),
        ("ID=other", "install g++ gfortran with your distribution's package manager"),
        (None, "install g++ gfortran with your distribution's package manager"),
    ],
)
def test_the_command_is_the_distributions(
    release: str | None, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "os-release"
    if release is not None:
        file.write_text(release)
    monkeypatch.setattr(toolchain, "OS_RELEASE", file)
    assert toolchain.install_command(["g++", "gfortran"]) == command


def test_nvcc_brings_the_programs_beside_it(tmp_path: Path, store: Store) -> None:
    bin_ = tmp_path / "cuda" / "bin"
    bin_.mkdir(parents=True)
    nvcc = bin_ / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.2, V13.2.86'\n")
    nvcc.chmod(0o755)
    (bin_ / "ptxas").write_text("one")
    before = toolchain.identify_program("nvcc", [str(nvcc)], nvcc, store=store)
    assert "release 13.2" in before.version
    (bin_ / "ptxas").write_text("other")
    after = toolchain.identify_program("nvcc", [str(nvcc)], nvcc, store=store)
    assert before.identity != after.identity
