"""What a shell needs to complete the words of a program with subcommands."""

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union

import tyro

Shell = Literal["bash", "zsh", "fish"]

_MORE = {
    # tyro's function gives one empty word where it knows none, which keeps bash from files' names.
    "bash": """
_{prog}_or_files() {{
  _tyro_{prog} "$@"
  [[ ${{#COMPREPLY[@]}} -eq 1 && -z ${{COMPREPLY[0]}} ]] && COMPREPLY=()
  return 0
}}
complete -o bashdefault -o default -F _{prog}_or_files {prog}
"""
}


WHAT: Sequence[str] = [""]
"""In place of a command's arguments it asks for what they are read into."""


class Asked(Exception):
    """Raised by who reads arguments and gets `WHAT`: the type, and the options of `tyro.cli`."""


def arguments_of(command: Callable[[Sequence[str], str], Any]) -> tuple[Any, dict[str, Any]]:
    """What a command, which first of all reads its arguments, reads them with: see `Asked`."""
    try:
        command(WHAT, "")
    except Asked as asked:
        return asked.args[0], asked.args[1]
    raise AssertionError(f"{command} does not read its arguments first")


def script(prog: str, commands: Mapping[str, tuple[Any, Mapping[str, Any]]], shell: Shell) -> str:
    """A script after which a shell completes a program's command lines.

    Args:
        prog: name of the program, letters only.
        commands: of each subcommand what `tyro.cli` is called with: a type, and options of which
            `default` counts here.
        shell: that reads the script.
    """
    types = [
        Annotated[target, tyro.conf.subcommand(name, default=options.get("default", tyro.MISSING))]
        for name, (target, options) in commands.items()
    ]
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        choice: Any = Union[*types]
        tyro.cli(choice, prog=prog, args=["--tyro-print-completion", shell])
    # tyro's scripts take each line of a help text for a word to offer.
    lines = re.sub("^COMPLETION_SPEC = .*$", _without_breaks, text.getvalue(), flags=re.MULTILINE)
    return lines + _MORE.get(shell, "").format(prog=prog)


def _without_breaks(line: re.Match[str]) -> str:
    return line[0].replace(r"\n", " ")
