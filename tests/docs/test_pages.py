"""What README and docs/ say can be typed exists: commands, flags, values, links, files."""

import contextlib
import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from reading import PAGES, ROOT, SHELL, blocks, broken_links, commands, ours, spans

from convert import __main__ as convert_commands
from flaxseg import cli
from flaxseg.errors import FlaxsegError
from flaxseg.models import get_config
from flaxseg.planning.command import PlanSettings
from flaxseg.training import TrainConfig
from flaxseg.training.config import parse_overrides

PLACEHOLDERS = {"NAME": "ccnet", "KEY=VALUE": "remat=true", "DIR": "folder", "N": "2"}
"""Words that stand for a value of the reader's."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

SETTINGS = [field.name for field in dataclasses.fields(TrainConfig)]


class Parsed(Exception):
    """The command line was read."""


@pytest.fixture
def only_parse(monkeypatch, tmp_path):
    """Commands read their arguments, and do nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("model: segformer_b0\n")
    plain = cli.parse

    def parse(*args, **options):
        plain(*args, **options)
        raise Parsed

    def done(*args):
        raise Parsed

    for module in (cli, convert_commands):
        monkeypatch.setattr(module, "parse", parse)
    monkeypatch.setattr(PlanSettings, "__call__", done)

    def check(args):
        name, *rest = [PLACEHOLDERS.get(arg, arg) for arg in args]
        rest = [arg for arg in rest if arg != "--help"]
        with monkeypatch.context() as own:
            if name in ("train", "plan", "groups"):
                own.setattr(cli, "parse", plain)
            if name in ("train", "groups"):
                config = cli.parse_train_config(rest)
                get_config(config.model, **parse_overrides(config.override))
                return
            if name not in cli.COMMANDS:
                raise FlaxsegError(f"no command {name}")
            with contextlib.suppress(Parsed):
                cli.COMMANDS[name](rest, f"flaxseg {name}")

    return check


def mistakes(text, check):
    """Commands of a page that would be refused, with the reason."""
    found = []
    for block in blocks(text):
        for command in commands(block):
            found += _refused(command, check)
            if block.language in SHELL and not ours(command):
                found += [f"{command}: {what}" for what in _others(shlex.split(command, True))]
    for span in spans(text):
        if re.match(r"(flaxseg|python train\.py|python -m convert) ", span):
            found += _refused(span, check, mention=True)
        elif re.match(r"(python benchmarks/|python -m convert\.|make |pip install )", span):
            found += [f"{span}: {what}" for what in _others(shlex.split(span, True))]
    return found


def _refused(command, check, mention=False):
    for args in ours(command):
        args = [arg for arg in args if arg != "..."]
        if mention and all(re.fullmatch("[a-z]+", arg) for arg in args[:2]) and len(args) <= 2:
            if args[0] not in cli.COMMANDS:
                yield f"{command}: no such command"
            continue
        try:
            check(args)
        except FlaxsegError as error:
            # Prose leaves out what does not matter there.
            if not (mention and "required" in str(error)):
                yield f"{command}: {error}"


def _others(words):
    """What is wrong with a command that is not ours."""
    scripts = [w for w in words if re.match(r"benchmarks/\w+\.py$|convert\.\w+$", w)]
    for word in scripts:
        path = ROOT / (word if "/" in word else f"{word.replace('.', '/')}/__main__.py")
        if not path.exists():
            yield f"{word} does not exist"
            continue
        # Some scripts hand on the flags of a training.
        source = _sources(path) + "".join(f'"--{name.replace("_", "-")}"' for name in SETTINGS)
        flags = {w.partition("=")[0] for w in words if w.startswith("--")}
        yield from (f"{flag} is no flag of {word}" for flag in flags if f'"{flag}"' not in source)
    if words[:1] == ["make"]:
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        yield from (f"no target {w}" for w in words[1:] if w not in targets)
    if words[:2] == ["pip", "install"]:
        named = re.findall(r"\[([\w,]+)\]", " ".join(words[2:]))
        extras = {extra for names in named for extra in names.split(",")}
        yield from (f"no extra {e}" for e in extras - set(PROJECT["optional-dependencies"]))


def _sources(path):
    """The script, and what it takes from beside it."""
    return "".join(p.read_text() for p in [path, *path.parent.glob("*.py")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_accepted(page, only_parse):
    assert mistakes(page.read_text(), only_parse) == []


@pytest.mark.parametrize(
    "text, message",
    [
        ("```sh\npython train.py --model ccnet --learning-rate 1\n```", "--learning-rate"),
        ("```sh\npython train.py --model ccnett\n```", "ccnet"),
        ("```sh\npython train.py --model ccnet --override widht=3\n```", "widht"),
        ("```sh\nsrun -n 8 python train.py --model ccnet --epochs many\n```", "many"),
        ("```sh\nflaxseg predict model photo.jpg \\\n    --windows 3 3\n```", "--windows"),
        ("```sh\nflaxseg evaluate model\n```", "evaluate"),
        ("```\n$ flaxseg data check\n```", "required"),
        ("```sh\npython benchmarks/sped.py\n```", "does not exist"),
        ("```sh\npython benchmarks/speed.py --round 2\n```", "--round"),
        ("```sh\nmake tests\n```", "no target"),
        ("Say `flaxseg convert import FILE out --verfy`.", "--verfy"),
        ("Say `flaxseg guess`.", "guess"),
        ("Say `pip install 'flaxseg[gpu]'`.", "gpu"),
        ('```sh\ngcloud ssh --command="cd f && python train.py --modl setr"\n```', "--modl"),
    ],
)
def test_a_wrong_command_is_found(text, message, only_parse):
    (found,) = mistakes(text, only_parse)
    assert message in found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert broken_links(page, page.read_text()) == []


def test_a_broken_link_is_found():
    page = ROOT / "docs" / "data.md"
    links = "[a](photos.md#prediction) [b](fotos.md) [c](photos.md#predictoin) [d](#Nowhere)"
    assert broken_links(page, links) == ["fotos.md", "photos.md#predictoin", "#Nowhere"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page):
    assert _missing_files(page.read_text()) == []


def test_a_missing_file_is_found():
    assert _missing_files("See `tests/data/test_coco.py` and `ops/guess.py`.") == ["ops/guess.py"]


def _missing_files(text):
    """Files of the repository by their path, or by that below flaxseg/."""
    named = [s for s in spans(text) if re.fullmatch(r"[a-z0-9_./-]+/[a-z0-9_]+\.py", s)]
    places = [Path(), Path("flaxseg"), Path("docs")]
    return [n for n in named if not any((ROOT / place / n).exists() for place in places)]
