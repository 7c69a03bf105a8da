"""The PyTorch side of `speed.py`: `torch_ref` with the weights of the Flax network."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

import torch_ref
from convert import bridge
from convert.parity.runs import DROPOUTS, drawn_masks, replayed_masks, torch_loss
from flaxseg import models
from flaxseg.bench.ceilings import Call
from flaxseg.bench.programs import MOMENTUM, RATE, Batch

LAYOUTS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}


class Twin:
    """The network in one layout, eager or compiled by inductor, and a batch.

    Args:
        model: the Flax network; the layout of its weights is another one here, the numbers are not.
        batch: what it sees; the images are normalised before.
        layout: of images and weights, a key of `LAYOUTS`.
        dtype: "bfloat16" computes under autocast.
        compiled: by torch.compile, at the first call.
    """

    def __init__(
        self, model: models.Model, batch: Batch, layout: str, dtype: str, compiled: bool = False
    ):
        order: Any = LAYOUTS[layout]
        self.config = model.config
        self.module = bridge.to_torch(model, torch_ref.create_model(model.config))
        self.module.to(memory_format=order)  # pyright: ignore[reportCallIssue]
        self.compiled = compiled
        self.network: Any = torch.compile(self.module) if compiled else self.module
        images = torch.from_numpy(batch.normalised().transpose(0, 3, 1, 2))
        self.images = images.contiguous(memory_format=order)
        self.labels = torch.from_numpy(batch.labels.astype(np.int64))
        self._autocast = dtype == "bfloat16"

    def autocast(self) -> torch.autocast:
        """The number format of the computation."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self._autocast)


class Inference(Twin):
    """Normalised images to logits of the images' size, without gradients."""

    def __call__(self) -> torch.Tensor:
        """The logits, (B, K, H, W)."""
        self.module.eval()
        with torch.inference_mode(), self.autocast():
            return self.network(self.images).logits

    def difference(self, found: np.ndarray) -> float:
        """How far logits (B, H, W, K) are from these, relative to the largest one."""
        return relative(found.transpose(0, 3, 1, 2), self().float().numpy())


class Training(Twin):
    """A step of SGD with momentum, fused, all heads included.

    The gradients are left in place until the next step begins.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.module.train()
        weights = self.module.parameters()
        self._optimizer = torch.optim.SGD(weights, RATE, momentum=MOMENTUM, fused=True)

    def loss(self, network: nn.Module) -> torch.Tensor:
        """That of the batch."""
        aux_weights = self.config.aux_weights
        with self.autocast():
            output = network(self.images, aux=bool(aux_weights))
        output = output._replace(
            logits=output.logits.float(), aux=tuple(x.float() for x in output.aux)
        )
        return torch_loss(output, self.labels, aux_weights)

    def __call__(self) -> None:
        """Makes an update."""
        self._optimizer.zero_grad()
        self.loss(self.network).backward()
        self._optimizer.step()

    def difference(self, found: np.ndarray) -> float:
        """How far the loss of the first step is from the one here, relative to it.

        Dropout keeps here what it keeps there. A compiled network takes no such masks: it is
        compared with the eager one, which is compared with Flax, both without dropout.
        """
        batch, _, height, width = self.images.shape
        # The key as `make_train_step` derives it for seed 0 and step 0.
        key = jax.random.fold_in(jax.random.key(0), 0)
        with replayed_masks(self.module, drawn_masks(self.config, (batch, height, width, 3), key)):
            eager = relative(found, self.loss(self.module).detach().numpy())
        return max(eager, self._difference_of_compiled()) if self.compiled else eager

    def _difference_of_compiled(self) -> float:
        layers = [layer for layer in self.module.modules() if isinstance(layer, DROPOUTS)]
        rates = [layer.p for layer in layers]
        for layer in layers:
            layer.p = 0.0
        both = self.module, self.network
        # With gradients, as they change what is compiled.
        expected, found = (self.loss(network).detach().numpy() for network in both)
        for layer, rate in zip(layers, rates, strict=True):
            layer.p = rate
        return relative(found, expected)


TWINS: dict[str, type[Inference] | type[Training]] = {"infer": Inference, "train": Training}


def twins(
    model: models.Model, batch: Batch, mode: str, dtype: str, against: Sequence[str]
) -> dict[str, Inference | Training]:
    """The rivals by name: each of "torch_ref" and "torch_compile", in both layouts."""
    words = {"torch_ref": "PyTorch", "torch_compile": "torch.compile"}
    return {
        f"{words[rival]} {layout}": TWINS[mode](
            model, batch, layout, dtype, compiled=rival == "torch_compile"
        )
        for rival in against
        for layout in LAYOUTS
    }


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest value; not a number if one of them is not."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def torch_product(side: int) -> Call:
    """A product of float32 matrices."""
    square, out = torch.ones(side, side), torch.empty(side, side)
    return lambda: torch.mm(square, square, out=out)


def torch_copy(length: int) -> Call:
    """Adds to every number of a vector where it lies."""
    vector = torch.ones(length)
    return lambda: vector.add_(1)
