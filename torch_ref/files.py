"""Reads and writes the model directories of `flaxseg.save` and `flaxseg.load`."""

import os

import numpy as np
import torch
from torch import nn

from flaxseg.labels import LabelSet
from flaxseg.model_dir import (
    COUNTER,
    Chain,
    StoredTensor,
    check_keys,
    make_header,
    read_directory,
    write_directory,
)
from flaxseg.preprocess import Preprocess
from torch_ref.registry import Network, create_model


def load(directory: str | os.PathLike) -> Network:
    """The network of a model directory, in eval mode.

    It takes images that are normalised as the directory's `config.json` says under `preprocess`.

    Raises:
        CheckpointError: what is missing, broken or does not fit, by file and key.
    """
    header, arrays = read_directory(directory)
    model = create_model(header.config)
    expected = {key: tuple(value.shape) for key, value in _weights(model).items()}
    check_keys(expected, arrays, f"the weights of {directory}")
    tensors = {key: torch.from_numpy(_wide(value)) for key, value in arrays.items()}
    model.to(next(iter(tensors.values())).dtype).load_state_dict(tensors)
    return model.eval()


def save(
    model: Network,
    directory: str | os.PathLike,
    *,
    labels: LabelSet | None = None,
    preprocess: Preprocess | None = None,
    name: str | None = None,
    origin: Chain = (),
) -> None:
    """Writes a model directory that `flaxseg.load` reads too.

    Args:
        model: a network of this package.
        directory: where to write; a model directory there is replaced.
        labels: class names and colours; numbered ones if None.
        preprocess: normalisation of the images; ImageNet's if None.
        name: the registry name to note; the architecture's if None.
        origin: where its weights come from, as for `flaxseg.save`.

    Raises:
        CheckpointError: the place holds something else than a model directory.
    """
    header = make_header(
        model.config, labels=labels, preprocess=preprocess, name=name, origin=origin
    )
    arrays = {key: value.detach().cpu().numpy() for key, value in _weights(model).items()}
    write_directory(directory, header, arrays)


def _wide(stored: StoredTensor) -> np.ndarray:
    """At least float32, as torch knows no half precision of numpy's."""
    array = np.asarray(stored)
    return array.astype(np.float32) if array.itemsize < 4 else array


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.endswith(COUNTER)}
