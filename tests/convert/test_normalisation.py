"""An imported network normalises pictures as the published one was trained."""

import json
import sys

import numpy as np
import pytest

import convert
from convert.__main__ import main
from convert.formats import FORMATS
from convert.load import read_native
from convert.normalisation import ASSUMED
from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.labels import LabelSet
from flaxseg.model_dir import read_directory
from flaxseg.preprocess import Preprocess

IMAGENET = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CITYSCAPES = Preprocess((0.3257, 0.3690, 0.3223), (0.2112, 0.2148, 0.2115))
AUTHORS_CCNET = Preprocess(
    (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255), (1 / 255,) * 3, "bgr"
)
TRAINED_ON = {
    "coincheung bisenetv2": CITYSCAPES,
    "huggingface5 segformer": IMAGENET,
    "huggingface segformer": IMAGENET,
    "mmseg bisenetv2": IMAGENET,
    "mmseg ccnet": IMAGENET,
    "mmseg segformer": IMAGENET,
    "mmseg setr": IMAGENET,
    "notebook vitseg": Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "nvlabs segformer": IMAGENET,
    "original ccnet": AUTHORS_CCNET,
    "original setr": IMAGENET,
    "tutorial bisenetv2": IMAGENET,
    "tutorial ccnet": IMAGENET,
    "tutorial segformer": IMAGENET,
    "tutorial setr": IMAGENET,
}
NETWORKS = {str(layout): layout for layout in FORMATS if layout.variants}


def network(name: str, num_classes: int = 5) -> models.Model:
    config = models.override(small_config(name), {"num_classes": num_classes})
    return native.fill(models.abstract_model(config), random_state(config, 0))


def written(path, layout: convert.Format, num_classes: int = 5) -> str:
    state = layout.export_state(network(layout.variants[0], num_classes))
    convert.write(path, state, wrapper=layout.wrapper)
    return str(path)


def run(*arguments) -> int:
    return main(list(map(str, arguments)))


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """The report on a file of a network that is too narrow to be recognised by its shapes."""

    def imported(layout, *, num_classes, **options):
        source = written(tmp_path / "a.pth", layout, num_classes)
        config = network(layout.variants[0], num_classes).config
        found = convert.Recognition(layout, config, layout.variants[0])
        module = sys.modules[read_native.__module__]  # convert.load is a function, too
        monkeypatch.setattr(module, "identify", lambda *_, **__: found)
        return read_native(source, **options).report

    return imported


def test_every_format_is_here():
    assert NETWORKS.keys() == TRAINED_ON.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_format_brings_its_own(name, imported):
    report = imported(NETWORKS[name], num_classes=19)
    assert report.preprocess == TRAINED_ON[name] and ASSUMED not in report.assumed
    assert f"images     {TRAINED_ON[name]}" in str(report).splitlines()


@pytest.mark.parametrize(("num_classes", "mean"), [(150, 0.4934323), (171, 0.46962251)])
def test_the_number_of_classes_tells_the_data_set(num_classes, mean, imported):
    layout = NETWORKS["coincheung bisenetv2"]
    assert imported(layout, num_classes=num_classes).preprocess.mean[0] == mean


@pytest.mark.parametrize("name", ["coincheung bisenetv2", "torch_ref ccnet"])
def test_what_nothing_tells_is_assumed_and_said(name, imported):
    report = imported(convert.load_format(*name.split()), num_classes=5)
    assert report.preprocess == IMAGENET and report.assumed[-1] == ASSUMED


def test_authors_ccnet_sees_what_its_authors_showed_it(tmp_path, capsys):
    """Their arithmetic on a photo that OpenCV has read, in blue, green and red."""
    source = written(tmp_path / "a.pth", NETWORKS["original ccnet"])
    assert run("import", source, tmp_path / "out", "--no-verify") == 0
    assert "images     bgr, mean 0.4811 0.4575 0.4079" in capsys.readouterr().out
    preprocess = read_directory(tmp_path / "out")[0].preprocess
    photo = np.random.default_rng(0).integers(0, 256, (1, 33, 47, 3), np.uint8)
    theirs = photo[..., ::-1] - np.array([104.00698793, 116.66876762, 122.67891434])
    np.testing.assert_allclose(preprocess(photo), theirs, rtol=0, atol=255 * 2**-22)


