"""ONNX files, traced from the PyTorch twin and checked against Flax with onnxruntime."""

import contextlib
import importlib.util
import json
import logging
import os
import tempfile
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.verify import torch_twin
from flaxseg import models, native
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.export.about import Size, Step, about
from flaxseg.export.check import Agreement, check_pictures, checked_sizes, compare, require
from flaxseg.exported.files import DATA_SUFFIX, IMAGES
from flaxseg.model_dir import Header, Tensor
from flaxseg.native import LoadedModel
from flaxseg.preprocess import Preprocess

if TYPE_CHECKING:
    import torch

ONNX = "onnx"
"""The format's name."""

SUFFIX = ".onnx"
NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime")
TRACED_SIZE = (2, 3)
"""Height and width of the traced image, in multiples of a patch or of what the network divides by;
two lengths, lest one is taken for the other."""

OPSETS = range(18, 24)
"""Versions of ONNX's operators that torch's exporter writes. It leaves a file at 18 that is asked
for an older one."""

OPSET = 20
"""The usual one."""

LARGEST = 1_500_000_000
"""Bytes of weights up to which a file holds them itself: protobuf reads no more than two gigabytes,
and the graph takes some."""


def write_onnx(
    path: str | os.PathLike,
    header: Header,
    arrays: Mapping[str, Tensor],
    *,
    size: Size | None = None,
    steps: Collection[Step] = (),
    opset: int | None = None,
    photos: str | os.PathLike | None = None,
    more: Mapping[str, Any] | None = None,
    view: Mapping[str, Any] | None = None,
    weights_sha256: str | None = None,
) -> Agreement:
    """Writes a network as ONNX, once the file has been compared with the model.

    It takes "images", (batch, 3, height, width) float32, normalised and their channels in order, or
    with the step "preprocess" (batch, height, width, 3) uint8, red, green and blue. It gives
    "logits", (batch, K, height, width) float32, or with the step "argmax" "labels", (batch, height,
    width) uint8. The batch has any size; height and width too, unless the network takes one alone.
    What `docs/export.md` lists stands in the file's metadata. Large weights lie in a file beside
    it, which has its name with `.data` behind it and must stay there.

    Args:
        path: file to write, overwritten only once the new one is whole.
        header: of the network.
        arrays: native key -> array in torch's axis order.
        size: the only height and width of the pictures; None: all that the network takes.
        steps: what is part of the program besides the network.
        opset: version of ONNX's operators, one of `OPSETS`; 20 if None.
        photos: folder of photos to compare on; None: noise and drawn shapes.
        more: what else is told of the model.
        view: how the training run looked at its validation pictures, by its settings' names.
        weights_sha256: of the model's file of weights, told where it is given.

    Returns:
        How far onnxruntime and Flax agree.

    Raises:
        CheckpointError: a package is missing, the place cannot be written, or both differ.
        ConfigError: an opset that torch does not write.
        DataError: the folder of photos has none that can be read.
    """
    path, opset = Path(path), OPSET if opset is None else opset
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise CheckpointError(
            f"ONNX files need {', '.join(missing)}: pip install 'flaxseg[onnx]' and torch"
        )
    if opset not in OPSETS:
        raise ConfigError(f"--opset is {opset}, it must be from {OPSETS[0]} to {OPSETS[-1]}")
    size = size or header.config.fixed_size
    program = _trace(header, arrays, size, steps, opset)
    notes = _notes(header, size, steps, opset, more or {}, view)
    if weights_sha256 is not None:
        notes["weights_sha256"] = json.dumps(weights_sha256)
    program.model.metadata_props.update(notes)
    weights = sum(array.size for array in arrays.values()) * np.dtype(np.float32).itemsize
    with _staged(path) as new:
        program.save(new, external_data=weights > LARGEST)
        agreement = _check(new, header, arrays, size, steps, photos)
        require(agreement, str(path))
    return agreement


def _notes(
    header: Header,
    size: Size | None,
    steps: Collection[Step],
    opset: int,
    more: Mapping[str, Any],
    view: Mapping[str, Any] | None,
) -> dict[str, str]:
    """The metadata, each a text of JSON."""
    sides = size or ("height", "width")
    taken = ("batch", *sides, 3) if "preprocess" in steps else ("batch", 3, *sides)
    classes = () if "argmax" in steps else (header.config.num_classes,)
    given = ("batch", *classes, *sides)
    divisor = header.config.size_divisor
    told = about("onnx", header, size, divisor, steps, taken, given, more, view)
    # Alone and short besides, for those who look for nothing else.
    told |= {"opset": opset, "classes": list(header.labels.classes), **header.preprocess.to_json()}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in told.items()}


