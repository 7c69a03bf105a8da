import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from flaxseg import cli, native
from flaxseg.data import EvalTransform, Shapes, eval_loader
from flaxseg.data.shapes import SPLITS
from flaxseg.errors import CheckpointError, ConfigError, DataError
from flaxseg.inference import (
    Predictor,
    evaluate,
    evaluate_dir,
    predict_files,
    read_image,
    resolve_model_dir,
)
from flaxseg.inference.files import output_names
from flaxseg.inference.windows import Windows
from flaxseg.labels import LabelSet


@pytest.fixture
def photos(tmp_path):
    """Three drawn scenes of different sizes, as files in one folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, size in enumerate([(24, 40), (33, 17), (32, 32)]):
        Image.fromarray(Shapes("val", image_size=size)[i].image).save(folder / f"scene{i}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def workdir(tmp_path, model_dir):
    """What a training run on `shapes` leaves."""
    shutil.copytree(model_dir, tmp_path / "run" / "model")
    config = {"data": "shapes", "data_dir": None, "batch_size": 3, "eval_size": [24, 16]}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


@pytest.fixture
def few_scenes(monkeypatch):
    """The validation set of `shapes`, cut to four scenes."""
    monkeypatch.setitem(SPLITS, "val", 4)


def test_three_pictures_for_each_photo(model_dir, photos, tmp_path):
    out = tmp_path / "new" / "out"
    written = predict_files(model_dir, photos, out)
    assert sorted(written) == sorted(out.iterdir())
    loaded = native.load_with_meta(model_dir)
    predictor = Predictor(*loaded)
    for photo in photos:
        image = read_image(photo)
        label = predictor.labels(image)
        with Image.open(out / f"{photo.stem}_mask.png") as mask:
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.asarray(mask), label)
        colors = np.array(loaded.labels.palette, np.uint8)[label]
        np.testing.assert_array_equal(read_image(out / f"{photo.stem}_color.png"), colors)
        blend = read_image(out / f"{photo.stem}_overlay.png")[: len(image), : image.shape[1]]
        np.testing.assert_allclose(blend, (image / 2 + colors / 2), atol=1)


def test_the_options_reach_the_pictures(model_dir, photos, tmp_path):
    predict_files(model_dir, photos[:1], tmp_path, alpha=0.0, multiple=8, max_side=16)
    image = read_image(photos[0])
    blend = read_image(tmp_path / "scene0_overlay.png")
    np.testing.assert_array_equal(blend[: len(image), : image.shape[1]], image)
    predictor = Predictor(*native.load_with_meta(model_dir), multiple=8)
    with Image.open(tmp_path / "scene0_mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), predictor.labels(image, max_side=16))


@pytest.mark.parametrize(("size", "used"), [(None, (24, 16)), ((16, 40), (16, 40))])
def test_photos_are_stretched_as_in_the_training_run(workdir, photos, tmp_path, size, used):
    predict_files(workdir, photos[:1], tmp_path / "out", size=size)
    predictor = Predictor(*native.load_with_meta(workdir / "model"))
    with Image.open(tmp_path / "out" / "scene0_mask.png") as mask:
        expected = predictor.labels(read_image(photos[0]), size=used)
        np.testing.assert_array_equal(np.asarray(mask), expected)


def test_shrunk_photos_are_named(model_dir, photos, tmp_path):
    console = Console(width=200)
    with console.capture() as capture:
        predict_files(model_dir, photos, tmp_path / "out", max_side=33, console=console)
    (line,) = (line for line in capture.get().splitlines() if "--max-side" in line)
    assert line.endswith("scene0.png: 24 x 40 pixels are segmented at 20 x 33, see --max-side")


def test_a_second_run_replaces_the_first(model_dir, photos, tmp_path):
    first = predict_files(model_dir, photos[:1], tmp_path / "out", alpha=1.0)
    again = photos[0].parent / ".." / "photos" / photos[0].name
    second = predict_files(model_dir, [photos[0], again], tmp_path / "out", alpha=0.0)
    assert len(first) == len(second) == 3
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.jpg", "b/y.jpg"], ["x", "y"]),
        (["a/x.jpg", "b/x.jpg"], ["a_x", "b_x"]),
        (["a/x.jpg", "a/X.png"], ["x_jpg", "X_png"]),
        (["1/a/x.jpg", "2/a/x.jpg"], ["1_a_x_jpg", "2_a_x_jpg"]),
    ],
)
def test_photos_of_one_name_get_different_names(paths, names):
    assert output_names([Path(path) for path in paths]) == names


def test_photos_that_cannot_be_told_apart_are_named():
    with pytest.raises(DataError, match="would be written to a_b_c_jpg_mask.png: predict them"):
        output_names([Path("a/b_c.jpg"), Path("a_b/c.jpg"), Path("a/b/c.jpg"), Path("d/c.jpg")])


def test_all_unreadable_photos_are_named_before_anything_is_written(model_dir, photos, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    bad = [tmp_path / "notes.txt", tmp_path / "nowhere.jpg"]
    message = (
        "2 of 5 images cannot be used: .*notes.txt is not an image .*nowhere.jpg does not exist"
    )
    with pytest.raises(DataError, match=message):
        predict_files(model_dir, [*photos, *bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unreadable_photo_is_one_line_of_the_command(model_dir, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no picture")
    command = ["predict", model_dir, tmp_path / "notes.txt", "--out", tmp_path / "out"]
    assert cli.main([str(word) for word in command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "notes.txt is not an image" in line


def test_no_photo_is_an_error(model_dir, tmp_path):
    with pytest.raises(DataError, match="no image is given: name at least one file"):
        predict_files(model_dir, [], tmp_path / "out")


def test_an_output_folder_that_is_a_file_is_an_error(model_dir, photos):
    with pytest.raises(DataError, match="output folder .*scene1.png is a file: choose another"):
        predict_files(model_dir, photos[:1], photos[1])
    with pytest.raises(DataError, match="output folder .*scene1.png/x cannot be made: Not a dir"):
        predict_files(model_dir, photos[:1], photos[1] / "x")


def test_an_output_never_replaces_an_input(model_dir, photos):
    folder = photos[0].parent
    mask = shutil.copy(photos[0], folder / "scene0_mask.png")
    with pytest.raises(DataError, match="scene0_mask.png would overwrite the image"):
        predict_files(model_dir, [photos[0], mask], folder)
    np.testing.assert_array_equal(read_image(mask), read_image(photos[0]))


def test_alpha_is_checked_before_anything_is_written(model_dir, photos, tmp_path):
    with pytest.raises(ConfigError, match="alpha is 2, it must be from 0 to 1"):
        predict_files(model_dir, photos, tmp_path / "out", alpha=2)
    assert not (tmp_path / "out").exists()


def test_work_and_model_directories_are_recognised(workdir, model_dir):
    assert resolve_model_dir(workdir) == workdir / "model"
    assert resolve_model_dir(str(workdir / "model")) == workdir / "model"
    assert resolve_model_dir(model_dir) == model_dir


def test_what_is_no_model_is_described(workdir, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    expected = "is neither a model directory, which holds config.json and model.safetensors"
    for path, found in [
        (empty, "an empty folder"),
        (tmp_path / "nowhere", "nothing of that name"),
        (workdir / "config.json", "a file"),
    ]:
        with pytest.raises(CheckpointError, match=f"{path.name} {expected}.*found {found}$"):
            resolve_model_dir(path)
    (workdir / "model" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="found config.json, model/$"):
        resolve_model_dir(workdir)


def test_the_folder_listing_in_the_error_is_short(tmp_path):
    for i in range(20):
        (tmp_path / f"{i:02d}").touch()
    with pytest.raises(CheckpointError, match="found 00, 01, 02, 03, 04, 05, 06, 07, …$"):
        resolve_model_dir(tmp_path)


def expected_scores(directory, size, batch_size=2):
    loaded = native.load_with_meta(directory)
    batches = eval_loader(Shapes("val"), EvalTransform(size), batch_size=batch_size)
    return evaluate(loaded.model, batches, labels=loaded.labels, preprocess=loaded.preprocess)


def test_a_run_is_scored_on_its_own_data(workdir, few_scenes):
    console = Console(width=80)
    with console.capture() as capture:
        scores = evaluate_dir(workdir, console=console)
    assert scores.matrix.sum() == 4 * 24 * 16
    np.testing.assert_array_equal(
        scores.matrix, expected_scores(workdir / "model", (24, 16)).matrix
    )
    for word in ("shapes", "triangle", "mean", "all pixels"):
        assert word in capture.get()


def test_a_run_is_scored_with_its_own_limit_size_and_format(workdir, few_scenes, monkeypatch):
    settings = {"data": "shapes", "limit": 3, "image_size": [20, 104], "dtype": "bfloat16"}
    (workdir / "config.json").write_text(json.dumps(settings))
    load, formats = native.load_with_meta, []

    def watched(directory, *, dtype):
        formats.append(dtype)
        return load(directory, dtype=dtype)

    monkeypatch.setattr(native, "load_with_meta", watched)
    assert evaluate_dir(workdir).matrix.sum() == 3 * 96 * 104
    assert formats == ["bfloat16"]


def test_arguments_take_precedence_over_the_run(workdir, few_scenes):
    scores = evaluate_dir(workdir, eval_size=(16, 16), batch_size=4)
    np.testing.assert_array_equal(
        scores.matrix, expected_scores(workdir / "model", (16, 16)).matrix
    )


VIEW = {"eval_base_size": [60, 48], "eval_multiple": 8, "eval_window": [24, 32]}


def test_a_run_is_scored_through_its_own_windows(workdir, few_scenes):
    settings = {"data": "shapes", "batch_size": 2, "metrics": ["accuracy_of_all"], **VIEW}
    (workdir / "config.json").write_text(json.dumps(settings))
    loaded = native.load_with_meta(workdir / "model")
    batches = eval_loader(Shapes("val"), EvalTransform(None, "bilinear", (60, 48), 8), batch_size=2)
    expected = evaluate(
        loaded.model,
        batches,
        labels=loaded.labels,
        preprocess=loaded.preprocess,
        windows=Windows((24, 32), (16, 21)),
    )
    scores = evaluate_dir(workdir)
    np.testing.assert_array_equal(scores.matrix, expected.matrix)
    assert scores.matrix.sum() == 4 * 96 * 96
    assert scores.more == {"accuracy_of_all": pytest.approx(scores.pixel_accuracy)}
    stretched = evaluate_dir(workdir, eval_size=(24, 16), metrics=())
    whole = expected_scores(workdir / "model", (24, 16))
    np.testing.assert_array_equal(stretched.matrix, whole.matrix)
    assert stretched.more == {}


@pytest.mark.parametrize(
    ("options", "windows"),
    [({}, Windows((24, 32), (16, 21))), ({"window": (40, 40)}, Windows((40, 40), (26, 26)))],
)
def test_photos_are_seen_as_in_the_training_run(workdir, photos, tmp_path, options, windows):
    (workdir / "config.json").write_text(json.dumps({"data": "shapes", **VIEW}))
    predict_files(workdir, photos[:1], tmp_path / "out", **options)
    predictor = Predictor(*native.load_with_meta(workdir / "model"), windows=windows)
    with Image.open(tmp_path / "out" / "scene0_mask.png") as mask:
        expected = predictor.labels(read_image(photos[0]), size=(40, 64))
        np.testing.assert_array_equal(np.asarray(mask), expected)


def test_photos_are_stretched_with_the_run_s_interpolation(workdir, photos, tmp_path):
    settings = {"data": "shapes", "eval_size": [12, 20], "interpolation": "nearest"}
    (workdir / "config.json").write_text(json.dumps(settings))
    predict_files(workdir, photos[:1], tmp_path / "out")
    predictor, photo = Predictor(*native.load_with_meta(workdir / "model")), read_image(photos[0])
    maps = {
        how: predictor.labels(photo, size=(12, 20), interpolation=how)
        for how in ("bilinear", "nearest")
    }
    assert (maps["bilinear"] != maps["nearest"]).any()
    with Image.open(tmp_path / "out" / "scene0_mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), maps["nearest"])


def test_a_senseless_batch_size_is_refused(workdir):
    with pytest.raises(ConfigError, match="--batch-size 0: give at least 1"):
        evaluate_dir(workdir, batch_size=0)


def test_an_unknown_split_is_refused(workdir):
    with pytest.raises(DataError, match="shapes has no split 'test': use one of train, val"):
        evaluate_dir(workdir, split="test")


def test_a_model_directory_needs_the_name_of_the_data(model_dir, few_scenes):
    with pytest.raises(ConfigError, match="does not say on which data it was trained: give --data"):
        evaluate_dir(model_dir)
    scores = evaluate_dir(model_dir, data="shapes", eval_size=(16, 16))
    assert scores.matrix.sum() == 4 * 16 * 16


def test_other_data_does_not_inherit_the_run_s_folder(workdir, few_scenes):
    config = {"data": "camvid", "data_dir": "/data/camvid", "eval_size": [8, 8]}
    (workdir / "config.json").write_text(json.dumps(config))
    scores = evaluate_dir(workdir, data="shapes")
    assert scores.matrix.sum() == 4 * 96 * 96


def test_data_with_other_classes_is_refused(workdir):
    loaded = native.load_with_meta(workdir / "model")
    renamed = LabelSet("pets", ("a", "b", "c", "d", "e", "f"), loaded.labels.palette)
    native.save(loaded.model, workdir / "model", labels=renamed)
    message = r"the model knows 6 classes \(a, b, c, d, …\), data set 'shapes' has 6 \(background"
    with pytest.raises(ConfigError, match=message):
        evaluate_dir(workdir)


def test_numbered_classes_stand_for_any(workdir, few_scenes):
    loaded = native.load_with_meta(workdir / "model")
    native.save(loaded.model, workdir / "model", labels=LabelSet.generic(6))
    assert evaluate_dir(workdir).matrix.sum() == 4 * 24 * 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "config.json is not readable JSON"),
        (b"\xff", "config.json is not readable JSON"),
        (b"null", "config.json is not a training config"),
        (b"3", "config.json is not a training config"),
        (b"[]", "config.json is not a training config"),
    ],
)
def test_a_damaged_run_configuration_is_named(workdir, content, message):
    (workdir / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        evaluate_dir(workdir)
