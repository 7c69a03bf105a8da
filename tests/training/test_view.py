"""Runs that look at their validation pictures at another size, through windows."""

import pytest

from flaxseg.errors import ConfigError
from flaxseg.inference import evaluate_dir, read_image
from flaxseg.training import fit
from flaxseg.training.logging import read_rows
from flaxseg.training.setup import Setup

VIEW = {
    "eval_size": None,
    "eval_base_size": (40, 48),
    "eval_multiple": 16,
    "eval_window": (32, 32),
    "eval_stride": (16, 32),
}


def test_the_run_and_the_command_see_the_same(tiny_run, quiet, tmp_path):
    config = tiny_run(workdir=str(tmp_path / "run"), epochs=1, limit=8, **VIEW)
    fit(config, quiet)
    assert Setup.of(config).datasets.eval_transform.seen_size((96, 96)) == (48, 48)
    (row,) = [row for row in read_rows(config.directory / "metrics.csv") if row["miou"]]
    scores = evaluate_dir(config.directory)
    assert float(row["miou"]) == scores.miou
    for name in config.metrics:
        assert float(row[name]) == pytest.approx(scores.more[name], rel=1e-6)
    # Labels and predictions at the label maps' own size, the photo stretched to it.
    assert read_image(config.directory / "overlays" / "epoch_001.png").shape[0] > 96


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eval_multiple": 2}, "--eval-size stretches pictures to one size"),
        ({"eval_size": None, "eval_stride": (4, 4)}, "--eval-stride is of windows: give"),
        ({"eval_window": (4, 4), "eval_stride": (4, 5)}, "--eval-stride 5 leaves pixels out"),
        ({"metrics": ("micro_iou:box",)}, "shapes has no class 'box'"),
        ({"metrics": ("miou",)}, "--metrics 'miou' is unknown; did you mean"),
    ],
)
def test_settings_that_do_not_fit(tiny_run, tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        fit(tiny_run(workdir=str(tmp_path / "run"), **fields))
    assert not (tmp_path / "run").exists()
