"""SceneParse-150 from a small archive in the official layout."""

import numpy as np
import pytest
from PIL import Image

from flaxseg.data import count_labels, open_source
from flaxseg.data.ade20k import LABELS
from flaxseg.errors import DataError

NAMES = {"training": ("ADE_train_1", "ADE_train_2"), "validation": ("ADE_val_1",)}


@pytest.fixture
def extracted(tmp_path, save, rng):
    root = tmp_path / "extracted"
    inside = root / "ADEChallengeData2016"
    for folder, names in NAMES.items():
        for name in names:
            image = rng.integers(0, 256, (5, 7, 3), np.uint8)
            save(inside / "images" / folder / f"{name}.jpg", image)
            label = rng.integers(0, 151, (5, 7), np.uint8)
            label[0, :2] = (0, 150)
            save(inside / "annotations" / folder / f"{name}.png", label)
    (inside / "objectInfo150.txt").write_text("not needed")
    return root


@pytest.mark.parametrize("form", ["archive", "above", "folder"])
def test_pixels_and_counts(form, extracted, pack, cache, tmp_path):
    inside = extracted / "ADEChallengeData2016"
    data_dir = {"above": extracted, "folder": inside}.get(form, tmp_path / "packed")
    if form == "archive":
        pack(extracted, data_dir / "ADEChallengeData2016.zip")
    for split, folder in {"train": "training", "val": "validation"}.items():
        source = open_source("ade20k", split, data_dir=data_dir, cache_dir=cache)
        assert len(source) == len(NAMES[folder])
        for i, name in enumerate(NAMES[folder]):
            assert source.name(i) == f"images/{folder}/{name}.jpg"
            photo = np.asarray(Image.open(inside / source.name(i)))
            np.testing.assert_array_equal(source[i].image, photo)
            stored = np.asarray(Image.open(inside / "annotations" / folder / f"{name}.png"))
            expected = np.where(stored == 0, 255, stored.astype(int) - 1)
            np.testing.assert_array_equal(source[i].label, expected)
        assert count_labels(source).ignored == sum(int((e.label == 255).sum()) for e in source)


def test_label_set():
    assert LABELS.num_classes == 150
    assert [LABELS.classes[i] for i in (0, 1, 12, 44, 149)] == [
        *("wall", "building", "person", "chest of drawers", "flag")
    ]
    assert [LABELS.palette[i] for i in (0, 2, 149)] == [
        (120, 120, 120),
        (6, 230, 230),
        (92, 0, 255),
    ]


def test_instance_archive_is_refused(tmp_path, pack, save, cache):
    """What TFDS calls scene_parse150 holds instances."""
    save(tmp_path / "x" / "annotations_instance/training/a.png", np.zeros((2, 2), np.uint8))
    pack(tmp_path / "x", tmp_path / "packed" / "ADEChallengeData2016.zip")
    with pytest.raises(DataError, match="holds none of the files expected in ADEChallengeData2016"):
        open_source("ade20k", "train", data_dir=tmp_path / "packed", cache_dir=cache)


def test_folder_without_validation(extracted, cache):
    inside = extracted / "ADEChallengeData2016"
    (inside / "annotations/validation").rename(inside / "annotations/test")
    message = "2016: is no ade20k folder, .*but no annotations/validation. Expected is ADEChall"
    with pytest.raises(DataError, match=message):
        open_source("ade20k", "train", data_dir=extracted, cache_dir=cache)


def test_id_beyond_the_classes(extracted, save, cache):
    inside = extracted / "ADEChallengeData2016"
    save(inside / "annotations/training/ADE_train_2.png", np.full((5, 7), 151, np.uint8))
    message = (
        "ADE_train_2.png: number 151 in 35 pixels, .*; allowed are 1 to 150, and 0 for unlabelled "
        "pixels; mend the mask$"
    )
    with pytest.raises(DataError, match=message):
        open_source("ade20k", "train", data_dir=extracted, cache_dir=cache)
