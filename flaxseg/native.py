"""Weights of a model by native key, and the model directories that hold them.

A native key is the dotted path of a variable in the network; its array has torch's axis order.
Neither torch nor an accelerator is needed to read and write.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import models
from flaxseg.errors import CheckpointError
from flaxseg.labels import LabelSet
from flaxseg.model_dir import (
    WEIGHTS_FILE,
    Tensor,
    check_keys,
    make_header,
    read_directory,
    write_directory,
)
from flaxseg.ops import Precision
from flaxseg.origin import Chain
from flaxseg.preprocess import Preprocess

TORCH_AXES = {
    "conv": (3, 2, 0, 1),  # (kh, kw, in, out) -> (out, in, kh, kw)
    "linear": (1, 0),  # (in, out) -> (out, in)
}
"""Order of our axes in torch's tensors, by a parameter's `layout`; others are as they are."""


class LoadedModel(NamedTuple):
    """A network in eval mode with what its predictions need."""

    model: models.Model
    labels: LabelSet
    preprocess: Preprocess


def leaves(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Native key -> shape in torch's axis order, of parameters and running statistics.

    Works on abstract models too.
    """
    return {key: _torch_shape(leaf) for key, leaf in _variables(model)}


def state_dict(model: nnx.Module) -> dict[str, np.ndarray]:
    """Native key -> array in torch's axis order; bits are untouched."""
    return {key: to_torch_axes(leaf, np.asarray(leaf[...])) for key, leaf in _variables(model)}


def fill(model: models.Model, arrays: Mapping[str, Tensor]) -> models.Model:
    """The model with every variable replaced by the array of its native key.

    Args:
        model: real or abstract; its variables are overwritten.
        arrays: native key -> array in torch's axis order, cast to the variable's dtype.

    Raises:
        CheckpointError: names all missing, unexpected and misshapen keys; the model is untouched.
    """
    variables = dict(_variables(model))
    check_keys({key: _torch_shape(leaf) for key, leaf in variables.items()}, arrays)
    state = nnx.state(model)
    flat = {_key(path): leaf for path, leaf in nnx.to_flat_state(state)}
    for key, leaf in flat.items():
        ours = from_torch_axes(leaf, np.asarray(arrays[key]))
        leaf.set_value(jnp.asarray(ours, leaf.get_value().dtype))
    nnx.update(model, state)
    return model


def save(
    model: models.Model,
    directory: str | os.PathLike,
    *,
    labels: LabelSet | None = None,
    preprocess: Preprocess | None = None,
    name: str | None = None,
    origin: Chain = (),
    temperature: float | None = None,
):
    """Writes the model directory; one that exists is replaced only once the new one is whole.

    Args:
        model: a network of `flaxseg.models`.
        directory: where to write.
        labels: class names and colours; numbered ones if None.
        preprocess: normalisation of the images; ImageNet's if None.
        name: the registry name to note; the registry's for its configuration if None.
        origin: where its weights come from, as `flaxseg.model_dir.read_header` tells it of the
            directory that they were loaded from: their licence goes with them.
        temperature: what its logits are divided by before they become probabilities, likewise.

    Raises:
        CheckpointError: the place holds something else than a model directory, or no class
            count of `labels` and model agree.
    """
    header = make_header(
        model.config,
        labels=labels,
        preprocess=preprocess,
        name=name,
        origin=origin,
        temperature=temperature,
    )
    write_directory(directory, header, state_dict(model))


def load(
    directory: str | os.PathLike,
    *,
    dtype: DTypeLike = jnp.float32,
    matmul_precision: Precision = "highest",
) -> models.Model:
    """The network of a model directory, in eval mode and ready for inference.

    Args:
        directory: what `save` wrote.
        dtype: of the computation; parameters keep float32.
        matmul_precision: of float32 products on accelerators, see `flaxseg.ops.precision`.

    Raises:
        CheckpointError: what is missing, broken or does not fit, by file and key.
        ConfigError: an unknown precision.
    """
    return load_with_meta(directory, dtype=dtype, matmul_precision=matmul_precision).model


def load_with_meta(
    directory: str | os.PathLike,
    *,
    dtype: DTypeLike = jnp.float32,
    matmul_precision: Precision = "highest",
) -> LoadedModel:
    """Like `load`, with the class names and the normalisation that the weights were trained on."""
    header, arrays = read_directory(directory)
    param_dtype = jnp.promote_types(_common_dtype(arrays), jnp.float32)
    model = models.abstract_model(header.config, dtype=dtype, param_dtype=param_dtype)
    try:
        model = models.eval_view(fill(model, arrays))
        model = models.with_precision(model, matmul_precision)
    except CheckpointError as error:
        raise CheckpointError(f"{os.path.join(directory, WEIGHTS_FILE)}: {error}") from None
    return LoadedModel(model, header.labels, header.preprocess)


def to_torch_axes(leaf: nnx.Variable, array: np.ndarray) -> np.ndarray:
    """The array of a variable in torch's axis order."""
    axes = _torch_axes(leaf)
    return array.transpose(axes) if axes else array


def from_torch_axes(leaf: nnx.Variable, array: np.ndarray) -> np.ndarray:
    """An array in torch's axis order as the variable holds it."""
    axes = _torch_axes(leaf)
    return array.transpose(np.argsort(axes)) if axes else array


def _variables(model: nnx.Module) -> Iterator[tuple[str, nnx.Variable]]:
    for path, leaf in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        if leaf.get_metadata().get("folded"):
            raise CheckpointError(
                f"{_key(path)} is of a folded network, whose weights no file holds: read or write "
                "those of the one that was given to flaxseg.fold"
            )
        yield _key(path), leaf


def _key(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _torch_axes(leaf: nnx.Variable) -> tuple[int, ...] | None:
    layout = leaf.get_metadata().get("layout")
    return None if layout is None else TORCH_AXES[layout]


def _torch_shape(leaf: nnx.Variable) -> tuple[int, ...]:
    shape = leaf.get_value().shape
    axes = _torch_axes(leaf)
    return tuple(shape[axis] for axis in axes) if axes else tuple(shape)


def _common_dtype(arrays: Mapping[str, Tensor]) -> np.dtype:
    return next((a.dtype for a in arrays.values()), np.dtype(np.float32))