def _trace(
    header: Header,
    arrays: Mapping[str, Tensor],
    size: Size | None,
    steps: Collection[Step],
    opset: int,
) -> Any:
    import torch

    config = header.config
    twin: Any = torch_twin(config, arrays)
    if isinstance(config, models.SETRConfig) and config.backbone.resize_positions != "none":
        twin.backbone._positions = types.MethodType(_positions_of_any_grid, twin.backbone)
    normalise = _normalisation(header.preprocess)
    # The one network whose logits may have another size than its pictures.
    stretched = isinstance(config, models.CCNetConfig) and config.upsample == "x8"

    class Program(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = twin

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if "preprocess" in steps:
                images = normalise(images)
            logits = self.network(images).logits
            if "argmax" not in steps:
                return logits
            if stretched:
                logits = torch.nn.functional.interpolate(logits, images.shape[2:], mode="bilinear")
            return logits.argmax(1).to(torch.uint8)

    image, axes = _traced_image(config, size, "preprocess" in steps)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells of packages that are not needed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                Program().eval(),
                (image,),
                dynamo=True,
                dynamic_shapes={IMAGES: axes},
                input_names=[IMAGES],
                output_names=["labels" if "argmax" in steps else "logits"],
                opset_version=opset,
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def _normalisation(preprocess: Preprocess) -> Callable[["torch.Tensor"], "torch.Tensor"]:
    """`Preprocess` in torch, from (B, H, W, 3) uint8 to (B, 3, H, W) float32."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))

    def normalise(images: torch.Tensor) -> torch.Tensor:
        pixels = (images.permute(0, 3, 1, 2).to(torch.float32) / 255 - mean) / std
        return pixels if preprocess.channels == "rgb" else pixels.flip(1)

    return normalise


def _traced_image(
    config: models.Config, size: Size | None, of_bytes: bool
) -> tuple["torch.Tensor", dict[int, Any]]:
    """The image to trace with, and which of its axes have any length."""
    import torch
    from torch.export import Dim

    unit = max(config.size_divisor, 32)
    height, width = size or (unit * count for count in TRACED_SIZE)
    rows, cols = (1, 2) if of_bytes else (2, 3)
    axes: dict[int, Any] = {0: "batch"}
    if size is None and config.square:
        height = width
        axes |= dict.fromkeys((rows, cols), config.size_divisor * Dim("side"))
    elif size is None:
        axes |= {rows: "height", cols: "width"}
    if of_bytes:
        return torch.zeros(2, height, width, 3, dtype=torch.uint8), axes
    return torch.zeros(2, 3, height, width), axes


def _positions_of_any_grid(vit: Any, grid: tuple[int, int]) -> "torch.Tensor":
    """`torch_ref.vit.ViT._positions` without a Python condition, which a trace cannot keep."""
    import torch
    from torch.nn import functional as F

    rows, cols = vit.config.grid
    first, patches = vit.pos_embed[:, :1], vit.pos_embed[:, 1:]
    maps = patches.transpose(1, 2).unflatten(2, (rows, cols))
    resized = F.interpolate(maps, size=grid, mode="bilinear", align_corners=False)
    count = grid[0] * grid[1]
    # As many patches as rows, in whatever shape: the table as it is. Else the index only has to
    # be a valid one.
    table = patches[:, torch.arange(count) % (rows * cols)]
    same = torch.scalar_tensor(count) == rows * cols
    return torch.cat([first, torch.where(same, table, resized.flatten(2).transpose(1, 2))], dim=1)


@contextlib.contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """A new file of the same name elsewhere, which takes the place of `path`, with its data.

    Raises:
        CheckpointError: it cannot be written, such as on a full or read-only disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name of the data stands in the file, so both have their own names from the start.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            new = Path(folder) / path.name
            yield new
            for name in (f"{path.name}{DATA_SUFFIX}", path.name):
                if (new.with_name(name)).exists():
                    new.with_name(name).replace(path.with_name(name))
    except (OSError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be written ({reason}); what was there before is untouched"
        ) from error


def _check(
    path: Path,
    header: Header,
    arrays: Mapping[str, Tensor],
    size: Size | None,
    steps: Collection[Step],
    photos: str | os.PathLike | None,
) -> Agreement:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    normalised, logits = "preprocess" not in steps, "argmax" not in steps

    def program(images: np.ndarray) -> np.ndarray:
        given = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if normalised else images
        (found,) = session.run(None, {IMAGES: given})
        return np.asarray(found).transpose(0, 2, 3, 1) if logits else np.asarray(found)

    model = models.eval_view(native.fill(models.abstract_model(header.config), arrays))
    loaded = LoadedModel(model, header.labels, header.preprocess)
    pictures = [check_pictures(each, photos) for each in checked_sizes(header.config, size)]
    return compare(program, loaded, pictures, normalised=normalised, logits=logits)
