"""The figures and tables of the networks are those that the models give today."""

import importlib.util

import pytest
from reading import ROOT


@pytest.fixture(scope="module")
def draw():
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs" / "draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["ccnet", "setr", "segformer", "bisenetv2", "vitseg"])
def test_what_is_committed_is_what_is_drawn(page, draw):
    for path, text in draw.written(page).items():
        assert path.read_text() == text, f"{path.name} is old: python docs/draw.py"


def test_lines_are_what_stages_read(draw):
    stages = {stage.name: stage for stage in draw.trace("bisenetv2", (64, 64))}
    joined = stages["backbone.aggregation"]
    assert set(joined.reads) == {"backbone.detail.stages.2", "backbone.semantic.context"}
    assert joined.shape == (8, 8, 128)
    assert stages["logits"].reads == ("head",) and stages["aux 3"].shape == (64, 64, 19)


def test_a_part_that_nobody_draws_is_an_error(draw, monkeypatch):
    monkeypatch.setitem(draw.STAGES, "ccnet", ["backbone.stages.*", "head", "aux_head"])
    with pytest.raises(AssertionError, match=r"no stage has backbone\.stem"):
        draw.trace("ccnet_r50", (64, 64))
