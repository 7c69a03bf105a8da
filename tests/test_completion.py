"""A real bash completes flaxseg's command lines."""

import shutil
import subprocess

import pytest

from flaxseg import cli

TAB = """
source "$0"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
registered=$(complete -p "$1")
function=${registered#*-F }
${function% *} "$1" "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "$registered" "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    from flaxseg.completion import arguments_of, script

    path = tmp_path_factory.mktemp("completion") / "flaxseg.sh"
    commands = {name: arguments_of(run) for name, run in cli.COMMANDS.items()}
    path.write_text(script("flaxseg", commands, "bash"))
    return path


@pytest.fixture
def tab(script):
    def offered(*words):
        run = subprocess.run(
            ["bash", "-c", TAB, script, "flaxseg", *words],
            capture_output=True,
            text=True,
            check=True,
        )
        registered, *found = run.stdout.splitlines()
        assert "-o default" in registered  # files, where nothing is offered
        return [word for word in found if word]

    return offered


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["predict", "--wr"], ["--write"]),
        (["predict", "model", "photo.jpg", "--write", "mask", "ov"], ["overlay"]),
        (["convert", "im"], ["import"]),
        (["plan", "--topo"], ["--topology"]),
        (["predict", "runs/"], []),
    ],
)
def test_what_was_begun_is_completed(tab, words, expected):
    assert tab(*words) == expected


def test_all_commands_are_offered(tab):
    assert {*tab("")} - {"-h", "--help"} == {*cli.COMMANDS}


def test_the_command_prints_the_script(script, capsys):
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out.strip() == script.read_text().strip()
    assert cli.main(["completion", "ksh"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
