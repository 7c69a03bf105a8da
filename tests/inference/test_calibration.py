"""The temperature of a network is the one with the lowest loss, and is where it is used."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from scipy.special import log_softmax, softmax

from flaxseg import cli, native
from flaxseg.data import Batch, EvalTransform, Shapes
from flaxseg.data.shapes import LABELS, SPLITS
from flaxseg.errors import DataError
from flaxseg.inference.calibration import BINS, calibrate
from flaxseg.labels import IGNORE
from flaxseg.model_dir import CONFIG_FILE, read_header, store_temperature
from flaxseg.models import create_model, eval_view
from flaxseg.preprocess import Preprocess

PIXELS = (60, 80)
TOO_SURE = 2.5


def logits_of(model, image):
    return np.asarray(jax.jit(eval_view(model))(Preprocess()(image)).logits, np.float64)


def numpy_reliability(logits, label, temperature):
    """Loss and expected calibration error, bin by bin."""
    known = label != IGNORE
    logits, label = logits[known] / temperature, label[known].astype(int)
    loss = -np.take_along_axis(log_softmax(logits, -1), label[:, None], -1).mean()
    confidence, right = softmax(logits, -1).max(-1), logits.argmax(-1) == label
    error = 0
    for low in np.arange(BINS) / BINS:
        inside = (confidence > low) & (confidence <= low + 1 / BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return loss, error


@pytest.fixture
def batches(pixel_model):
    """Two batches whose labels are drawn by the model's own probabilities at a temperature."""
    pixel_model.norm.scale[...] = np.full(4, 3.0)
    rng = np.random.default_rng(0)
    made = []
    for _ in range(2):
        image = rng.integers(0, 256, (3, *PIXELS, 3), np.uint8)
        share = softmax(logits_of(pixel_model, image) / TOO_SURE, -1).cumsum(-1)
        label = (rng.random((3, *PIXELS, 1)) > share[..., :-1]).sum(-1).astype(np.uint8)
        label[:, :4] = IGNORE
        made.append(Batch(image, label, np.float32([1, 1, 0]), np.arange(3, dtype=np.int32)))
    return made


def test_the_factor_by_which_logits_are_too_large_is_found(pixel_model, labels, batches):
    passes = []

    def found(start=None):
        return calibrate(
            pixel_model,
            lambda: passes.append(1) or batches,
            labels=labels,
            preprocess=Preprocess(),
            start=start,
        )

    first = found()
    assert first.temperature == pytest.approx(TOO_SURE, rel=0.05) and len(passes) <= 4
    assert first.better and first.after.nll < first.before.nll and first.after.ece < 0.03
    logits = np.concatenate([logits_of(pixel_model, b.image)[:2] for b in batches])
    label = np.concatenate([b.label[:2] for b in batches])
    for temperature, told in ((1.0, first.before), (first.temperature, first.after)):
        np.testing.assert_allclose(told, numpy_reliability(logits, label, temperature), rtol=1e-4)
    for factor in (0.98, 1.02):
        near = numpy_reliability(logits, label, factor * first.temperature)
        assert near[0] > first.after.nll
    again = found(first.temperature)
    assert again.before.nll == pytest.approx(first.after.nll, rel=1e-6)
    for part in (pixel_model.norm.scale, pixel_model.norm.bias):
        part[...] = 3 * part[...]
    assert found().temperature == pytest.approx(3 * first.temperature, rel=2e-3)


def test_what_tells_no_temperature_is_refused(pixel_model, labels, batches):
    def found(label):
        changed = [batches[0]._replace(label=label)]
        calibrate(pixel_model, lambda: changed, labels=labels, preprocess=Preprocess())

    label = batches[0].label
    with pytest.raises(DataError, match="no pixel of the pictures is labelled"):
        found(np.full_like(label, IGNORE))
    best = logits_of(pixel_model, batches[0].image).argmax(-1).astype(np.uint8)
    with pytest.raises(DataError, match=r"temperature is below 0\.0625: .* right, so"):
        found(best)
    worst = logits_of(pixel_model, batches[0].image).argmin(-1).astype(np.uint8)
    with pytest.raises(DataError, match="temperature is above 16: .* by guessing"):
        found(worst)
    with pytest.raises(DataError, match="label 9 in sample 0 is outside"):
        found(np.full_like(label, 9))


TINY = {"backbone.widths": (4,), "backbone.depths": (1,), "channels": 4}
TINY |= {"backbone.heads": (1,), "backbone.reductions": (4,)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose network says the same of every pixel, twice the logarithms of the shares; and
    these."""
    monkeypatch.setitem(SPLITS, "val", 3)
    see = EvalTransform((24, 16))
    maps = [see(example).label for example in map(Shapes("val").__getitem__, range(3))]
    share = np.bincount(np.ravel(maps), minlength=LABELS.num_classes) / np.size(maps)
    share = np.maximum(share, 1e-6)
    model = create_model("segformer_b0", LABELS.num_classes, rngs=nnx.Rngs(0), **TINY)
    arrays = native.state_dict(model)
    arrays["head.classifier.weight"] = 0 * arrays["head.classifier.weight"]
    arrays["head.classifier.bias"] = 2 * np.log(share)
    native.save(native.fill(model, arrays), tmp_path / "model", labels=LABELS)
    config = {"data": "shapes", "batch_size": 2, "eval_size": [24, 16]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path, share


def test_the_command_stores_it_and_predict_takes_it(run, capsys):
    folder, share = run
    report = folder / "report"
    assert cli.main(["eval", str(folder), "--calibrate", "--report", str(report)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    temperature = read_header(folder / "model").temperature
    assert temperature == pytest.approx(2, rel=2e-3)
    assert "temperature 1 -> 2" in told and "stored in" in told
    about = json.loads((report / "scores.json").read_text())
    assert about["temperature"] == temperature
    assert about["calibration"]["after"]["nll"] < about["calibration"]["before"]["nll"]
    assert "expected calibration error" in (report / "report.html").read_text()
    Image.fromarray(np.zeros((24, 16, 3), np.uint8)).save(folder / "photo.png")
    out = str(folder / "out")
    words = ["predict", str(folder), str(folder / "photo.png"), "--out", out]
    assert cli.main([*words, "--write", "confidence"]) == 0
    with Image.open(folder / "out" / "photo_confidence.png") as picture:
        wanted = 255 * softmax(2 * np.log(share) / temperature).max()
        assert np.abs(np.asarray(picture, float) - wanted).max() <= 1
    store_temperature(folder / "model", 2.0)  # the best one to all digits
    before = (folder / "model" / CONFIG_FILE).read_bytes()
    assert cli.main(["eval", str(folder), "--calibrate"]) == 0
    assert "no better: not stored" in " ".join(capsys.readouterr().out.split())
    assert (folder / "model" / CONFIG_FILE).read_bytes() == before
