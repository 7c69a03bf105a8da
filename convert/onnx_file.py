"""ONNX files, traced from the PyTorch twin and checked against Flax with onnxruntime."""

import importlib.util
import json
import logging
import os
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.io import replacing
from convert.verify import compare, random_image, run_flax, torch_twin
from flaxseg import models
from flaxseg.errors import CheckpointError
from flaxseg.labels import LabelSet
from flaxseg.model_dir import Tensor
from flaxseg.origin import Chain, chain_to_json
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


def write_onnx(
    path: str | os.PathLike,
    config: models.Config,
    arrays: Mapping[str, Tensor],
    *,
    labels: LabelSet | None = None,
    preprocess: Preprocess | None = None,
    origin: Chain = (),
    temperature: float | None = None,
) -> float:
    """Writes a network as ONNX: "images" (batch, 3, height, width) to "logits" (batch, K, H, W).

    Images are normalised already, their channels in order. The batch has any size; height and
    width too, unless the network takes one size alone. Class names, `Preprocess.to_json`,
    the steps of the origin with their licences, and the temperature stand in the file's metadata.

    Args:
        path: file to write, overwritten only once the new one is whole.
        config: of the network.
        arrays: native key -> array in torch's axis order.
        labels: class names; numbered ones if None.
        preprocess: normalisation of the images; ImageNet's if None.
        origin: where the weights come from.
        temperature: what the logits are to be divided by before they become probabilities.

    Returns:
        The largest difference between onnxruntime's and Flax's logits on a random image, relative
        to the largest logit.

    Raises:
        CheckpointError: a package is missing, the place cannot be written, or the logits differ.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise CheckpointError(
            f"ONNX files need {', '.join(missing)}: pip install 'flaxseg[onnx]' and torch"
        )
    program = _trace(config, arrays)
    labels = labels or LabelSet.generic(config.num_classes)
    notes = {"classes": list(labels.classes), **(preprocess or Preprocess()).to_json()}
    notes |= {"origin": chain_to_json(origin)} if origin else {}
    notes |= {} if temperature is None else {"temperature": temperature}
    program.model.metadata_props.update({key: json.dumps(note) for key, note in notes.items()})
    with replacing(Path(path)) as new:
        program.save(new)
        return _check(new, config, arrays)


def _trace(config: models.Config, arrays: Mapping[str, Tensor]) -> Any:
    import torch

    twin: Any = torch_twin(config, arrays)
    if isinstance(config, models.SETRConfig) and config.backbone.resize_positions != "none":
        twin.backbone._positions = types.MethodType(_positions_of_any_grid, twin.backbone)
    size, axes = _traced_size(config)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = twin

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images).logits

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells of packages that are not needed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                Logits().eval(),
                (torch.zeros(2, 3, *size),),
                dynamo=True,
                dynamic_shapes={"images": axes},
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def _traced_size(config: models.Config) -> tuple[tuple[int, int], dict[int, Any]]:
    """Height and width of the traced image, and which of the input's axes have any length."""
    from torch.export import Dim

    if config.fixed_size:
        return config.fixed_size, {0: "batch"}
    unit = max(config.size_divisor, 32)
    height, width = (unit * count for count in TRACED_SIZE)
    if config.square:
        side = config.size_divisor * Dim("side")
        return (width, width), {0: "batch", 2: side, 3: side}
    return (height, width), {0: "batch", 2: "height", 3: "width"}


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


def _check(path: Path, config: models.Config, arrays: Mapping[str, Tensor]) -> float:
    import onnxruntime

    image = random_image(config)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": image})
    return compare("ONNX", np.asarray(found), run_flax(config, arrays, image, resize=True))
