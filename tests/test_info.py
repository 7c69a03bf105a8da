"""What `flaxseg info` tells of a model."""

import io
import json

import pytest
from rich.console import Console

from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.cli import main
from flaxseg.info import Part, Parts, count_parts, nearest, print_info, read_info
from flaxseg.labels import LabelSet

LABELS = LabelSet("pets", ("cat", "dog", "sofa", "[grass]", "sky"), ((9, 8, 7),) * 5)


def test_flops_of_a_part_are_those_that_one_counts_by_hand():
    """The head of vitseg is one matrix, of which each of 6 x 4 patches is multiplied."""
    config = small_config("vitseg")
    pixels = config.num_classes * config.patch_size**2
    head = count_parts(config, (32, 48)).head
    assert head.parameters == (config.width + 1) * pixels
    assert head.flops == pytest.approx(2 * 24 * config.width * pixels, rel=0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work directory with a model whose config.json tells more than flaxseg knows."""
    work = tmp_path_factory.mktemp("run")
    config = small_config("ccnet_r50")
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    native.save(model, work / "model", labels=LABELS, name="ccnet_r50")
    file = work / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"licence": "CC-BY-NC-4.0"}))
    return work


def test_json(run, capsys):
    assert main(["info", str(run), "--json", "--size", "33", "47"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == told["like"] == "ccnet_r50"
    assert told["changed"]["backbone.width"] == [8, 64] and "activation" not in told["changed"]
    assert told["labels"]["classes"] == list(LABELS.classes)
    assert told["sizes"] == {"fixed": None, "divisor": 1, "square": False}
    assert told["counted_size"] == [33, 47]
    assert told["flops"] == told["parts"]["backbone"]["flops"] + told["parts"]["head"]["flops"]
    files = (run / "model").iterdir()
    assert told["disk_bytes"] == sum(file.stat().st_size for file in files)
    assert told["more"] == {"licence": "CC-BY-NC-4.0"}
    assert models.config_from_json(told["model"]) == small_config("ccnet_r50")


def test_for_people(run, monkeypatch):
    parts = Parts(Part(3_000_000, 2.5e9), Part(500, 4e9), Part(1000, 1e9))
    monkeypatch.setattr("flaxseg.info.count_parts", lambda config, size: parts)
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True, color_system="truecolor")
    print_info(read_info(run, (33, 47)), console)
    for words in ("backbone.width", "8, not 64", "any size", "CC-BY-NC-4.0", "[grass]", "33 x 47"):
        assert words in text.getvalue()
    rows = [line.split() for line in text.getvalue().splitlines()]
    assert ["a", "prediction", "3,000,500", "6.5"] in rows and ["all", "3,001,500"] in rows
    assert "\x1b[38;2;9;8;7m" in text.getvalue()  # the classes' colour


def test_a_size_that_does_not_fit_is_told(run, capsys, tmp_path):
    assert main(["info", str(tmp_path)]) == 2
    assert "neither a model directory" in capsys.readouterr().err
    config = small_config("vitseg")
    native.save(native.fill(models.abstract_model(config), random_state(config, 0)), tmp_path)
    assert main(["info", str(tmp_path), "--size", "8", "8"]) == 2
    assert "--size 8 8: images of 8x8 pixels do not fit" in capsys.readouterr().err


def test_the_nearest_network():
    config = models.get_config("setr_pup", channels=8)
    assert nearest("mine", config) == ("setr_pup", {"channels": (8, 256)})
    same = models.get_config("segformer_b1")
    assert nearest("segformer_b1", same) == ("segformer_b1", {})
