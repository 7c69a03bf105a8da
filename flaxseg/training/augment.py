"""From settings to what the pictures of a run go through."""

import dataclasses

from flaxseg import data
from flaxseg.data.transforms.mirrored import hint, parse_pairs
from flaxseg.errors import ConfigError
from flaxseg.labels import LabelSet
from flaxseg.training.config import TrainConfig, flag, show

_CROPS_ONLY = ("base_size", "cat_max_ratio", "rare_crop")


def make_transform(config: TrainConfig, train: data.Source) -> data.TrainTransform:
    """The augmentation of the training pictures.

    Args:
        config: settings.
        train: training examples; their classes are counted if crops are to show rare ones.

    Raises:
        ConfigError: a setting of crops, where pictures are stretched, or an unknown class.
        DataError: a label map that does not fit.
    """
    _check_crops(config)
    jitter = (config.jitter, config.jitter, config.jitter, 0.0)
    return data.TrainTransform(
        image_size=config.image_size,
        scale=config.scale,
        hflip=config.hflip,
        vflip=config.vflip,
        color_jitter=(0.0, config.jitter, 0.0, 0.0) if config.color == "contrast" else jitter,
        resize=config.resize,
        scale_law=config.scale_law,
        base_size=config.base_size,
        cat_max_ratio=config.cat_max_ratio,
        rare=_rare_classes(config, train),
        rotation=config.rotation,
        photometric=data.PhotometricDistortion() if config.color == "photometric" else None,
        interpolation=config.interpolation,
        flip_pairs=parse_pairs(config.flip_pairs, train.labels.classes),
    )


def mirror_hint(config: TrainConfig, labels: LabelSet) -> str | None:
    """A line about classes that flips mix up, as far as their names tell."""
    if not config.hflip:
        return None
    return hint(labels.classes, parse_pairs(config.flip_pairs, labels.classes))


def _rare_classes(config: TrainConfig, train: data.Source) -> data.RareClasses | None:
    if not config.rare_crop:
        return None
    pixels = data.check_labels(train).pixels
    return data.RareClasses(config.rare_crop, tuple(pixels.tolist()))


def _check_crops(config: TrainConfig) -> None:
    if config.resize == "crop":
        return
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in _CROPS_ONLY:
        value = getattr(config, name)
        if value != defaults[name]:
            raise ConfigError(
                f"{flag(name)} {show(value)} chooses crops, but --resize {config.resize} has none: "
                "give --resize crop or leave it out"
            )
