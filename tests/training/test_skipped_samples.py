"""A run on data with gaps tells of them before its first step, and goes on with the same ones."""

import numpy as np
import pytest
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.training import fit
from flaxseg.training.setup import open_datasets
from flaxseg.training.workdir import FitResult


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """Twenty-five pairs of which three cannot be used."""
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "cache"))
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for kind, shape in {"images": (32, 32, 3), "masks": (32, 32)}.items():
        (root / kind).mkdir(parents=True)
        for i in range(25):
            values = rng.integers(0, 2, shape, np.uint8) * (100 if kind == "images" else 1)
            Image.fromarray(values).save(root / kind / f"{i:02}.png")
    (root / "classes.txt").write_text("a\nb\n")
    (root / "images/00.png").write_bytes(b"")
    (root / "masks/01.png").unlink()
    Image.new("L", (32, 32), 7).save(root / "masks/04.png")  # one that validates
    return root


class Untrained:
    """Stands in for the loop: nothing is compiled."""

    def __init__(self, setup, *others):
        self.setup = setup

    def train(self):
        return FitResult(None, None, 0, {}, self.setup.config.directory, finished=False)


def test_listed_before_the_first_step(small_run, data_dir, tmp_path, quiet, monkeypatch):
    monkeypatch.setattr("flaxseg.training.loop._Run", Untrained)
    config = {"data": "folder", "data_dir": str(data_dir), "metrics": ()}
    with pytest.raises(DataError, match="1 of 25 pictures in .* has no mask"):
        fit(small_run(workdir=str(tmp_path / "refused"), **config), quiet)
    assert not (tmp_path / "refused").exists()
    fit(small_run(workdir=str(tmp_path / "run"), on_bad_sample="skip", **config), quiet)
    shown = quiet.export_text()
    assert "3 samples left out, listed in" in shown and "images/00.png: is no readable" in shown
    assert "18 training and 4 validation images" in shown
    assert len((tmp_path / "run/skipped.txt").read_text().splitlines()) == 3


def test_order_goes_on_after_a_stop(small_run, data_dir):
    config = small_run(
        data="folder", data_dir=str(data_dir), on_bad_sample="skip", metrics=("soft_iou",)
    )
    whole = iter(open_datasets(config).train_batches)
    batches = [next(whole) for _ in range(5)]
    begun = iter(open_datasets(config).train_batches)
    for _ in range(3):
        next(begun)
    resumed = iter(open_datasets(config).train_batches)
    resumed.set_state(begun.get_state())
    for batch in batches[3:]:
        again = next(resumed)
        np.testing.assert_array_equal(again.index, batch.index)
        np.testing.assert_array_equal(again.image, batch.image)