def test_flags_beat_what_was_found(tmp_path, capsys):
    convert.save(network("ccnet"), tmp_path / "a.pth", format="torch_ref")
    flags = "--mean 0.1 0.2 0.3 --channels bgr --no-verify".split()
    assert run("import", tmp_path / "a.pth", tmp_path / "out", *flags) == 0
    printed = capsys.readouterr().out
    assert "images     bgr, mean 0.1 0.2 0.3, std 0.229 0.224 0.225" in printed
    assert ASSUMED not in printed
    values = json.loads((tmp_path / "out" / "config.json").read_text())["preprocess"]
    assert values == {"mean": [0.1, 0.2, 0.3], "std": list(IMAGENET.std), "channels": "bgr"}


def test_flags_that_do_not_fit(tmp_path, capsys):
    flags = "--mean 123.675 116.28 103.53".split()
    assert run("import", tmp_path / "none.pth", tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --mean is 123.7 116.3 103.5, it must be three numbers from 0")


def test_a_model_directory_keeps_its_own(tmp_path):
    labels = LabelSet("pets", tuple("abcde"), LabelSet.generic(5).palette)
    model = network("ccnet")
    native.save(model, tmp_path / "a", labels=labels, preprocess=AUTHORS_CCNET)
    assert run("import", tmp_path / "a", tmp_path / "b", "--dtype", "float16", "--no-verify") == 0
    loaded = native.load_with_meta(tmp_path / "b")
    assert (loaded.labels, loaded.preprocess) == (labels, AUTHORS_CCNET)
    assert convert.save(convert.load(tmp_path / "a"), tmp_path / "c") == ()
    assert native.load_with_meta(tmp_path / "c").preprocess == AUTHORS_CCNET
    convert.save(model, tmp_path / "d", preprocess=AUTHORS_CCNET)
    assert native.load_with_meta(tmp_path / "d").preprocess == AUTHORS_CCNET


def test_exports_tell_what_their_readers_will_not_guess(tmp_path, capsys):
    model = network("ccnet_r101_original")
    native.save(model, tmp_path / "own", preprocess=AUTHORS_CCNET)
    assert run("export", tmp_path / "own", tmp_path / "a.pth", "--format", "original") == 0
    assert "note" not in capsys.readouterr().out
    assert run("export", tmp_path / "own", tmp_path / "b.pth", "--format", "torch_ref") == 0
    assert (
        f"note       not stored: images are normalised as {AUTHORS_CCNET}; its readers expect "
        f"{IMAGENET}" in capsys.readouterr().out.splitlines()
    )
    # Nobody knows what the bare network was trained on.
    assert convert.save(model, tmp_path / "c.pth", format="torch_ref") == ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder of a network with numbers of its own."""
    path = tmp_path_factory.mktemp("hf") / "model"
    preprocess = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    model = network("segformer_b0_hf")
    assert convert.save(model, path, format="huggingface", preprocess=preprocess) == ()
    return path


def processor_of(folder) -> dict:
    return json.loads((folder / "preprocessor_config.json").read_text())


def test_hugging_face_folders_hold_mean_and_deviation(folder, tmp_path):
    values = processor_of(folder)
    assert values["image_processor_type"] == "SegformerImageProcessor"
    assert (values["image_mean"], values["image_std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    expected = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for source in (folder, folder / "model.safetensors"):
        assert read_native(source).report.preprocess == expected
    bgr = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bgr")
    (note,) = convert.save(
        network("segformer_b0_hf"), tmp_path / "b", format="huggingface", preprocess=bgr
    )
    assert f"normalised as {bgr}; its readers expect {expected}" in note


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"do_normalize": False}, Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),
        ({"rescale_factor": 2 / 255}, Preprocess((0.05, 0.1, 0.15), (0.2, 0.25, 0.3))),
        (
            {"do_rescale": False, "image_mean": [51.0, 102.0, 255.0], "image_std": [255.0] * 3},
            Preprocess((0.2, 0.4, 1.0), (1.0, 1.0, 1.0)),
        ),
        ({"image_mean": None, "image_std": None, "rescale_factor": 1 / 255}, IMAGENET),
    ],
)
def test_image_processors_of_other_kinds(folder, change, expected):
    found = convert.huggingface.to_preprocess(processor_of(folder) | change)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-15)
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-15)


@pytest.mark.parametrize(
    "change", [{"image_mean": 0.5}, {"image_std": [0.0, 1.0, 1.0]}, {"rescale_factor": 0}]
)
def test_image_processors_that_do_not_fit(folder, change, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    values = processor_of(folder) | change
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=rf"{tmp_path}: its preprocessor_config.json does no"):
        read_native(tmp_path)
