import dataclasses
import itertools

import numpy as np
import pytest

from flaxseg import data
from flaxseg.errors import ConfigError
from flaxseg.training import make_config
from flaxseg.training.augment import make_transform, mirror_hint
from flaxseg.training.config import TrainConfig
from flaxseg.training.setup import open_datasets


@pytest.fixture(scope="module")
def shapes():
    return data.Shapes("train", image_size=(32, 32), length=12)


@pytest.mark.parametrize("fields", [{}, {"jitter": 0.4, "vflip": 0.2, "resize": "stretch"}])
def test_defaults_are_those_of_older_runs(shapes, fields):
    """A config.json without the newer fields gives the transform that it always gave."""
    old = {"image_size": (32, 40), "scale": (0.7, 1.5), "hflip": 0.3} | fields
    config = TrainConfig.from_json(old)
    jitter = (config.jitter, config.jitter, config.jitter, 0.0)
    expected = data.TrainTransform(
        image_size=(32, 40),
        scale=(0.7, 1.5),
        hflip=0.3,
        vflip=config.vflip,
        color_jitter=jitter,
        resize=config.resize,
    )
    assert make_transform(config, shapes) == expected


def test_every_setting_arrives(shapes):
    config = TrainConfig(
        scale_law="uniform",
        base_size=(64, 48),
        cat_max_ratio=0.75,
        rare_crop=0.5,
        rotation=10.0,
        interpolation="nearest",
        color="photometric",
    ).validate()
    transform = make_transform(config, shapes)
    assert transform.scale_law == "uniform" and transform.base_size == (64, 48)
    assert transform.cat_max_ratio == 0.75 and transform.rotation == 10.0
    assert transform.interpolation == "nearest"
    assert transform.photometric == data.PhotometricDistortion()
    counted = data.check_labels(shapes).pixels
    assert transform.rare == data.RareClasses(0.5, tuple(counted.tolist()))


def test_contrast_alone(shapes):
    config = TrainConfig(color="contrast", jitter=0.3)
    assert make_transform(config, shapes).color_jitter == (0, 0.3, 0, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cat_max_ratio": 0.75}, "--cat-max-ratio 0.75 chooses crops, but --resize stretch has n"),
        ({"rare_crop": 0.5}, "--rare-crop 0.5 chooses crops.*: give --resize crop or leave it out"),
        ({"base_size": (64, 48)}, "--base-size 64 48 chooses crops"),
    ],
)
def test_stretched_pictures_have_no_crops(shapes, fields, message):
    with pytest.raises(ConfigError, match=message):
        make_transform(TrainConfig(resize="stretch", **fields), shapes)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cat_max_ratio": 0.0}, "--cat-max-ratio is 0.0, it must be above 0 and at most 1"),
        ({"rare_crop": 1.5}, "--rare-crop is 1.5, it must be from 0 to 1"),
        ({"rotation": 200.0}, "--rotation is 200.0, it must be from 0 to 180 degrees"),
        ({"base_size": (0, 3)}, "--base-size is 0 3, it must be at least 1 pixel high and wide"),
        ({"scale_law": "log"}, "--scale-law is 'log', it must be one of"),
        ({"color": "photo"}, "--color is 'photo', it must be one of.*photometric"),
        ({"interpolation": "area"}, "--interpolation is 'area', it must be one of"),
        ({"loader_threads": 0}, "--loader-threads is 0, it must be at least 1"),
    ],
)
def test_values_that_do_not_fit(fields, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**fields)


def first_batches(**fields):
    config = make_config(
        limit=16,
        batch_size=4,
        image_size=(32, 32),
        cat_max_ratio=0.75,
        color="photometric",
        **fields,
    )
    return list(itertools.islice(open_datasets(config).train_batches, 3))


def test_threads_do_not_change_the_batches():
    for batch, other in zip(
        first_batches(loader_threads=1), first_batches(loader_threads=5), strict=True
    ):
        np.testing.assert_array_equal(batch.image, other.image)
        np.testing.assert_array_equal(batch.label, other.label)
    assert "loader_threads" in TrainConfig.FREE


def test_validation_pictures_are_resized_likewise():
    datasets = open_datasets(
        make_config(limit=8, image_size=(32, 32), eval_size=(40, 40), interpolation="nearest")
    )
    assert datasets.eval_transform == data.EvalTransform((40, 40), "nearest")
    batch = next(iter(datasets.val_batches))
    assert batch.image.shape == (8, 40, 40, 3)


class LeftAndRight(data.Shapes):
    """Drawn images whose classes have other names."""

    def __init__(self, *classes):
        super().__init__("train", image_size=(32, 32), length=4)
        kept = self.labels.classes[len(classes) :]
        self.labels = dataclasses.replace(self.labels, classes=(*classes, *kept))


def test_flip_pairs_by_name_and_a_line_without_them():
    source = LeftAndRight("left[1]", "right[1]")
    config = TrainConfig(flip_pairs=("left[1]=right[1]",)).validate()
    assert make_transform(config, source).flip_pairs == ((0, 1),)
    assert mirror_hint(config, source.labels) is None
    assert mirror_hint(TrainConfig(hflip=0.0), source.labels) is None
    line = mirror_hint(TrainConfig(), source.labels)
    assert line and "--flip-pairs 'left[1]=right[1]', or --hflip 0" in line
    with pytest.raises(ConfigError, match="--flip-pairs left=right: no class is called 'left'"):
        make_transform(TrainConfig(flip_pairs=("left=right",)), source)
