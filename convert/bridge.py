"""Carries all weights of a network between Flax and PyTorch.

Both sides name their tensors alike and `flaxseg.native` speaks torch's axis order, so the bridge
is a strict copy. BatchNorm's `num_batches_tracked` has no native counterpart: it is left as it is.
"""

import numpy as np
import torch
from torch import nn

from convert.changes import Shape
from flaxseg import models, native
from flaxseg.model_dir import COUNTER, check_keys


def to_torch(flax_model: models.Model, torch_model: nn.Module) -> nn.Module:
    """Copies every parameter and running statistic to `torch_model` and returns it.

    Raises:
        CheckpointError: names all missing, unexpected and misshapen keys; nothing is copied.
    """
    return fill(torch_model, native.state_dict(flax_model))


def from_torch(torch_model: nn.Module, flax_model: models.Model) -> models.Model:
    """Copies every parameter and running statistic to `flax_model`, real or abstract.

    Raises:
        CheckpointError: names all missing, unexpected and misshapen keys; nothing is copied.
    """
    return native.fill(flax_model, state_dict(torch_model))


def leaves(model: nn.Module) -> dict[str, Shape]:
    """Key -> shape of all parameters and running statistics."""
    return {key: tuple(tensor.shape) for key, tensor in _tensors(model).items()}


def state_dict(model: nn.Module) -> dict[str, np.ndarray]:
    """Key -> copy of every parameter and running statistic; bits are untouched."""
    return {key: tensor.detach().cpu().numpy().copy() for key, tensor in _tensors(model).items()}


def fill(model: nn.Module, arrays: dict[str, np.ndarray]) -> nn.Module:
    """Overwrites every parameter and running statistic, cast to the tensor's dtype.

    Raises:
        CheckpointError: names all missing, unexpected and misshapen keys; the model is untouched.
    """
    check_keys(leaves(model), arrays)
    with torch.no_grad():
        for key, tensor in _tensors(model).items():
            tensor.copy_(torch.from_numpy(np.array(arrays[key])))
    return model


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict(keep_vars=True).items() if not k.endswith(COUNTER)}
