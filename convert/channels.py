"""Networks that take other images than red, green and blue: four bands, or grey alone."""

import dataclasses
from collections.abc import Mapping

from convert.rules import Table
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import Tensor

CHANNELS = 3
"""Of the images that flaxseg's networks take."""

FIRST_LAYERS = {
    "bisenetv2": (
        "backbone.detail.stages.0.0.conv.weight",
        "backbone.semantic.stem.conv.conv.weight",
    ),
    "ccnet": ("backbone.stem.0.conv.weight",),
    "segformer": ("backbone.stages.0.patch_embed.proj.weight",),
    "setr": ("backbone.patch_embed.proj.weight",),
    "vitseg": (
        "patch_embed.proj.weight",
        "input_norm.weight",
        "input_norm.bias",
        "input_norm.running_mean",
        "input_norm.running_var",
    ),
}
"""Architecture -> native keys of the tensors whose shape goes with the channels of the images."""


def channels_in(tensors: Mapping[str, Tensor], table: Table, architecture: str) -> int:
    """How many channels a file's network takes, 3 where its first layer does not tell.

    Args:
        tensors: of the file, by the format's keys.
        table: of the network in that format.
        architecture: of the network.
    """
    for link in table.links:
        if link.native.keys() & FIRST_LAYERS[architecture]:
            key, expected = next(iter(link.foreign.items()))
            if key in tensors and (found := _channels(tuple(tensors[key].shape), expected)):
                return found
    return CHANNELS


def _channels(found: tuple[int, ...], expected: tuple[int, ...]) -> int | None:
    """From the shape of a kernel, whose second axis is the channels, or all pixels of a patch."""
    if len(found) != len(expected) or len(found) < 2:
        return None
    if (found[0], *found[2:]) != (expected[0], *expected[2:]) or found[1] * CHANNELS % expected[1]:
        return None
    return found[1] * CHANNELS // expected[1]


def check_channels(channels: int) -> None:
    """Refuses a network for other images.

    Raises:
        CheckpointError: names both numbers of channels.
    """
    if channels != CHANNELS:
        raise CheckpointError(
            f"its network takes {channels} channels, flaxseg's networks take {CHANNELS}: train.py "
            "--init starts a training from all its tensors but the first layer's"
        )


def without_first_layer(
    tensors: Mapping[str, Tensor], table: Table, architecture: str
) -> tuple[dict[str, Tensor], Table, tuple[str, ...]]:
    """The file and the table without what depends on the channels, and the native keys of that."""
    gone = [link for link in table.links if link.native.keys() & FIRST_LAYERS[architecture]]
    foreign = {key for link in gone for key in link.foreign}
    native = tuple(key for link in gone for key in link.native)
    kept = {key: tensor for key, tensor in tensors.items() if key not in foreign}
    links = tuple(link for link in table.links if link not in gone)
    order = tuple(key for key in table.order if key not in foreign)
    return kept, dataclasses.replace(table, links=links, order=order), native
