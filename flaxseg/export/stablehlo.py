"""StableHLO files: pictures in, logits or labels out, by JAX alone.

A file is a zip archive without compression: `about.json` tells what `program.bin` is, which
`jax.export.deserialize` reads. docs/export.md shows how.
"""

import importlib.metadata
import json
import math
import os
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax import numpy as jnp

from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.export.about import Size, Step, about, told_besides
from flaxseg.export.check import Agreement, check_pictures, checked_sizes, compare, require
from flaxseg.exported.files import ABOUT_FILE, PROGRAM_FILE
from flaxseg.files import replace_file, sha256_of
from flaxseg.model_dir import WEIGHTS_FILE, read_header
from flaxseg.native import LoadedModel
from flaxseg.ops import resize_bilinear

SUFFIX = ".stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")

MULTIPLE = 32
"""Pixels that divide the sides of pictures whose size is free: then the sides of all maps follow
from those of the picture without rounding, for no network halves a map more often than five
times."""

GUARANTEE = (
    "JAX reads it with every release of the six months after that of this jaxlib, and with older "
    "ones of the three weeks before: "
    "https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees"
)


def write_stablehlo(
    path: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    size: Size | None = None,
    steps: Collection[Step] = (),
    photos: str | os.PathLike | None = None,
    view: Mapping[str, Any] | None = None,
) -> Agreement:
    """Writes a model directory as one file, once its program has been compared with the model.

    The program runs on CPUs, NVIDIA GPUs and TPUs. It takes any number of pictures (B, H, W, 3):
    normalised float32, or uint8 with the step "preprocess". It gives logits (B, H, W, K) float32,
    or labels (B, H, W) uint8 with the step "argmax". Float32 is multiplied as such.

    Args:
        path: file to write; one that exists is replaced only once the new one is whole.
        directory: model directory.
        size: the only height and width of the pictures; None: all that the network takes and that
            are multiples of 32, of networks whose configuration is of `one_program`.
        steps: what is part of the program besides the network.
        photos: folder of photos to compare on; None: noise and drawn shapes.
        view: how the training run looked at its validation pictures, by its settings' names.

    Returns:
        How far program and model agree.

    Raises:
        CheckpointError: there is no model, both differ, or the file cannot be written.
        ConfigError: the network does not take this size.
        DataError: the folder of photos has none that can be read.
    """
    path, directory = Path(path), Path(directory)
    loaded = native.load_with_meta(directory)
    sizes = checked_sizes(loaded.model.config, size)
    for each in sizes:
        loaded.model.config.check_size(each)
    pictures = [check_pictures(each, photos) for each in sizes]
    exported = make_program(loaded, size, steps)
    content = exported.serialize()
    agreement = compare(
        jax.jit(export.deserialize(content).call),
        loaded,
        pictures,
        normalised="preprocess" not in steps,
        logits="argmax" not in steps,
    )
    require(agreement, str(path))
    _write(path, _about(directory, exported, size, steps, agreement, view), content)
    return agreement


def make_program(
    loaded: LoadedModel, size: Size | None, steps: Collection[Step] = ()
) -> export.Exported:
    """The network with its weights, batch norms folded.

    Args:
        loaded: the model.
        size: height and width of the pictures; None: any.
        steps: what is part of the program besides the network.
    """
    network = models.fold(loaded.model)

    def see(picture: jax.Array) -> jax.Array:
        inputs = loaded.preprocess(picture) if "preprocess" in steps else picture
        logits = network(inputs[None]).logits
        if "argmax" not in steps:
            return logits[0]
        logits = resize_bilinear(logits, (picture.shape[0], picture.shape[1]))
        return jnp.argmax(logits[0], -1).astype(jnp.uint8)

    # The network sees one picture: only vmap meets the unknown length of the batch.
    dtype = jnp.uint8 if "preprocess" in steps else jnp.float32
    pictures = jax.ShapeDtypeStruct(_shape(loaded.model.config, size), dtype)
    return export.export(jax.jit(jax.vmap(see)), platforms=PLATFORMS)(pictures)


def divisor(config: models.Config) -> int:
    """Of the sides of pictures whose size is free."""
    return math.lcm(config.size_divisor, MULTIPLE)


def _shape(config: models.Config, size: Size | None) -> tuple[Any, ...]:
    """Of the pictures; what is free has a name."""
    if size is not None:
        return (*export.symbolic_shape("batch"), *size, 3)
    sides = ("side", "side") if config.square else ("rows", "columns")
    free = (f"{divisor(config)}*{side}" for side in sides)
    return tuple(export.symbolic_shape(f"batch, {', '.join(free)}, 3"))


def _about(
    directory: Path,
    exported: export.Exported,
    size: Size | None,
    steps: Collection[Step],
    agreement: Agreement,
    view: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What `about.json` holds."""
    header = read_header(directory)
    taken, given = (_plain(*avals) for avals in (exported.in_avals, exported.out_avals))
    more, multiple = told_besides(directory, header), divisor(header.config)
    return {
        **about("stablehlo", header, size, multiple, steps, taken, given, more, view),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "calling_convention_version": exported.calling_convention_version,
        "guarantee": GUARANTEE,
        "platforms": list(exported.platforms),
        "weights_sha256": sha256_of(directory / WEIGHTS_FILE),
        "agreement": agreement._asdict(),
    }


def _plain(array: Any) -> list[int | str]:
    return [str(n) if export.is_symbolic_dim(n) else n for n in array.shape]


def _write(path: Path, told: dict[str, Any], content: bytes | bytearray) -> None:
    try:
        with replace_file(path) as partial, zipfile.ZipFile(partial, "w") as file:
            file.writestr(ABOUT_FILE, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
            file.writestr(PROGRAM_FILE, content)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from error
