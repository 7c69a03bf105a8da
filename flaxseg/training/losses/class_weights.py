"""Weights of classes: given by hand, or from how often each class occurs."""

from collections.abc import Callable

import numpy as np

from flaxseg.data.statistics import Statistics
from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.labels import LabelSet
from flaxseg.training.settings.loss import AUTO, number_of

BALANCING: dict[str, Callable[[Statistics], np.ndarray]] = {
    "enet": Statistics.enet_weights,
    "median_frequency": Statistics.median_frequency_weights,
}
"""How weights follow from pixel counts, by the name in `--class-weights`."""


def class_weights(
    texts: tuple[str, ...], labels: LabelSet, count: Callable[[], Statistics]
) -> np.ndarray | None:
    """Reads the setting.

    Args:
        texts: nothing; a name of `BALANCING`, or "auto" for "enet"; one number per class; or
            CLASS=NUMBER for the classes that do not weigh 1.
        labels: the classes.
        count: counts the pixels of the training labels, called only if they are needed.

    Returns:
        Float64 weights (K,), or None for no weighting.

    Raises:
        ConfigError: the wrong number of numbers, or an unknown class.
    """
    if not texts:
        return None
    if len(texts) == 1 and texts[0] in (AUTO, *BALANCING):
        name = "enet" if texts[0] == AUTO else texts[0]
        return BALANCING[name](count())
    if all("=" in text for text in texts):
        return _by_class(texts, labels)
    if len(texts) != labels.num_classes:
        raise ConfigError(
            f"--class-weights are {len(texts)} numbers, but {labels.name} has {labels.num_classes} "
            "classes: give one each, CLASS=NUMBER for those that do not weigh 1, or auto"
        )
    return np.array([number_of(text) for text in texts])


def _by_class(texts: tuple[str, ...], labels: LabelSet) -> np.ndarray:
    weights = np.ones(labels.num_classes)
    for text in texts:
        name, _, number = text.rpartition("=")
        if name not in labels.classes:
            close = did_you_mean(name, labels.classes)
            raise ConfigError(f"--class-weights {text}: {labels.name} has no class {name!r}{close}")
        weights[labels.classes.index(name)] = number_of(number)
    return weights
