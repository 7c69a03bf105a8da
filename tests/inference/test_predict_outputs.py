"""What `flaxseg predict --write` writes, and what it does not write again."""

import csv
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy.special import softmax

from flaxseg import cli, native
from flaxseg.data import Shapes
from flaxseg.errors import ConfigError, DataError
from flaxseg.inference import Predictor, predict_files, read_image
from flaxseg.inference.inputs import find_inputs
from flaxseg.inference.journal import Journal
from flaxseg.inference.pixels import Pixels
from flaxseg.inference.predict import Prepared

KINDS = ("mask", "color", "overlay", "confidence", "probabilities", "coco")
LIMIT = 0.22
ROOT = Path(__file__).parents[2]
SIZES = [(24, 40), (33, 17), (32, 32)]


def draw(folder):
    """Drawn scenes of different sizes, one in a subfolder."""
    (folder / "sub").mkdir(parents=True)
    for i, (name, size) in enumerate(zip(["a", "b", "sub/a"], SIZES, strict=True)):
        Image.fromarray(Shapes("val", image_size=size)[i].image).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def done(model_dir, tmp_path_factory):
    """The folder with photos and outputs of all kinds, to be read only."""
    root = tmp_path_factory.mktemp("outputs")
    draw(root / "photos")
    written = predict_files(
        model_dir, [root / "photos"], root / "out", write=KINDS[::-1], min_confidence=LIMIT
    )
    assert len(written) == 3 * 5 + 2 and all(file.is_file() for file in written)
    assert [file.name for file in written[:2]] == ["a_mask.png", "a_color.png"]
    return root


@pytest.fixture(scope="module")
def expected(model_dir, done):
    """Name -> softmax of the interpolated logits of a photo, in float64."""
    predictor = Predictor(*native.load_with_meta(model_dir))
    photos = {name: read_image(done / "photos" / f"{name}.png") for name in ("a", "b", "sub/a")}
    return {
        name: softmax(predictor.logits(photo).astype(np.float64), -1)
        for name, photo in photos.items()
    }


def opened(path):
    with Image.open(path) as picture:
        return picture.mode, np.asarray(picture)


def test_every_kind_is_the_softmax_of_the_logits(model_dir, done, expected):
    labels = native.load_with_meta(model_dir).labels
    unsure = set()
    for name, probabilities in expected.items():
        highest, out = probabilities.max(-1), done / "out"
        label = np.where(highest < LIMIT, 255, probabilities.argmax(-1))
        assert np.abs(highest - LIMIT).min() > 1e-6  # or the comparison would be open
        unsure |= {*(label == 255).ravel().tolist()}
        mode, mask = opened(out / f"{name}_mask.png")
        assert mode == "P"
        np.testing.assert_array_equal(mask, label)
        mode, confidence = opened(out / f"{name}_confidence.png")
        assert mode == "L"
        assert np.abs(confidence - 255 * highest).max() < 1
        palette = np.zeros((256, 3), np.uint8)
        palette[: labels.num_classes] = labels.palette
        color = read_image(out / f"{name}_color.png")
        np.testing.assert_array_equal(color, palette[label])
        photo = read_image(done / "photos" / f"{name}.png")
        blend = read_image(out / f"{name}_overlay.png")[: len(photo), : photo.shape[1]]
        paint = np.where(label[..., None] == 255, photo, color)
        np.testing.assert_allclose(blend, photo / 2 + paint / 2, atol=1)
        with np.load(out / f"{name}_probabilities.npz") as file:
            assert file["probabilities"].dtype == np.float16
            np.testing.assert_allclose(file["probabilities"], probabilities, rtol=1e-3, atol=1e-4)
            assert tuple(file["classes"]) == labels.classes
    assert unsure == {True, False}


