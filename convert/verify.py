"""Runs a network's weights in several frameworks and compares the logits."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from flax import nnx

from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import COUNTER, Tensor, read_directory

if TYPE_CHECKING:
    from torch import nn

BOUND = 1e-4
"""Largest difference of two logits that passes, relative to the largest logit; float32 in both."""

SIZE = (128, 128)
"""Height and width of the image, where the network takes more than one."""


def torch_logits(config: models.Config, arrays: Mapping[str, Tensor]) -> np.ndarray:
    """torch_ref's logits (1, K, h, w) of `random_image`, at the heads' own resolution."""
    import torch

    twin = torch_twin(config, arrays)
    with torch.inference_mode():
        return twin(torch.from_numpy(random_image(config)), resize=False).logits.numpy()


def check_directory(directory: Path, expected: np.ndarray) -> float:
    """How far Flax, with the weights of a model directory, is from PyTorch's logits.

    Args:
        directory: what was written.
        expected: of `torch_logits`.

    Raises:
        CheckpointError: by more than `BOUND`, or the logits are no finite numbers.
    """
    header, arrays = read_directory(directory)
    image = random_image(header.config)
    found = run_flax(header.config, arrays, image, resize=False)
    return compare("PyTorch", expected, found)


def random_image(config: models.Config) -> np.ndarray:
    """A normalised image (1, 3, H, W) of a size that the network takes."""
    image = np.random.default_rng(0).standard_normal((1, 3, *(config.fixed_size or SIZE)))
    return image.astype(np.float32)


def run_flax(
    config: models.Config, arrays: Mapping[str, Tensor], image: np.ndarray, *, resize: bool
) -> np.ndarray:
    """Flax's logits (1, K, h, w) of an image (1, 3, H, W)."""
    model = models.eval_view(native.fill(models.abstract_model(config), arrays))
    graphdef, state = nnx.split(model)

    def forward(state: nnx.State, images: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state)(images, resize=resize).logits

    forward = jax.jit(forward, compiler_options=models.quick_compile())
    return np.asarray(forward(state, image.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)


def torch_twin(config: models.Config, arrays: Mapping[str, Tensor]) -> "nn.Module":
    """The network in PyTorch, in eval mode, holding these very arrays."""
    import torch

    import torch_ref

    # Built without memory, then given the arrays themselves: no second copy of the weights.
    with torch.device("meta"):
        model = torch_ref.create_model(config)
    counters = [key for key in model.state_dict() if key.endswith(COUNTER)]
    tensors = {key: torch.zeros((), dtype=torch.int64) for key in counters}
    for key, array in arrays.items():
        tensors[key] = torch.from_numpy(_writable(np.asarray(array)))
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _writable(array: np.ndarray) -> np.ndarray:
    """As torch takes it: no half precision of numpy's, in order; the array itself if it can be."""
    wide = array.astype(np.float32) if array.itemsize < 4 else array
    return np.require(wide, requirements=["C", "W"])


def compare(other: str, theirs: np.ndarray, flax: np.ndarray) -> float:
    """The largest difference of two logits, relative to the largest logit.

    Raises:
        CheckpointError: it is above `BOUND`, or the logits are no finite numbers.
    """
    apart = float(np.max(np.abs(flax - theirs)) / np.max(np.abs(theirs)))
    if not apart <= BOUND:
        raise CheckpointError(
            f"{other} and Flax differ by {apart:.1e} of the largest logit on a random image, above "
            f"{BOUND:.0e}: the weights are damaged, or this is a bug to report"
        )
    return apart
