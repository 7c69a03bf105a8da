import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console

from flaxseg import cli, models, native
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
from flaxseg.inference.inputs import Input, output_names
from flaxseg.inference.views import Views
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
    assert {*written, out / "predictions.json", out / "photos.jsonl"} == {*out.iterdir()}
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
    options = {"alpha": 0.0, "overwrite": True}
    second = predict_files(model_dir, [photos[0], again], tmp_path / "out", **options)
    assert first == second and len(first) == len({*first}) == 4
    blend, photo = read_image(first[2]), read_image(photos[0])
    np.testing.assert_array_equal(blend[: len(photo), : photo.shape[1]], photo)


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
    assert output_names([Input(Path(path)) for path in paths]) == names


def test_photos_that_cannot_be_told_apart_are_named():
    paths = ["a/b_c.jpg", "a_b/c.jpg", "a/b/c.jpg", "d/c.jpg"]
    with pytest.raises(DataError, match="would be written to a_b_c_jpg_mask.png: predict them"):
        output_names([Input(Path(path)) for path in paths])


def test_names_keep_the_subfolders_of_folders():
    def named(*below, folder="x/photos"):
        folder = Path(folder)
        return [Input(folder / path, folder) for path in below]

    one = named("a.jpg", "sub/a.jpg", "sub/deep/b.c.tif")
    assert output_names(one) == ["a", "sub/a", "sub/deep/b.c"]
    two = [
        *named("1.jpg", folder="x/train"),
        *named("1.jpg", folder="x/val"),
        Input(Path("y/1.jpg")),
    ]
    assert output_names(two) == ["train/1", "val/1", "y_1"]
    assert output_names(named("s/a.jpg", "s/a.png")) == ["a_jpg", "a_png"]


