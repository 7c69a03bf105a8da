"""What each command says of itself, and of a command line that it does not understand."""

import itertools
import re

import pytest

from flaxseg import cli

WIDTH = 100
SCREENS = 100
"""Lines of a help text without groups: two screens."""

LONGEST_GROUP = 75
TITLE = re.compile(r" ([a-z]+ )?(options|arguments|subcommands) *")


def helped(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--help"])
    assert not stop.value.code
    return capsys.readouterr().out.splitlines()


def walk(words, capsys):
    """The words of a command and of all below it, with their help texts."""
    lines = helped(words, capsys)
    yield words, lines
    for line in lines:
        if below := re.match(r"\s+• (\w+)", line):
            yield from walk([*words, below[1]], capsys)


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_is_short_or_in_groups_and_errors_are_one_line(command, capsys):
    found = list(walk([command], capsys))
    assert len(found) == {"convert": 5, "data": 4}.get(command, 1)
    for words, lines in found:
        assert lines[0].startswith(f"usage: flaxseg {' '.join(words)}")
        titles = [at for at, line in enumerate(lines) if TITLE.fullmatch(line)]
        assert titles, words
        groups = [b - a for a, b in itertools.pairwise([*titles, len(lines)])]
        assert len(lines) <= SCREENS or (len(groups) > 5 and max(groups) <= LONGEST_GROUP), words
        assert cli.main([*words, "--no-such-flag"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ")


def test_commands_of_the_same_flags_say_what_they_do(capsys):
    assert len({helped([command], capsys)[2] for command in ("train", "plan", "groups")}) == 3
