"""The entry point: finds the command, and turns errors into exit codes."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from pathlib import Path

import click

from patchwheel import __version__
from patchwheel.cli.console import CONSOLE, UTF8
from patchwheel.kit import PatchwheelError, disk_error

# The module of this package that has the commands of a group, and their names.
GROUPS = {
    "Start": ("starting", "init", "add", "remove"),
    "Build": ("building", "plan", "build", "env", "test", "shell"),
    "Change patches": ("series", "dev", "export", "import"),
    "Follow upstream": ("series", "status", "rebase", "propose", "submit"),
    "Publish": ("release", "verify", "index", "release", "ci"),
    "Maintain": ("maintenance", "lock", "doctor", "cache", "cluster"),
}
COMMANDS = {name: module for module, *names in GROUPS.values() for name in names}


class LazyGroup(click.Group):
    """Imports only the module of the command that runs, as in click's documentation."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  (the signature is click's)
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"patchwheel.cli.{COMMANDS[cmd_name]}")
        # `import` is no name for a function.
        name = "import_" if cmd_name == "import" else cmd_name
        command: click.Command = getattr(module, name)
        command.epilog = _examples(cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, (_, *names) in GROUPS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(n.ljust(width), c.get_short_help_str(200)) for n, c in commands if c]
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
def cli() -> None:
    """Keep patched forks of compiled Python libraries alive.

    Exit codes: 0 ok, 1 internal error, 2 usage or manifest, 3 patch, 4 input, 5 build,
    6 a check failed, 7 the machine.

    Limits of a build step: PATCHWHEEL_LIMIT_TIME, _SILENCE, _LOG, _DISK, _MEMORY, _PROCESSES.
    Of a download: PATCHWHEEL_LIMIT_DOWNLOAD.
    """


def _examples(name: str) -> str:
    """Return the end of a command's help; click keeps the lines after a backspace."""
    lines = Path(__file__).with_name("examples.txt").read_text("utf-8").splitlines()
    return "\n".join(["\b", "Examples:", *(f"  {x}" for x in lines if x.split()[1] == name)])


def main() -> None:
    """Run the command line, and end as other programs do where nobody reads it any longer."""
    out = sys.stdout
    if sys.getfilesystemencoding() != "utf-8" and sys.orig_argv[1:3] != UTF8:
        # Archives, git and our own records name files in UTF-8, whatever the locale says.
        os.execv(sys.executable, [sys.executable, *UTF8, *sys.orig_argv[1:]])  # noqa: S606
    try:
        _run()
    except (BrokenPipeError, SystemExit) as end:
        # click makes a failure of it, and replaces the streams.
        if isinstance(end, SystemExit) and sys.stdout is out:
            raise
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        # The first process of a container gets no such signal.
        os._exit(128 + signal.SIGPIPE)


def _run() -> None:
    """Run a command; the one place that sets exit codes."""
    # What a command imports and reads is no garbage: to look for it takes a twentieth of a no-op.
    gc.set_threshold(20_000, 20, 20)
    # A CI job that is cancelled gets SIGTERM: it ends as with Ctrl-C, child processes included.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli.main(standalone_mode=False)
    except (PatchwheelError, OSError) as err:
        # What a full disk or a folder that cannot be written raises, wherever it is met.
        if not (error := disk_error(err) if isinstance(err, OSError) else err):
            raise
        CONSOLE.close()
        CONSOLE.say(f"error: {error}")
        sys.exit(error.exit_code)
    # Wrong usage, which click words itself.
    except click.ClickException as err:
        err.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        CONSOLE.close()
        CONSOLE.say("interrupted; rerun the command to continue")
        sys.exit(130)
