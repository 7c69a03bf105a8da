"""Exported files: what they tell about themselves, and the programs in them.

A .stablehlo file is a zip archive whose first entry, `about.json`, tells what `program.bin` is. An
.onnx file tells the same in its metadata: each entry of `about.json` there is a text of JSON.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax import export
from jax import numpy as jnp

from flaxseg import models
from flaxseg.errors import CheckpointError, FlaxsegError
from flaxseg.exported.network import ExportedConfig, ExportedNetwork, Program
from flaxseg.labels import LabelSet
from flaxseg.origin import Chain, chain_from_json
from flaxseg.preprocess import Preprocess

Kind = Literal["stablehlo", "onnx"]

FORMATS: dict[Kind, str] = {"stablehlo": "flaxseg-stablehlo", "onnx": "flaxseg-onnx"}
"""What the entry `format` says."""

VERSION = 1
ABOUT_FILE = "about.json"
PROGRAM_FILE = "program.bin"
IMAGES = "images"
"""Name of an ONNX file's input."""

DATA_SUFFIX = ".data"
"""Behind the name of an ONNX file: that of the file with its weights, where they are large."""

_ZIP = b"PK\x03\x04"
_NAME_AT = 30
_ONNX = b"\x08"


class About(NamedTuple):
    """What an exported file tells of its model.

    Attributes:
        name: registry name of the network.
        config: which pictures it takes, with the network's own configuration.
        labels: names and colours of its classes.
        preprocess: normalisation of its images.
        takes_bytes: the normalisation is part of the program.
        labels_only: so is the choice of the class.
        origin: where the weights come from.
        temperature: what the logits are divided by before they become probabilities; None: 1.
        view: how its training run looked at validation pictures, by its settings' names.
        values: all that stands there.
    """

    name: str
    config: ExportedConfig
    labels: LabelSet
    preprocess: Preprocess
    takes_bytes: bool
    labels_only: bool
    origin: Chain
    temperature: float | None
    view: dict[str, Any]
    values: dict[str, Any]


def kind_of(path: str | os.PathLike) -> Kind | None:
    """What an exported file is, by its first bytes; None: it is none."""
    if not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        start = file.read(_NAME_AT + len(ABOUT_FILE))
    if start.startswith(_ZIP):
        return "stablehlo" if start[_NAME_AT:] == ABOUT_FILE.encode() else None
    return "onnx" if start.startswith(_ONNX) else None


def files_of(path: str | os.PathLike) -> list[Path]:
    """The exported file, and the one with its weights if there is one."""
    path = Path(path)
    beside = path.with_name(path.name + DATA_SUFFIX)
    return [path, beside] if kind_of(path) == "onnx" and beside.is_file() else [path]


def read_about(path: str | os.PathLike) -> About:
    """What an exported file tells of its model.

    Raises:
        CheckpointError: it is no exported file, or not one of `flaxseg export`, or a newer one; or
            onnxruntime is missing for an ONNX file.
    """
    path = Path(path)
    values = _stablehlo_about(path) if kind_of(path) == "stablehlo" else _session(path)[1]
    return _about(path, values)


def open_exported(path: str | os.PathLike) -> tuple[ExportedNetwork, About]:
    """The program of an exported file as a network, and what it tells of itself.

    Raises:
        CheckpointError: as of `read_about`, or the program cannot be read.
    """
    path = Path(path)
    if kind_of(path) == "stablehlo":
        about = _about(path, _stablehlo_about(path))
        program = _stablehlo_program(path)
    else:
        session, values = _session(path)
        about = _about(path, values)
        program = _onnx_program(session, about)
    network = ExportedNetwork(
        about.config,
        program,
        takes_bytes=about.preprocess if about.takes_bytes else None,
        labels_only=about.labels_only,
    )
    return network, about


def _about(path: Path, values: Mapping[str, Any]) -> About:
    found = values.get("format")
    if found not in FORMATS.values():
        raise CheckpointError(
            f"{path} was not written by flaxseg export: it does not tell its classes and its "
            "normalisation"
        )
    if values.get("version", 0) > VERSION:
        raise CheckpointError(
            f"{path} is {found} version {values['version']}, this release reads up to {VERSION}: "
            "update flaxseg"
        )
    with _explained(path):
        size, divisor = values["sizes"]["fixed"], values["sizes"]["divisor"]
        network = models.config_from_json(values["model"])
        return About(
            values["name"],
            ExportedConfig(network, tuple(size) if size else None, divisor),
            LabelSet.from_json(values["labels"]),
            Preprocess.from_json(values["preprocess"]),
            values["input"]["dtype"] == "uint8",
            values["output"]["values"] == "labels",
            chain_from_json(values.get("origin", [])),
            values.get("temperature"),
            dict(values.get("view", {})),
            dict(values),
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FlaxsegError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except KeyError as error:
        raise CheckpointError(f"{path} has no entry {error}: export the model again") from None
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is damaged ({error}): export the model again") from None


def _stablehlo_about(path: Path) -> dict[str, Any]:
    with _explained(path), zipfile.ZipFile(path) as file:
        return json.loads(file.read(ABOUT_FILE))


def _stablehlo_program(path: Path) -> Program:
    with _explained(path), zipfile.ZipFile(path) as file:
        content = file.read(PROGRAM_FILE)
    try:
        exported = export.deserialize(bytearray(content))
    except Exception as error:  # JAX raises anything about programs that are too old or damaged
        raise CheckpointError(
            f"{path} cannot be read by jax {jax.__version__} ({_line(error)}): export the model "
            "again, docs/export.md tells how long JAX reads a file"
        ) from error
    return exported.call


def _session(path: Path) -> tuple[Any, dict[str, Any]]:
    """onnxruntime's session, and what the file tells of itself."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise CheckpointError(f"{path} needs onnxruntime: pip install onnxruntime") from None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class that it documents
        raise CheckpointError(f"{path} cannot be read by onnxruntime ({_line(error)})") from None
    values = {}
    for key, text in session.get_modelmeta().custom_metadata_map.items():
        with contextlib.suppress(ValueError):  # other programs add what they like
            values[key] = json.loads(text)
    return session, values


def _onnx_program(session: Any, about: About) -> Program:
    """A program that leaves JAX for onnxruntime, on the CPU, and comes back."""

    def run(images: jax.Array) -> np.ndarray:
        return session.run(None, {IMAGES: np.asarray(images)})[0]

    def call(images: jax.Array) -> jax.Array:
        given = images if about.takes_bytes else images.transpose(0, 3, 1, 2)
        if about.labels_only:
            labels = jax.ShapeDtypeStruct(images.shape[:3], jnp.uint8)
            return jax.pure_callback(run, labels, given)
        batch, height, width, classes = _logits_shape(about.config.network, images.shape)
        logits = jax.ShapeDtypeStruct((batch, classes, height, width), jnp.float32)
        return jax.pure_callback(run, logits, given).transpose(0, 2, 3, 1)

    return call


def _logits_shape(config: models.Config, images: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a network's logits, which may have another height and width than the images."""
    graphdef, state = nnx.split(models.eval_view(models.abstract_model(config)))

    def look(state: nnx.State, images: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state)(images).logits

    return jax.eval_shape(look, state, jax.ShapeDtypeStruct(images, jnp.float32)).shape


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
