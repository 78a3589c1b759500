"""Compiles a wheel with the project's own backend, and makes it independent of the machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from patchwheel import build
from patchwheel.kit import BuildError, CheckError
from patchwheel.plan import Plan
from patchwheel.wheel.fit import MAGIC, read_library
from patchwheel.wheel.graft import UnlabelledWheel, tell_undone
from patchwheel.wheelfile import CompileRecord, Entry, WheelFile, check_record, make_entry

# auditwheel asks a module for its C library, and gives up on one that calls nothing of it, such as
# a small one of the limited API; a wheel that was compiled here is for this machine's.
AUDITWHEEL = """
import platform, sys
from auditwheel import main, main_repair
if platform.libc_ver()[0] == "glibc":
    main_repair.get_wheel_libc = lambda _: main_repair.Libc.GLIBC
sys.exit(main.main())
"""


def compile_wheel(plan: Plan) -> UnlabelledWheel:
    """Build the plan's tree, and check the relocated wheel."""
    inputs = plan.inputs
    assert inputs  # noqa: S101  (a complete plan that builds anything has them)
    with inputs.session("compile") as session:
        session.checkout(plan.tree.source, plan.tree.tree)
        required = [build.static_build_requirements(session.system(), session.fork)]
        python = inputs.context.interpreter.version
        for requirements in (*required, session.requirements()):
            build.check_satisfied(session.fork, requirements, inputs.versions, python=python)
        name = session.build_wheel()
        tell_undone(plan, session)
        plain = session.take_wheel(name)
        if not plan.inventory.compiles(plan.fork) and not name.endswith("-any.whl"):
            message = f"{plan.fork.name}: its wheel was pure Python, and the series compiles code"
            hint = 'add `programs = ["gcc"]` to its table in forks.toml: it then has a compiler'
            raise BuildError(message, expected="a wheel for any platform", hint=hint)
        if not name.endswith("-any.whl") and not any(
            entry.content().startswith(MAGIC) for entry in plain.entries.values()
        ):
            message = f"{plan.fork.name}: its build made a wheel for one platform without a library"
            hint = "install what the build looked for and did not find, such as a library"
            raise BuildError(message, log=session.log, hint=hint)
        wheel = session.take_wheel(relocate(name, session))
        record, counts = build.build_record(inputs, session), session.counts()
        draft = checked_draft(wheel, record)
        draft.entries.update({e.name: e for e in without_run_paths(draft, session)})
    wheel = replace(wheel, entries=draft.entries)
    check_relocated(wheel, [inputs.context.store.root], home=Path.home())
    # Before relocation: only so can a library be compared with the same one of another build.
    built = {
        name: entry.sha256
        for name, entry in plain.entries.items()
        if name in inputs.build.inventory.built or entry.content().startswith(MAGIC)
    }
    record = replace(record, built=built)
    return replace(draft, compiled=record, counts=counts, log=session.log)


def without_run_paths(draft: UnlabelledWheel, session: build.BuildSession) -> Iterator[Entry]:
    """Give the libraries that auditwheel left with run paths of this machine, without these."""
    # It bundles nothing for them: they need none.
    for entry in draft.entries.values():
        if (content := entry.content()).startswith(MAGIC):
            paths = [*filter(None, read_library(content).run_path.split(":"))]
            kept = [path for path in paths if path.startswith("$ORIGIN")]
            if kept != paths:
                words = ["--set-rpath", ":".join(kept)] if kept else ["--remove-rpath"]
                data = session.patchelf(words, content)
                yield make_entry(entry.name, data, mode=entry.mode, date=entry.date)


def checked_draft(wheel: WheelFile, record: CompileRecord) -> UnlabelledWheel:
    """Take a finished wheel as a draft, each file compared with RECORD."""
    check_record(wheel)
    # Of modes only the executable bit is kept: the rest comes from our own umask.
    entries = {
        name: replace(entry, mode=0o755 if entry.mode & 0o100 else 0o644)
        for name, entry in wheel.entries.items()
    }
    return UnlabelledWheel(made_from=wheel, entries=entries, tags=wheel.name.tags, compiled=record)


def relocate(name: str, session: build.BuildSession) -> str:
    """Give a wheel the libraries that other machines lack, and the lowest true platform tag.

    Takes and returns the path of a wheel below the build directory.
    """
    if name.endswith("-any.whl"):
        return name
    inside, target = session.build_dir.inside, session.build_dir.work / "repaired"
    words: list[str | Path] = [session.python, "-c", AUDITWHEEL, "repair"]
    # CUDA comes from wheels of its own, and its driver from the machine.
    words += [word for library in build.cuda.LIBRARIES for word in ("--exclude", library)]
    session.step([*words, "--wheel-dir", inside / target.name, inside / name])
    found = sorted(target.glob("*.whl"))
    if len(found) != 1:
        raise BuildError(f"auditwheel made {len(found)} wheels of {name}", log=session.log)
    return f"{target.name}/{found[0].name}"


def check_relocated(wheel: WheelFile, machine: Iterable[Path], *, home: Path) -> None:
    """Raise CheckError when a library of the wheel names a place of this machine.

    No byte string may be one of the `machine`'s paths, or the path of something that is in `home`.
    """
    # /build, where every build takes place, is allowed in a message (an assertion's file name): it
    # tells nothing of a machine.
    places = [str(path) for path in machine if len(path.parts) > 1]
    # Anybody's documentation may say /root or /home/user: only what is there betrays the machine.
    below = re.compile(rb"(?<![\w./-])" + re.escape(os.fsencode(home)) + rb"/+([\w.+@-]+)")
    for entry in wheel.entries.values():
        content = entry.content()
        if not content.startswith(MAGIC):
            continue
        found = [place for place in places if place.encode() in content]
        names = {os.fsdecode(name) for name in below.findall(content)} if home.parts[1:] else ()
        found += [f"{home / name}" for name in sorted(names) if (home / name).exists()]
        if found:
            raise CheckError(
                f"{entry.name} holds {found[0]}",
                where=wheel.path.name,
                expected=f"no path of this machine ({build.INSIDE} in messages excepted)",
                hint="find its origin; -ffile-prefix-map or an option of the project can remove it",
            )
