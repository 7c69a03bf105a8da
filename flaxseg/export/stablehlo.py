"""StableHLO files: pictures in, logits or labels out, by JAX alone.

A file is a zip archive without compression: `about.json` tells what `program.bin` is, which
`jax.export.deserialize` reads. docs/export.md shows how.
"""

import importlib.metadata
import json
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, get_args

import jax
from jax import export
from jax import numpy as jnp

import flaxseg
from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.export.check import Agreement, check_pictures, compare, require
from flaxseg.files import replace_file, sha256_of
from flaxseg.model_dir import CONFIG_FILE, WEIGHTS_FILE, read_header
from flaxseg.native import LoadedModel

SUFFIX = ".stablehlo"
FORMAT = "flaxseg-stablehlo"
FORMAT_VERSION = 1
ABOUT_FILE = "about.json"
PROGRAM_FILE = "program.bin"
PLATFORMS = ("cpu", "cuda", "tpu")

Step = Literal["preprocess", "argmax"]
"""What may be part of the program besides the network: normalisation before it, labels after."""

STEPS: tuple[Step, ...] = get_args(Step)

GUARANTEE = (
    "JAX reads it with every release of the six months after that of this jaxlib, and with older "
    "ones of the three weeks before: "
    "https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees"
)


def write_stablehlo(
    path: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    size: tuple[int, int],
    steps: Collection[Step] = (),
    photos: str | os.PathLike | None = None,
) -> Agreement:
    """Writes a model directory as one file, once its program has been compared with the model.

    The program runs on CPUs, NVIDIA GPUs and TPUs. It takes any number of pictures (B, H, W, 3) of
    the size that it was made for: normalised float32, or uint8 with the step "preprocess". It gives
    logits (B, H, W, K) float32, or labels (B, H, W) uint8 with the step "argmax". Float32 is
    multiplied as such.

    Args:
        path: file to write; one that exists is replaced only once the new one is whole.
        directory: model directory.
        size: height and width of the pictures.
        steps: what is part of the program besides the network.
        photos: folder of photos to compare on; None: noise and drawn shapes.

    Returns:
        How far program and model agree.

    Raises:
        CheckpointError: there is no model, both differ, or the file cannot be written.
        ConfigError: the network does not take this size.
        DataError: the folder of photos has none that can be read.
    """
    path, directory = Path(path), Path(directory)
    loaded = native.load_with_meta(directory)
    loaded.model.config.check_size(size)
    pictures = check_pictures(size, photos)
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
    _write(path, _about(directory, exported, size, steps, agreement), content)
    return agreement


def make_program(
    loaded: LoadedModel, size: tuple[int, int], steps: Collection[Step] = ()
) -> export.Exported:
    """The network with its weights, batch norms folded, for pictures of one size.

    Args:
        loaded: the model.
        size: height and width of the pictures.
        steps: what is part of the program besides the network.
    """
    network = models.fold(loaded.model)

    def see(picture: jax.Array) -> jax.Array:
        inputs = loaded.preprocess(picture) if "preprocess" in steps else picture
        logits = network(inputs[None]).logits[0]
        return jnp.argmax(logits, -1).astype(jnp.uint8) if "argmax" in steps else logits

    # The network sees one picture, whose sides are plain numbers: only vmap meets the unknown
    # length of the batch.
    (batch,) = export.symbolic_shape("batch")
    dtype = jnp.uint8 if "preprocess" in steps else jnp.float32
    pictures = jax.ShapeDtypeStruct((batch, *size, 3), dtype)
    return export.export(jax.jit(jax.vmap(see)), platforms=PLATFORMS)(pictures)


def _about(
    directory: Path,
    exported: export.Exported,
    size: tuple[int, int],
    steps: Collection[Step],
    agreement: Agreement,
) -> dict[str, Any]:
    """What `about.json` holds."""
    told = read_header(directory).to_json()
    values = json.loads((directory / CONFIG_FILE).read_text())
    (taken,), (given,) = exported.in_avals, exported.out_avals
    bytes_in, labels_out = "preprocess" in steps, "argmax" in steps
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "flaxseg": flaxseg.__version__,
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "calling_convention_version": exported.calling_convention_version,
        "guarantee": GUARANTEE,
        "platforms": list(exported.platforms),
        **{key: value for key, value in told.items() if key not in ("format", "version")},
        "input": {
            "shape": [str(taken.shape[0]), *size, 3],
            "dtype": str(taken.dtype),
            "values": "red, green, blue, 0 to 255" if bytes_in else "normalised, see preprocess",
        },
        "output": {
            "shape": [str(given.shape[0]), *given.shape[1:]],
            "dtype": str(given.dtype),
            "values": "labels" if labels_out else "logits",
        },
        "weights_sha256": sha256_of(directory / WEIGHTS_FILE),
        "agreement": agreement._asdict(),
        # Whatever else is told of the model goes where it goes.
        "more": {key: value for key, value in values.items() if key not in told},
    }


def _write(path: Path, about: dict[str, Any], content: bytes | bytearray) -> None:
    try:
        with replace_file(path) as partial, zipfile.ZipFile(partial, "w") as file:
            file.writestr(ABOUT_FILE, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
            file.writestr(PROGRAM_FILE, content)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}") from error
