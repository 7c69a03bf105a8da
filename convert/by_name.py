"""Rows of classifiers that go over to a network for other classes, by the names of these."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from convert.one_output import classifier_keys
from flaxseg import models, native
from flaxseg.labels import LabelSet
from flaxseg.model_dir import Tensor


class Rows(NamedTuple):
    """What the classifiers of one network give those of another.

    Attributes:
        arrays: native key -> array for the other network, 0 where it has nothing.
        known: native key -> where it has something, of the array's shape.
        lines: about it, for the user to read.
    """

    arrays: dict[str, np.ndarray]
    known: dict[str, np.ndarray]
    lines: list[str]


def rows_by_name(
    arrays: Mapping[str, Tensor], there: LabelSet, config: models.Config, here: LabelSet
) -> Rows | None:
    """The rows of the classes that both networks have, main and auxiliary heads alike.

    Args:
        arrays: native key -> tensor of a trained network.
        there: its classes.
        config: of the network that takes them over.
        here: the classes of that.

    Returns:
        None where the classes are the same in the same order, or no name is shared.
    """
    places = here.matches(there)
    same = there.num_classes == here.num_classes and not here.differences(there)
    if same or not places:
        return None
    shapes = native.leaves(models.abstract_model(config))
    counts = there.num_classes, here.num_classes
    moved = {
        key: _moved(np.asarray(arrays[key]), shapes[key], *counts, places)
        for key in sorted(classifier_keys(config) & arrays.keys())
    }
    random = [name for number, name in enumerate(here.classes) if number not in places]
    lines = [
        f"{len(places)} of {here.num_classes} classes taken over by name: "
        f"{_names(here, list(places))}"
    ]
    lines += [f"random numbers for {', '.join(random)}"] if random else []
    return Rows(
        {key: array for key, (array, _) in moved.items()},
        {key: known for key, (_, known) in moved.items()},
        lines,
    )


def _names(labels: LabelSet, numbers: Sequence[int]) -> str:
    return ", ".join(labels.classes[number] for number in numbers)


def _moved(
    array: np.ndarray, shape: tuple[int, ...], theirs: int, ours: int, places: Mapping[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A classifier's tensor for other classes, and where it is known.

    Outputs go class by class along the first axis, in every network.
    """
    there = array.reshape(theirs, -1, *array.shape[1:])
    here = np.zeros((ours, *there.shape[1:]), array.dtype)
    known = np.zeros(here.shape, bool)
    here[list(places)], known[list(places)] = there[list(places.values())], True
    return here.reshape(shape), known.reshape(shape)
