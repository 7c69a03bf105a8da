"""Runs a network's weights in several frameworks and compares the logits."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jax import numpy as jnp

from flaxseg import models, native
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import COUNTER

if TYPE_CHECKING:
    from torch import nn

BOUND = 1e-4
"""Largest difference of two logits that passes, relative to the largest logit; float32 in both."""

SIZE = (128, 128)
"""Height and width of the image, where the network takes more than one."""


def verify(config: models.Config, arrays: Mapping[str, np.ndarray]) -> float:
    """The largest difference between torch_ref's and Flax's logits on a random image, relative.

    Args:
        config: of the network.
        arrays: native key -> array in torch's axis order.

    Raises:
        CheckpointError: it is above `BOUND`, or the logits are no finite numbers.
    """
    import torch

    image = random_image(config)
    twin = torch_twin(config, arrays)
    with torch.inference_mode():
        expected = twin(torch.from_numpy(image), resize=False).logits.numpy()
    return compare("PyTorch", expected, run_flax(config, arrays, image, resize=False))


def random_image(config: models.Config) -> np.ndarray:
    """A normalised image (1, 3, H, W) of a size that the network takes."""
    image = np.random.default_rng(0).standard_normal((1, 3, *(config.fixed_size or SIZE)))
    return image.astype(np.float32)


def run_flax(
    config: models.Config, arrays: Mapping[str, np.ndarray], image: np.ndarray, *, resize: bool
) -> np.ndarray:
    """Flax's logits (1, K, h, w) of an image (1, 3, H, W)."""
    model = models.eval_view(native.fill(models.abstract_model(config), arrays))
    logits = model(jnp.asarray(image.transpose(0, 2, 3, 1)), resize=resize).logits
    return np.asarray(logits).transpose(0, 3, 1, 2)


def torch_twin(config: models.Config, arrays: Mapping[str, np.ndarray]) -> "nn.Module":
    """The network in PyTorch, in eval mode, holding these very arrays."""
    import torch

    import torch_ref

    # Built without memory, then given the arrays themselves: no second copy of the weights.
    with torch.device("meta"):
        model = torch_ref.create_model(config)
    counters = [key for key in model.state_dict() if key.endswith(COUNTER)]
    tensors = {key: torch.zeros((), dtype=torch.int64) for key in counters}
    for key, array in arrays.items():
        tensors[key] = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    model.load_state_dict(tensors, assign=True)
    return model.eval()


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
