"""`flaxseg eval --report` and `flaxseg compare`: the files, and what stands in them."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console

from flaxseg import cli, native
from flaxseg.data.shapes import LABELS, SPLITS
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference import PerImage
from flaxseg.inference.more_metrics import METRICS
from flaxseg.inference.record import Record
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.models import create_model
from flaxseg.report import command, compare_models, page, report_evaluation
from flaxseg.report.pictures import WRONG, errors_uri, labels_uri

TINY = {"backbone.widths": (4,), "backbone.depths": (1,), "channels": 4}
TINY |= {"backbone.heads": (1,), "backbone.reductions": (4,)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two training runs on `shapes`, cut to five scenes, the report of one, and its record."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        model = create_model("segformer_b0", LABELS.num_classes, rngs=nnx.Rngs(seed), **TINY)
        native.save(model, folder / f"run{seed}" / "model", labels=LABELS)
        config = {"data": "shapes", "batch_size": 3, "eval_size": [24, 16], "split": "val"}
        (folder / f"run{seed}" / "config.json").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPLITS, "val", 5)
        records = []
        patch.setattr(command, "Record", lambda: records.append(Record()) or records[-1])
        scores = report_evaluation(
            folder / "run0", folder / "report", metrics=("boundary_iou", "micro_iou")
        )
        patch.setattr(command, "Record", Record)
        yield SimpleNamespace(folder=folder, scores=scores, record=records[0])


class References(HTMLParser):
    """Everything in a page that a browser would fetch or run."""

    def __init__(self, text):
        super().__init__()
        self.found, self.images, self.styles = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "iframe", "object", "base"), tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in ("src", "href", "srcset", "data", "action"):
                self.found.append(value)
        if tag == "img":
            self.images.append(dict(attrs))


def assert_stands_alone(text):
    references = References(text)
    assert all(value.startswith("data:") for value in references.found)
    assert not re.search(r"url\(|@import|https?://", text)
    for image in references.images:
        assert image["alt"]
        Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).load()
    return references


def test_a_report_holds_what_was_found(runs):
    scores, report = runs.scores, runs.folder / "report"
    assert sorted(f.name for f in report.iterdir()) == [
        "per_image.npz",
        "report.html",
        "scores.json",
    ]
    per_image = PerImage.load(report / "per_image.npz")
    assert len(per_image.names) == 5
    np.testing.assert_array_equal(per_image.matrices.sum(0), scores.matrix)
    about = json.loads((report / "scores.json").read_text())
    assert about["scores"] == json.loads(json.dumps(scores.to_dict()))
    assert about["settings"]["eval_size"] == [24, 16]
    assert (about["settings"]["data"], about["settings"]["split"]) == ("shapes", "val")
    assert about["versions"].keys() == {"flaxseg", "jax", "flax", "numpy", "python"}


def test_the_page_stands_alone_and_shows_it(runs):
    scores = runs.scores
    text = (runs.folder / "report" / "report.html").read_text()
    references = assert_stands_alone(text)
    assert len(references.images) == 1 + 4 * 5  # confusion, and four of each scene
    for value in (*scores.iou, scores.miou, scores.mean_dice, *scores.by_class["boundary_iou"]):
        if not np.isnan(value):
            assert f">{100 * value:.2f}<" in text
    for name in (*LABELS.classes, "eval_size", "24 16", page.FORMULAS["micro_iou"]):
        assert name in text
    assert page.FORMULAS["soft_iou"] not in text
    assert "prefers-color-scheme: dark" in text


def test_every_metric_has_a_formula():
    assert METRICS.keys() <= page.FORMULAS.keys()


def test_names_are_text(runs, monkeypatch):
    """Of classes and files, whatever they hold."""
    odd = LabelSet("<b>", ("<script>", *LABELS.classes[1:]), LABELS.palette)
    monkeypatch.setattr(runs.record, "labels", odd)
    monkeypatch.setattr("flaxseg.data.shapes.Shapes.name", lambda self, i: f'"><img src=x{i}>')
    text = page.report_page(runs.record)
    assert_stands_alone(text)
    assert "&lt;script&gt;" in text


def test_a_page_that_would_be_too_large_gets_smaller_pictures(runs, monkeypatch):
    sides = []
    monkeypatch.setattr(page, "confusion_uri", lambda *_: "data:,")
    monkeypatch.setattr(page, "photo_uri", lambda image, side: sides.append(side) or "data:,")
    monkeypatch.setattr(page, "MAX_BYTES", len(page.report_page(runs.record).encode()) - 1)
    sides.clear()
    with pytest.raises(DataError, match="the page would be larger than .* the smallest pictures"):
        page.report_page(runs.record)
    assert sides == np.repeat(page._SIDES, 5).tolist()


def test_wrong_pixels_are_red_and_label_maps_have_their_colours():
    photo = np.full((40, 60, 3), 90, np.uint8)
    label = np.zeros((40, 60), np.uint8)
    label[:, :20], label[:8] = 1, IGNORE
    prediction = np.zeros((40, 60), np.uint8)

    def decoded(uri):
        return np.asarray(
            Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
        )

    errors = decoded(errors_uri(photo, label, prediction, 30)).astype(int)
    assert errors.shape == (20, 30, 3)
    assert np.abs(errors[12, 4] - WRONG).max() < 12
    assert errors[12, 20].min() > 170  # right: pale
    assert errors[1, 1].max() < 70  # without a label, though the prediction says something
    colors = decoded(labels_uri(label, LABELS, 60))
    np.testing.assert_array_equal(colors[20, 5], LABELS.palette[1])
    np.testing.assert_array_equal(colors[20, 40], LABELS.palette[0])


def test_models_and_reports_are_compared(runs, tmp_path, capsys):
    """The first one by its report, which needs no model any more; the other one by its run."""
    folder = runs.folder
    shutil.copytree(folder / "report", tmp_path / "a")
    args = [tmp_path / "a", folder / "run1", "--report", tmp_path / "out", "--resamples", "100"]
    assert cli.main(["compare", *map(str, args)]) == 0
    out = capsys.readouterr().out
    values = json.loads((tmp_path / "out" / "compare.json").read_text())
    both = compare_models(folder / "run0", folder / "run1", resamples=100, report=tmp_path / "b")
    assert values["miou"]["difference"] == both.difference[-1]
    assert (values["miou"]["low"], values["miou"]["high"]) == (both.low[-1], both.high[-1])
    assert page.points(both.difference[-1]) in out and "95 % interval" in out
    shown = (tmp_path / "out" / "compare.html").read_text()
    assert page.points(both.low[-1]) in shown
    assert not assert_stands_alone(shown).images  # a folder has no pictures
    moved = (np.nan_to_num(both.pictures) != 0).sum()
    assert len(assert_stands_alone((tmp_path / "b" / "compare.html").read_text()).images) == (
        4 * moved
    )


def test_a_model_gains_nothing_over_itself(runs):
    folder = runs.folder
    console = Console(width=120)
    with console.capture() as capture:
        same = compare_models(folder / "report", folder / "report", console=console)
    assert (same.difference[-1], same.low[-1], same.high[-1]) == (0, 0, 0)
    assert "lost most: none" in capture.get()


def test_what_was_seen_in_another_way_is_refused(runs):
    folder = runs.folder
    options = {"eval_size": (16, 24), "resamples": 5}
    message = "eval_size is 24 16 for A and 16 24 for B: evaluate both with the same settings"
    with pytest.raises(ConfigError, match=message):
        compare_models(folder / "report", folder / "run1", **options)
    with pytest.raises(DataError, match="was another one for A than for B"):
        compare_models(folder / "report", folder / "run1", other_settings=True, **options)


def test_other_classes_and_damaged_reports_are_refused(runs, tmp_path):
    folder = runs.folder
    shutil.copytree(folder / "report", tmp_path / "other")
    path = tmp_path / "other" / command.SCORES_FILE
    about = json.loads(path.read_text())
    about["labels"]["classes"][1] = "zebra"
    path.write_text(json.dumps(about))
    with pytest.raises(DataError, match=f"class 1 is '{LABELS.classes[1]}' for A and 'zebra' for"):
        compare_models(folder / "report", tmp_path / "other")
    path.write_text("{")
    with pytest.raises(DataError, match=r"scores.json cannot be read .*: evaluate again"):
        compare_models(folder / "report", tmp_path / "other")


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="--report .*file is a file: choose another name"):
        report_evaluation("no model", tmp_path / "file")
    with pytest.raises(DataError, match="--report .*below cannot be written to"):
        compare_models("no model", "none", report=tmp_path / "file" / "below")
