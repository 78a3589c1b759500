"""Write docs/reference/commands.md, and a table of environment.md, from the command line itself."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click

from patchwheel.cli.main import GROUPS, cli

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "commands.md"
VARIABLES = PAGE.with_name("environment.md")
EVERYWHERE = {"manifest_path", "python_option", "offline", "jobs", "sandbox", "verbose"} | {
    "compile_cache",
    "untrusted",
}
# An option of more commands is one of all that work on a project.
MANY = 8
HEAD = """\
# Commands

What `patchwheel COMMAND --help` says, in one page. `scripts/commands_page.py` writes it.

Results go to standard output, the rest to standard error; what is no terminal gets UTF-8 in any
locale. An option with a variable, in brackets, can be set by it; there are
[other variables](environment.md), too. The [exit codes](failures.md) say what kind of failure it
was.

These options are of every command that works on a project:

"""
COMPLETION = """
## Completion

bash, zsh and fish complete commands, options and the names of the project's forks. For bash, in
`~/.bashrc`:

    eval "$(_PATCHWHEEL_COMPLETE=bash_source patchwheel)"

for zsh, in `~/.zshrc`, and for fish, in `~/.config/fish/completions/patchwheel.fish`:

    eval "$(_PATCHWHEEL_COMPLETE=zsh_source patchwheel)"
    _PATCHWHEEL_COMPLETE=fish_source patchwheel | source
"""


def page() -> str:
    """Return the page: each group of commands, and in it each command."""
    context = click.Context(cli, info_name="patchwheel")
    plan = cli.get_command(context, "plan")
    assert plan is not None
    everywhere = [option for option in options(plan) if option.name in EVERYWHERE]
    parts = [HEAD, table(everywhere), COMPLETION]
    for title, (_, *names) in GROUPS.items():
        parts.append(f"\n## {title}\n")
        for name in names:
            command = cli.get_command(context, name)
            assert command is not None
            parts.append(section(command, f"patchwheel {name}"))
            if isinstance(command, click.Group):
                parts += [
                    section(sub, f"patchwheel {name} {word}")
                    for word, sub in command.commands.items()
                ]
    return "".join(parts)


def with_variables(text: str) -> str:
    """Return the page of environment variables with the table of those that set an option."""
    context, found = click.Context(cli), dict[str, tuple[str, list[str]]]()
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        for option in options(command) if command else ():
            if option.envvar:
                row = found.setdefault(str(option.envvar), (option.opts[-1], []))
                row[1].append(name)
    rows = ["| variable | option | of |", "| --- | --- | --- |"]
    for variable, (option_name, names) in sorted(found.items()):
        of = "every command on a project" if len(names) > MANY else ", ".join(names)
        rows.append(f"| `{variable}` | `{option_name}` | {of} |")
    between = "(?s)(?<=<!-- variables of options -->\n).*?(?=<!-- end of variables -->)"
    return re.sub(between, "\n".join(rows) + "\n", text)


def section(command: click.Command, path: str) -> str:
    """Return the part of the page for one command."""
    words = [p.make_metavar(click.Context(command)) for p in command.params if is_argument(p)]
    text = inspect.cleandoc(command.help or "")
    own = [option for option in options(command) if option.name not in EVERYWHERE]
    usage = " ".join([path, *words])
    parts = [f"\n### `{usage.strip()}`\n\n{text}\n"]
    if own:
        parts.append(f"\n{table(own)}")
    if command.epilog:
        lines = [line.strip() for line in command.epilog.splitlines()[2:]]
        parts.append("\n" + "".join(f"    {line}\n" for line in lines))
    return "".join(parts)


def options(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option)]


def is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)


def table(rows: list[click.Option]) -> str:
    lines = ["| option | meaning |", "| --- | --- |"]
    for option in rows:
        names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
        takes = "" if option.is_flag or option.count else f" {metavar(option)}"
        variable = f" [`{option.envvar}`]" if option.envvar else ""
        lines.append(f"| {names}{takes} | {option.help}{variable} |")
    return "\n".join(lines) + "\n"


def metavar(option: click.Option) -> str:
    found = option.make_metavar(click.Context(cli))
    # A bar would end the cell of a table.
    return f"`{found.strip('[]').replace('|', '`, `') if '|' in found else found}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    VARIABLES.write_text(with_variables(VARIABLES.read_text(encoding="utf-8")), encoding="utf-8")
