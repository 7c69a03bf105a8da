"""Networks with one output, of which a sigmoid makes the probability of the foreground.

They become the network of two classes that computes the same: its logits are 0 and z, so that
softmax gives 1 - sigmoid(z) and sigmoid(z), and the second class wins where z is above 0.
"""

from collections.abc import Mapping

import numpy as np

from flaxseg import models, native
from flaxseg.model_dir import Tensor

NOTE = (
    "one output (sigmoid) becomes two classes of the same function: logits 0 and z, threshold 0.5"
)


def with_classes(config: models.Config, count: int) -> models.Config:
    """The same network with another number of classes."""
    return models.override(config, {"num_classes": count})


def to_two_classes(arrays: Mapping[str, Tensor], config: models.Config) -> dict[str, Tensor]:
    """The tensors with a classifier more in front of every one, which gives 0 for any image.

    Outputs of a classifier go class by class along its first axis, in every network.

    Args:
        arrays: native key -> tensor of a network with one output.
        config: of that network.
    """
    classifiers = classifier_keys(config)
    return {
        key: _below_zeros(np.asarray(tensor)) if key in classifiers else tensor
        for key, tensor in arrays.items()
    }


def to_one_output(arrays: Mapping[str, np.ndarray], config: models.Config) -> dict[str, np.ndarray]:
    """The inverse, for any network of two classes: its output is the second logit less the first.

    Args:
        arrays: native key -> array of a network of two classes.
        config: of that network.
    """
    classifiers = classifier_keys(config)
    return {
        key: np.subtract(*np.split(array, 2)[::-1]) if key in classifiers else array
        for key, array in arrays.items()
    }


def classifier_keys(config: models.Config) -> set[str]:
    """The tensors whose size goes with the number of classes."""
    one, two = (
        native.leaves(models.abstract_model(with_classes(config, count))) for count in (1, 2)
    )
    return {key for key in one if one[key] != two[key]}


def _below_zeros(array: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(array), array])
