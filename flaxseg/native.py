"""The native model directory: `config.json` beside `model.safetensors`.

The tensors carry their dotted path in the network as key and torch's axis order, so that
`torch_ref` loads the same file as it is. Reading and writing need neither torch nor JAX devices.
"""

import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike
from safetensors.numpy import load_file, save_file

from flaxseg import models
from flaxseg.errors import CheckpointError, FlaxsegError
from flaxseg.labels import LabelSet
from flaxseg.preprocess import Preprocess as Preprocess

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = "flaxseg"
FORMAT_VERSION = 1

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


class Header(NamedTuple):
    """What `config.json` holds."""

    name: str
    config: models.Config
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


def fill(model: models.Model, arrays: Mapping[str, np.ndarray]) -> models.Model:
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
        array = np.asarray(arrays[key])
        axes = TORCH_AXES.get(leaf.get_metadata().get("layout"))
        ours = array.transpose(np.argsort(axes)) if axes else array
        leaf.set_value(jnp.asarray(ours, leaf.get_value().dtype))
    nnx.update(model, state)
    return model


def check_keys(
    expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any], what: str = "weights"
):
    """Compares keys and shapes with what the network needs.

    Raises:
        CheckpointError: names all missing, unexpected and misshapen keys.
    """
    missing = [key for key in expected if key not in arrays]
    unexpected = [key for key in arrays if key not in expected]
    misshapen = [
        f"{key}: {tuple(arrays[key].shape)}, expected {tuple(shape)}"
        for key, shape in expected.items()
        if key in arrays and tuple(arrays[key].shape) != tuple(shape)
    ]
    if not (missing or unexpected or misshapen):
        return
    unexpected = [key + _near(key, missing) for key in unexpected]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    lines = [f"{len(keys)} {name}: {', '.join(keys)}" for name, keys in groups.items() if keys]
    raise CheckpointError(f"{what} do not fit the network; {'; '.join(lines)}")


def save(
    model: models.Model,
    directory: str | os.PathLike,
    *,
    labels: LabelSet | None = None,
    preprocess: Preprocess | None = None,
    name: str | None = None,
):
    """Writes the model directory; one that exists is replaced only once the new one is whole.

    Args:
        model: a network of `flaxseg.models`.
        directory: where to write.
        labels: class names and colours; numbered ones if None.
        preprocess: normalisation of the images; ImageNet's if None.
        name: the registry name to note; the architecture's if None.

    Raises:
        CheckpointError: the place holds something else than a model directory, or no class
            count of `labels` and model agree.
    """
    labels = labels or LabelSet.generic(model.config.num_classes)
    if labels.num_classes != model.config.num_classes:
        raise CheckpointError(
            f"label set {labels.name!r} has {labels.num_classes} classes, "
            f"the model has {model.config.num_classes}: pass the labels it was trained with"
        )
    config = models.config_to_json(model.config)
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "name": name or config["architecture"],
        "model": config,
        "labels": labels.to_json(),
        "preprocess": (preprocess or Preprocess()).to_json(),
    }
    write_directory(directory, header, state_dict(model))


def load(directory: str | os.PathLike, *, dtype: DTypeLike = jnp.float32) -> models.Model:
    """The network of a model directory, in eval mode and ready for inference.

    Args:
        directory: what `save` wrote.
        dtype: of the computation; parameters keep float32.

    Raises:
        CheckpointError: what is missing, broken or does not fit, by file and key.
    """
    return load_with_meta(directory, dtype=dtype).model


def load_with_meta(directory: str | os.PathLike, *, dtype: DTypeLike = jnp.float32) -> LoadedModel:
    """Like `load`, with the class names and the normalisation that the weights were trained on."""
    header, arrays = read_directory(directory)
    param_dtype = jnp.promote_types(_common_dtype(arrays), jnp.float32)
    model = models.abstract_model(header.config, dtype=dtype, param_dtype=param_dtype)
    try:
        model = models.eval_view(fill(model, arrays))
    except CheckpointError as error:
        raise CheckpointError(f"{Path(directory) / WEIGHTS_FILE}: {error}") from None
    return LoadedModel(model, header.labels, header.preprocess)


def write_directory(
    directory: str | os.PathLike, header: dict[str, Any], arrays: Mapping[str, np.ndarray]
):
    """Writes config.json and model.safetensors beside `directory` and renames them into place."""
    target = Path(directory)
    if target.exists() and not (target / CONFIG_FILE).is_file() and not _is_empty(target):
        raise CheckpointError(f"{target} exists and is no model directory: choose another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        tensors = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        save_file(tensors, staging / WEIGHTS_FILE, metadata={"format": "pt"})
        (staging / CONFIG_FILE).write_text(json.dumps(header, indent=2) + "\n")
        staging.chmod(0o755)
        _swap_in(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def read_directory(directory: str | os.PathLike) -> tuple[Header, dict[str, np.ndarray]]:
    """The header and the tensors of a model directory, checked as far as files go.

    Raises:
        CheckpointError: a file is missing or broken.
    """
    directory = Path(directory)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise CheckpointError(
                f"{directory} is no model directory: it has no {name} (flaxseg.save writes both)"
            )
    header = _read_header(directory / CONFIG_FILE)
    try:
        return header, load_file(directory / WEIGHTS_FILE)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{directory / WEIGHTS_FILE} cannot be read ({error}): copy or convert it again"
        ) from None


def to_torch_axes(leaf: nnx.Variable, array: np.ndarray) -> np.ndarray:
    """The array of a variable in torch's axis order."""
    axes = TORCH_AXES.get(leaf.get_metadata().get("layout"))
    return array.transpose(axes) if axes else array


def _read_header(path: Path) -> Header:
    try:
        values = json.loads(path.read_text())
        if values["format"] != FORMAT or values["version"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} is format {values['format']!r} version {values['version']}, this "
                f"release reads {FORMAT!r} up to version {FORMAT_VERSION}: update flaxseg"
            )
        return Header(
            values["name"],
            models.config_from_json(values["model"]),
            LabelSet.from_json(values["labels"]),
            Preprocess.from_json(values["preprocess"]),
        )
    except FlaxsegError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): save the model again") from None
    except KeyError as error:
        raise CheckpointError(f"{path} has no entry {error}: flaxseg.save writes it") from None


def _variables(model: nnx.Module) -> Iterator[tuple[str, nnx.Variable]]:
    for path, leaf in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        yield _key(path), leaf


def _key(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _torch_shape(leaf: nnx.Variable) -> tuple[int, ...]:
    shape = leaf.get_value().shape
    axes = TORCH_AXES.get(leaf.get_metadata().get("layout"))
    return tuple(shape[axis] for axis in axes) if axes else tuple(shape)


def _near(key: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(key, candidates, n=1, cutoff=0.8)
    return f" (near {close[0]})" if close else ""


def _common_dtype(arrays: Mapping[str, np.ndarray]) -> np.dtype:
    return next((a.dtype for a in arrays.values()), np.dtype(np.float32))


def _is_empty(target: Path) -> bool:
    return target.is_dir() and not any(target.iterdir())


def _swap_in(staging: Path, target: Path):
    """Renames staging to target; a directory there steps aside first and goes last."""
    if not target.exists():
        staging.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    target.rename(aside / "old")
    staging.rename(target)
    shutil.rmtree(aside, ignore_errors=True)