def test_the_summary_has_a_row_for_each_photo(model_dir, done, expected):
    head, *rows = csv.reader(io.StringIO((done / "out" / "summary.csv").read_text()))
    classes = native.load_with_meta(model_dir).labels.classes
    shares = [*classes, "below_min_confidence", "mean_confidence"]
    assert head == ["file", "height", "width", *shares]
    assert [row[0] for row in rows] == [str(done / "photos" / f"{n}.png") for n in expected]
    assert [(int(row[1]), int(row[2])) for row in rows] == SIZES
    for row, (name, probabilities) in zip(rows, expected.items(), strict=True):
        mask = opened(done / "out" / f"{name}_mask.png")[1]
        found = [np.mean(mask == i) for i in (*range(len(classes)), 255)]
        np.testing.assert_allclose([float(x) for x in row[3:-1]], found, atol=1e-6)
        assert float(row[-1]) == pytest.approx(probabilities.max(-1).mean(), abs=2e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_coco_s_regions_are_the_masks(model_dir, done, expected):
    coco = COCO(done / "out" / "coco.json")
    classes = native.load_with_meta(model_dir).labels.classes
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [*enumerate(classes)]
    assert len(coco.imgs) == 3 and min(coco.anns) == 1
    for image, name in zip(coco.loadImgs([1, 2, 3]), expected, strict=True):
        assert image["file_name"] == str(done / "photos" / f"{name}.png")
        mask = np.full((image["height"], image["width"]), 255)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            region = coco.annToMask(annotation) == 1
            assert annotation["area"] == region.sum() and (mask[region] == 255).all()
            mask[region] = annotation["category_id"]
        np.testing.assert_array_equal(mask, opened(done / "out" / f"{name}_mask.png")[1])


@pytest.fixture
def network(monkeypatch):
    """Takes the place of the network: the red of each pixel is its class and its confidence."""
    calls = []

    def prepare(self, image, *, out_size, **_):
        return Prepared((image,), (), out_size)

    def start(self, photos, detail):
        return [see(photo, detail) for photo in photos]

    def see(photo, detail):
        calls.append((photo.pictures[0].shape[:2], photo.out, detail))
        red = np.resize(photo.pictures[0][..., 0], photo.out)
        confidence = None if detail == "label" else (red / 255).astype(np.float32)
        return lambda: Pixels(red % 6, confidence)

    monkeypatch.setattr(Predictor, "prepare", prepare)
    monkeypatch.setattr(Predictor, "room", lambda self, photo, detail: 1)

    monkeypatch.setattr(Predictor, "start", start)
    return calls


@pytest.fixture
def photos(tmp_path):
    return draw(tmp_path / "photos")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_rerun_does_what_is_missing(model_dir, photos, tmp_path, network):
    out = tmp_path / "out"

    def number_of_calls(*, write=KINDS[:2], given=photos, **options):
        before = len(network)
        predict_files(model_dir, [given], out, write=write, **options)
        return len(network) - before

    assert number_of_calls() == 3
    before = contents(out)
    assert number_of_calls() == 0
    assert contents(out) == before
    (out / "sub" / "a_color.png").unlink()
    assert number_of_calls(given=photos / "b.png") == 0
    assert number_of_calls() == 1
    assert contents(out).keys() == before.keys()
    os.utime(photos / "b.png", ns=(0, 0))  # an older file in the place of another is another one
    assert number_of_calls() == 1
    assert number_of_calls(write=("mask",)) == 0
    assert number_of_calls(write=("mask", "coco")) == 3
    shutil.copy(photos / "b.png", tmp_path / "a.png")
    assert number_of_calls(given=tmp_path / "a.png") == 1  # and its outputs replace the others
    assert number_of_calls(write=("mask",)) == 1
    assert number_of_calls(write=("mask",), overwrite=True) == 3
    assert (out / "b_color.png").exists()
    assert number_of_calls() == 3  # the colours that are there may be of other settings


def test_what_a_kill_cut_off_is_done_again(model_dir, photos, tmp_path, network):
    predict_files(model_dir, [photos], tmp_path / "out")
    journal, before = tmp_path / "out" / "photos.jsonl", contents(tmp_path / "out")
    journal.write_bytes(before[journal][:-9])
    predict_files(model_dir, [photos], tmp_path / "out")
    assert len(network) == 4
    assert contents(tmp_path / "out") == before


def test_an_interrupted_run_keeps_what_is_done(model_dir, photos, tmp_path, network, monkeypatch):
    start = Predictor.start

    def interrupted(self, photos, detail):
        if len(network) == 2:
            raise KeyboardInterrupt
        return start(self, photos, detail)

    monkeypatch.setattr(Predictor, "start", interrupted)
    command = [str(word) for word in ("predict", model_dir, photos, "--out", tmp_path / "out")]
    assert cli.main(command) == 130
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(Predictor, "start", start)
    assert cli.main(command) == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 9


def test_other_settings_or_another_model_are_refused(model_dir, photos, tmp_path, network, capsys):
    out, other = tmp_path / "out", shutil.copytree(model_dir, tmp_path / "other")
    predict_files(model_dir, [photos], out)
    before = contents(out)
    mend = "give --overwrite to do all anew, or another folder with --out"
    with pytest.raises(DataError, match=f"out holds .* --alpha 0.5, and now it is 0.4: {mend}$"):
        predict_files(model_dir, [photos], out, alpha=0.4)
    with pytest.raises(DataError, match=r"--out-size own, and now it is \[8, 9\]: "):
        predict_files(model_dir, [photos / "b.png"], out, out_size=(8, 9))
    predict_files(other, [photos], out)  # a copy is the same model
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config, indent=7))
    with pytest.raises(DataError, match=rf"out holds predictions of another model .*: {mend}$"):
        predict_files(other, [photos], out)
    assert contents(out) == before and len(network) == 3
    (out / "predictions.json").write_text("{")
    command = [str(word) for word in ("predict", model_dir, photos, "--out", out)]
    assert cli.main(command) == 2
    assert "predictions.json or photos.jsonl is damaged" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite"]) == 0
    assert contents(out) == before and len(network) == 6