def test_unreadable_photos_do_not_end_the_others(model_dir, photos, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    given = [tmp_path / "notes.txt", *photos, tmp_path / "nowhere.jpg"]
    console = Console(width=300)
    message = (
        r"2 of 5 photos cannot be used, the others are in .*out: .*notes.txt: is no readable "
        r"picture .* \| .*nowhere.jpg: cannot be read \(No such file or directory\)"
    )
    with console.capture() as capture, pytest.raises(DataError, match=message):
        predict_files(model_dir, given, tmp_path / "out", console=console)
    assert len(list((tmp_path / "out").glob("*.png"))) == 3 * len(photos)
    lines = [line for line in capture.get().splitlines() if "left out: " in line]
    assert len(lines) == 2 and "notes.txt" in lines[0] and "nowhere.jpg" in lines[1]


def test_an_unreadable_photo_is_one_line_of_the_command(model_dir, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no picture")
    command = ["predict", model_dir, tmp_path / "notes.txt", "--out", tmp_path / "out"]
    assert cli.main([str(word) for word in command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 1 of 1 photos cannot be used: ")
    assert "notes.txt: is no readable picture" in line


def test_a_photo_that_is_too_large_is_read_if_asked(model_dir, photos, tmp_path, capsys):
    command = ["predict", model_dir, photos[0], "--out", tmp_path / "out", "--max-pixels"]
    command = [str(word) for word in command]
    assert cli.main([*command, "959"]) == 2
    message = "scene0.png: has 40 x 24 = 960 pixels, more than the limit of 959; give --max-pixels"
    assert message in capsys.readouterr().err
    for limit in ("960", "0"):
        assert cli.main([*command, limit]) == 0
    assert cli.main([*command, "-1"]) == 2
    assert "max_pixels is -1, it must be at least 1" in capsys.readouterr().err


def test_what_is_assumed_of_photos_is_said_of_the_first_few(model_dir, tmp_path):
    for i in range(5):
        Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / f"[{i}].png")
    console = Console(width=300)
    with console.capture() as capture:
        predict_files(model_dir, [tmp_path], tmp_path / "out", console=console)
    lines = [line for line in capture.get().splitlines() if "white" in line]
    remark = "transparent pixels, shown on white"
    expected = [f"{tmp_path / f'[{i}].png'}: {remark}" for i in range(3)]
    assert lines == [*expected, f"and 2 more: {remark}"]


def test_every_photo_is_read_once(model_dir, photos, tmp_path, monkeypatch):
    read, read_bytes = [], Path.read_bytes

    def watched(path):
        read.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    predict_files(model_dir, photos[:2], tmp_path / "out")
    assert sorted(path for path in read if path in photos) == photos[:2]


def test_no_photo_is_an_error(model_dir, tmp_path):
    with pytest.raises(DataError, match="no image is given: name at least one file or folder"):
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

    def watched(directory, *, dtype, **options):
        formats.append(dtype)
        return load(directory, dtype=dtype, **options)

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
    message = (
        r"6 of 6 classes have other names .* 'shapes': 0 is 'a' and 'background', 1 is 'b'.*, …;"
    )
    with pytest.raises(ConfigError, match=message):
        evaluate_dir(workdir)
    fewer = LabelSet("pets", ("a", "b", "c", "d", "e"), loaded.labels.palette[:5])
    config = models.override(loaded.model.config, {"num_classes": 5})
    native.save(models.fresh_model(config, rngs=nnx.Rngs(0)), workdir / "model", labels=fewer)
    message = r"the model knows 5 classes \(a, b, c, d, …\), data set 'shapes' has 6 \(background"
    for by_number in (False, True):
        with pytest.raises(ConfigError, match=message):
            evaluate_dir(workdir, classes_by_number=by_number)


def test_classes_are_compared_by_the_meaning_of_their_names(workdir, few_scenes):
    expected = evaluate_dir(workdir).matrix
    loaded = native.load_with_meta(workdir / "model")
    names = tuple(f" {name.upper()}; thing" for name in loaded.labels.classes)
    native.save(loaded.model, workdir / "model", labels=replace(loaded.labels, classes=names))
    np.testing.assert_array_equal(evaluate_dir(workdir).matrix, expected)
    names = (*loaded.labels.classes[:4], "other", "another")
    native.save(loaded.model, workdir / "model", labels=replace(loaded.labels, classes=names))
    with pytest.raises(ConfigError, match=r"2 of 6 .*: 4 is 'other' and .* --classes-by-number"):
        evaluate_dir(workdir)
    np.testing.assert_array_equal(evaluate_dir(workdir, classes_by_number=True).matrix, expected)


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


def test_a_data_folder_that_is_gone_names_the_flag(workdir):
    path = workdir / "config.json"
    settings = json.loads(path.read_text()) | {"data": "camvid", "data_dir": "gone/photos"}
    path.write_text(json.dumps(settings))
    with pytest.raises(DataError, match="gone/photos: no such folder; give --data-dir"):
        evaluate_dir(workdir)


def test_a_run_is_scored_at_several_scales(workdir, monkeypatch):
    """As each picture is predicted, at the size to which it and its label map are stretched."""
    monkeypatch.setitem(SPLITS, "val", 2)
    views = Views((1.0, 1.5), flip=True)
    predictor = Predictor(*native.load_with_meta(workdir / "model"), views=views)
    expected = np.zeros((6, 6), np.int64)
    for example in Shapes("val"):
        label = EvalTransform((24, 16))(example).label
        photo = predictor.prepare(example.image, size=(24, 16), out_size=(24, 16))
        (wait,) = predictor.start([photo])
        np.add.at(expected, (label, wait().label), 1)
    options = {"eval_scales": (1, 1.5), "eval_flip": True}
    found = evaluate_dir(workdir, metrics=["accuracy_of_all", "boundary_iou"], **options)
    np.testing.assert_array_equal(found.matrix, expected)
    assert found.more["accuracy_of_all"] == pytest.approx(found.pixel_accuracy)
    with pytest.raises(ConfigError, match="--metrics soft_iou is of a single look"):
        evaluate_dir(workdir, metrics=["soft_iou"], **options)