def test_sizes_of_what_is_written(model_dir, photos, tmp_path, network, capsys):
    def sizes(*words):
        out = tmp_path / "-".join(words)
        command = ["predict", model_dir, photos / "a.png", "--out", out, "--max-side", "20"]
        assert cli.main([str(word) for word in (*command, *words)]) == 0
        overlay = read_image(out / "a_overlay.png")
        assert overlay.shape[0] > network[-1][1][0]  # the legend
        return opened(out / "a_mask.png")[1].shape, read_image(out / "a_color.png").shape[:2]

    assert sizes() == sizes("--out-size", "own") == ((24, 40), (24, 40))
    assert sizes("--out-size", "model") == ((12, 20), (12, 20))
    assert sizes("--out-size", "50", "30") == ((50, 30), (50, 30))
    assert [call[1] for call in network] == [(24, 40), (24, 40), (12, 20), (50, 30)]


def test_what_needs_confidence_asks_for_it(model_dir, photos, tmp_path, network):
    photo, label = photos / "a.png", read_image(photos / "a.png")[..., 0]
    for i, (options, detail) in enumerate(
        [
            ({"write": ["mask"]}, "label"),
            ({"write": ["mask"], "min_confidence": 0.5}, "confidence"),
            ({"write": ["confidence"]}, "confidence"),
        ]
    ):
        (*files, summary) = predict_files(model_dir, [photo], tmp_path / str(i), **options)
        assert network[-1][2] == detail
        (row,) = csv.DictReader(io.StringIO(summary.read_text()))
        assert (row["mean_confidence"] == "") == (detail == "label")
        unsure = label / 255 < options.get("min_confidence", 0)
        assert float(row["below_min_confidence"]) == pytest.approx(unsure.mean(), abs=1e-6)
        expected = label if i == 2 else np.where(unsure, 255, label % 6)
        np.testing.assert_array_equal(opened(files[0])[1], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"write": ["masks"]}, "--write masks: no such output; did you mean mask"),
        ({"min_confidence": 60}, "min_confidence is 60, it must be from 0 to 1"),
        ({"out_size": (0, 4)}, r"out_size is \(0, 4\), it must be own, model, or a height and"),
        ({"out_size": "big"}, "out_size is 'big', it must be own, model, or a height and"),
    ],
)
def test_senseless_options_are_refused_before_any_work(model_dir, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        predict_files(model_dir, [tmp_path], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_picture_from_standard_input(model_dir, photos, tmp_path, network, monkeypatch, capsys):
    command = [str(word) for word in ("predict", model_dir, "-", "--out", tmp_path / "out")]
    data = (photos / "a.png").read_bytes()
    for _ in range(2):  # the second one may be another picture, and is done, too
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert cli.main(command) == 0
    assert len(network) == 2
    mask = opened(tmp_path / "out" / "stdin_mask.png")[1]
    np.testing.assert_array_equal(mask, read_image(photos / "a.png")[..., 0] % 6)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert cli.main(command) == 2
    assert "1 of 1 photos cannot be used: stdin: is no readable picture" in capsys.readouterr().err


def test_a_list_of_paths(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("photos/b.png\n\n  photos/sub \nphotos/[a]*\n")
    found = find_inputs(["@list.txt", "-", "photos/b.png"], tmp_path / "out").photos
    paths = [item.path.as_posix() for item in found]
    assert paths == ["photos/b.png", "photos/sub/a.png", "photos/a.png", "stdin"]
    assert [item.stdin for item in found] == [False, False, False, True]
    for text, message in [
        (None, r"^@gone.txt: cannot be read \(No such file or directory\); correct the name"),
        (b"\n\n", "^@gone.txt: is empty; give one path a line"),
        (b"\xff\xd8", "^@gone.txt: is no text in UTF-8; give one path a line"),
    ]:
        if text:
            (tmp_path / "gone.txt").write_bytes(text)
        with pytest.raises(DataError, match=message):
            find_inputs(["@gone.txt"], tmp_path / "out")
    shutil.copy(photos / "b.png", tmp_path / "@b.png")
    assert [str(item.path) for item in find_inputs(["@b.png"], tmp_path / "out").photos] == [
        "@b.png"
    ]


def test_two_processes_share_the_photos(model_dir, photos, tmp_path, cache_dir):
    """Each does its part, the first tells of all, and a bad photo is known to both."""
    (photos / "bad.png").write_text("no picture")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "flaxseg.cli", "predict", model_dir, photos]
    command += ["--out", tmp_path / "two", "--write", "mask", "--num-processes", "2"]
    command += ["--coordinator", f"127.0.0.1:{port}", "--process-id"]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache_dir, "COLUMNS": "300"}
    env["XLA_FLAGS"] = f"{env['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen([*map(str, command), str(i)], env=env, cwd=ROOT, **pipes) for i in (0, 1)
    ]
    ended = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [2, 2]
    assert all("1 of 4 photos cannot be used" in error for _, error in ended)
    with pytest.raises(DataError, match="1 of 4 photos cannot be used"):
        predict_files(model_dir, [photos], tmp_path / "one", write=["mask"])
    names = ["a_mask.png", "b_mask.png", "photos.jsonl", "predictions.json", "sub", "summary.csv"]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == names
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file() and path.suffix != ".jsonl":
            twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
            assert twin.read_bytes() == path.read_bytes()


def test_lines_of_processes_join(tmp_path):
    def record(name, size):
        return {"name": name, "file": name, "state": [size, 0], "kinds": ["mask"]}

    first, second = (Journal(tmp_path, "model", {}, process) for process in (0, 1))
    first.open()
    second.look()
    first.add(record("a", 1))
    second.add(record("b", 2))
    second.add(record("a", 3))
    with (tmp_path / "photos-of-1.jsonl").open("a") as file:
        file.write('{"name": "cut off')
    again = Journal(tmp_path, "model", {})
    again.open()
    found = {each["name"]: each["state"][0] for each in again.records(["a", "b", "cut off"])}
    assert found == {"a": 3, "b": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos.jsonl", "predictions.json"]
    second.add(record("c", 4))
    again.open(overwrite=True)
    assert not [*again.records(["a", "b", "c"])]
