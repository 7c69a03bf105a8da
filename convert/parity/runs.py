"""Runs a Flax network and its PyTorch twin on the same weights, images and dropout masks.

Both runs answer in numpy, channels first, under native keys, so that figures compare arrays and
need to know neither framework.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import torch
from flax import nnx
from jax import numpy as jnp
from torch import nn
from torch.nn import functional as F

import torch_ref
from convert import bridge
from convert.parity.compiling import FAST
from flaxseg import models, native, ops
from flaxseg.labels import IGNORE
from flaxseg.ops import dropout
from flaxseg.training.optim.adam import scale_by_adam
from torch_ref.blocks import DropPath, MapDropout

Arrays = dict[str, np.ndarray]

COMPILER_OPTIONS: dict[str, dict[str, Any]] = {"float32": {}, "float64": FAST}
"""Compiling takes most of the time. Float64 tells whether both compute the same function, which
does not depend on the machine code's quality; float32 is compiled like a user's network."""


class Batch(NamedTuple):
    """One training batch.

    Attributes:
        images: (B, 3, H, W) float32.
        labels: (B, H, W), `IGNORE` here and there.
        masks: what each active dropout keeps, in the order of the calls: true and false, channels
            last, with 1 where entries share one draw.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: tuple[np.ndarray, ...] = ()


class Step(NamedTuple):
    """One training step's numbers.

    Attributes:
        loss: of the batch.
        outputs: logits and auxiliary logits, (B, K, H', W') each.
        gradients: native key -> gradient in torch's axis order.
        statistics: native key -> running statistic after the step.
    """

    loss: float
    outputs: list[np.ndarray]
    gradients: Arrays
    statistics: Arrays


class Optimizer(NamedTuple):
    """The same optimiser in both worlds."""

    flax: optax.GradientTransformation
    torch: Callable[[Any], torch.optim.Optimizer]


OPTIMIZERS = {
    "SGD": Optimizer(
        optax.sgd(1e-3, momentum=0.9), lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9)
    ),
    "AdamW": Optimizer(
        optax.chain(
            scale_by_adam((0.9, 0.999)), optax.add_decayed_weights(0.01), optax.scale(-1e-3)
        ),
        lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.01),
    ),
}


def random_state(config: models.Config, seed: int) -> Arrays:
    """Float32 weights with nothing at a default: no zero gate, no unit scale, no empty statistic.

    Gains keep the activations of deep networks near 1, and the energies of every attention and
    gate where softmax and sigmoid are neither flat nor steps.
    """
    rng = np.random.default_rng(seed)
    shapes = native.leaves(models.abstract_model(config))
    return {
        key: _random_tensor(key, shape, rng).astype(np.float32) for key, shape in shapes.items()
    }


EMBEDDINGS = ("pos_embed", "cls_token")
"""Parameters that are added to tokens instead of multiplying them."""


BRANCH_ENDS = (".bn3.", ".project.bn.")
"""The last norms of residual branches, whose sum would grow from block to block."""


def _random_tensor(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    leaf = key.rpartition(".")[2]
    if leaf == "running_var":
        return rng.uniform(0.5, 1.5, shape)
    noise = rng.standard_normal(shape)
    if len(shape) == 1:
        if leaf == "gamma":
            return 0.5 + 0.1 * noise
        if leaf == "weight":
            return (0.4 if any(norm in key for norm in BRANCH_ENDS) else 1.0) + 0.1 * noise
        return 0.1 * noise
    if leaf in EMBEDDINGS:
        return noise
    gain = 0.1 if ".query." in key or ".key." in key else 1.0
    return gain * noise * math.sqrt(1.5 / math.prod(shape[1:]))


def random_batch(config: models.Config, size: tuple[int, int], seed: int, count: int = 2) -> Batch:
    """Normal images, uniform labels with one in ten ignored, masks at the network's rates."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, config.num_classes, (count, *size))
    labels[rng.random(labels.shape) < 0.1] = IGNORE
    images = rng.standard_normal((count, 3, *size)).astype(np.float32)
    draws = _dropout_calls(config, (count, *size, 3))
    masks = tuple(rng.random(shape) >= rate for rate, shape in draws)
    return Batch(images, labels, masks)


@functools.cache
def _dropout_calls(
    config: models.Config, shape: tuple[int, ...]
) -> tuple[tuple[float, tuple[int, ...]], ...]:
    """Rate and mask shape of every active dropout in train mode, in the order of the calls."""
    calls = []

    def note(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
        calls.append((rate, shape))
        return jnp.ones(shape, bool)

    def forward(images: jax.Array) -> models.Output:
        model = models.build(dataclasses.replace(config, remat=False), rngs=nnx.Rngs(0))
        return model(images, aux=True, rngs=nnx.Rngs(dropout=0))

    with masks_from(note):
        nnx.eval_shape(forward, jax.ShapeDtypeStruct(shape, jnp.float32))
    return tuple(calls)


def _in_own_precision(method: Callable) -> Callable:
    """JAX has float64 only where it is switched on."""

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        with jax.enable_x64(self.dtype == "float64"):
            return method(self, *args, **kwargs)

    return run


class FlaxRun:
    """The Flax network with given weights, in "float64" or "float32"."""

    def __init__(self, config: models.Config, state: Mapping[str, np.ndarray], dtype: str):
        self.config = config
        self.dtype = dtype
        self.model = self._build(state)
        options = COMPILER_OPTIONS[dtype]
        self._gradient = jax.jit(
            jax.value_and_grad(self._loss, has_aux=True), compiler_options=options
        )
        self._output = jax.jit(self._forward, static_argnames="resize", compiler_options=options)
        self._maps = jax.jit(self._encode, compiler_options=options)

    @_in_own_precision
    def _build(self, state: Mapping[str, np.ndarray]) -> models.Model:
        empty = models.abstract_model(self.config, dtype=self.dtype, param_dtype=self.dtype)
        return native.fill(empty, state)

    @_in_own_precision
    def evaluate(self, images: np.ndarray, resize: bool = True) -> list[np.ndarray]:
        """Logits and auxiliary logits in eval mode for images, (B, 3, H, W)."""
        state = nnx.state(self.model)
        return _channels_first(self._output(state, self._nhwc(images), resize=resize))

    @_in_own_precision
    def features(self, images: np.ndarray) -> list[np.ndarray]:
        """The encoder's maps, (B, C, H', W'), in eval mode."""
        maps = self._maps(nnx.state(self.model), self._nhwc(images))
        return [np.asarray(x).transpose(0, 3, 1, 2) for x in maps]

    @_in_own_precision
    def step(self, batch: Batch) -> Step:
        """One training step without an update of the parameters."""
        graphdef, params, stats = self._split()
        (loss, (outputs, stats)), gradients = self._gradient(params, stats, *self._inputs(batch))
        # A network whose parameters are the gradients: its state dict names and turns them.
        arrays = native.state_dict(nnx.merge(graphdef, gradients, stats))
        return Step(float(loss), _channels_first(outputs), *_sort(arrays))

    @_in_own_precision
    def train(self, batches: Sequence[Batch], optimizer: Optimizer) -> np.ndarray:
        """The loss before each update."""
        _, params, stats = self._split()
        update = _jitted_update(optimizer, self.dtype)
        moments = optimizer.flax.init(params)
        losses = []
        for batch in batches:
            inputs = self._inputs(batch)
            (loss, (_, stats)), gradients = self._gradient(params, stats, *inputs)
            params, moments = update(gradients, moments, params)
            losses.append(float(loss))
        return np.array(losses)

    def _forward(self, state: nnx.State, images: jax.Array, resize: bool) -> models.Output:
        graphdef = nnx.graphdef(models.eval_view(self.model))
        return nnx.merge(graphdef, state)(images, resize=resize, aux=True)

    def _encode(self, state: nnx.State, images: jax.Array) -> Sequence[jax.Array]:
        graphdef = nnx.graphdef(models.eval_view(self.model))
        return nnx.merge(graphdef, state).backbone(images)

    def _split(self):
        return nnx.split(models.train_view(self.model), nnx.Param, nnx.BatchStat)

    def _loss(self, params, stats, images, labels, masks):
        graphdef = self._split()[0]
        model = nnx.merge(graphdef, params, stats, copy=True)
        rest = iter(masks)
        with masks_from(lambda key, rate, shape: next(rest)):
            output = model(images, aux=True, rngs=nnx.Rngs(dropout=0))
        weights = (1.0, *self.config.aux_weights)
        logits = (output.logits, *output.aux)
        losses = (_cross_entropy(scores, labels) for scores in logits)
        loss = sum(w * x for w, x in zip(weights, losses, strict=True))
        return loss, (output, nnx.state(model, nnx.BatchStat))

    def _inputs(self, batch: Batch) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        masks = list(map(jnp.asarray, batch.masks))
        return self._nhwc(batch.images), jnp.asarray(batch.labels, jnp.int32), masks

    def _nhwc(self, images: np.ndarray) -> jax.Array:
        return jnp.asarray(images.transpose(0, 2, 3, 1), self.dtype)


@functools.cache
def _jitted_update(optimizer: Optimizer, dtype: str) -> Callable:
    @functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS[dtype])
    def update(gradients, moments, params):
        updates, moments = optimizer.flax.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments

    return update


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    _, height, width = labels.shape
    logits = ops.resize_bilinear(logits, (height, width), align_corners=False)
    valid = labels != IGNORE
    scores = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(scores, jnp.where(valid, labels, 0)[..., None], -1)[..., 0]
    return -jnp.where(valid, picked, 0).sum() / valid.sum()


def _channels_first(output: models.Output) -> list[np.ndarray]:
    return [np.asarray(x).transpose(0, 3, 1, 2) for x in (output.logits, *output.aux)]


def drawn_masks(
    config: models.Config, shape: tuple[int, ...], key: jax.Array
) -> tuple[np.ndarray, ...]:
    """What every active dropout of a training step keeps, in the order of the calls.

    Args:
        config: of the network.
        shape: of the images, (B, H, W, 3).
        key: of the step's "dropout" stream.
    """
    draw = dropout.keep_mask

    def forward(key: jax.Array) -> list[jax.Array]:
        masks = []

        def note(*call: Any) -> jax.Array:
            masks.append(draw(*call))
            return masks[-1]

        with masks_from(note):
            model = models.build(dataclasses.replace(config, remat=False), rngs=nnx.Rngs(0))
            aux = bool(config.aux_weights)
            model(jnp.zeros(shape), aux=aux, rngs=nnx.Rngs(dropout=key))
        return masks

    return tuple(map(np.array, jax.jit(forward)(key)))


@contextlib.contextmanager
def masks_from(source: Callable[..., jax.Array]) -> Iterator[None]:
    """Dropout asks `source(key, rate, shape)` for its masks instead of drawing them."""
    draw = dropout.keep_mask
    dropout.keep_mask = source
    try:
        yield
    finally:
        dropout.keep_mask = draw


DROPOUTS = (nn.Dropout, nn.Dropout2d, DropPath)


class TorchRun:
    """The PyTorch twin with given weights."""

    def __init__(self, config: models.Config, state: Mapping[str, np.ndarray], dtype: str):
        self.config = config
        self.dtype = getattr(torch, dtype)
        self.model = bridge.fill(torch_ref.create_model(config).to(self.dtype), dict(state))

    def evaluate(self, images: np.ndarray, resize: bool = True) -> list[np.ndarray]:
        """Logits and auxiliary logits in eval mode for images, (B, 3, H, W)."""
        with torch.inference_mode():
            output = self.model.eval()(self._tensor(images), resize=resize, aux=True)
        return [x.numpy() for x in (output.logits, *output.aux)]

    def features(self, images: np.ndarray) -> list[np.ndarray]:
        """The encoder's maps, (B, C, H', W'), in eval mode."""
        backbone: Any = self.model.eval().backbone
        with torch.inference_mode():
            return [x.numpy() for x in backbone(self._tensor(images))]

    def step(self, batch: Batch) -> Step:
        """One training step without an update of the parameters; running statistics move."""
        loss, output = self._backward(batch)
        gradients = {
            key: p.grad.numpy().copy()
            for key, p in self.model.named_parameters()
            if p.grad is not None
        }
        statistics = _sort(bridge.state_dict(self.model))[1]
        outputs = [x.detach().numpy() for x in (output.logits, *output.aux)]
        return Step(loss.item(), outputs, gradients, statistics)

    def train(self, batches: Sequence[Batch], optimizer: Optimizer) -> np.ndarray:
        """The loss before each update."""
        torch_optimizer = optimizer.torch(self.model.parameters())
        losses = []
        for batch in batches:
            loss, _ = self._backward(batch)
            torch_optimizer.step()
            losses.append(loss.item())
        return np.array(losses)

    def _backward(self, batch: Batch) -> tuple[torch.Tensor, torch_ref.Output]:
        self.model.train().zero_grad()
        labels = torch.from_numpy(batch.labels)
        with replayed_masks(self.model, batch.masks):
            output = self.model(self._tensor(batch.images), aux=True)
        loss = torch_loss(output, labels, self.config.aux_weights)
        loss.backward()
        return loss.detach(), output

    def _tensor(self, images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).to(self.dtype)


def torch_loss(
    output: torch_ref.Output, labels: torch.Tensor, aux_weights: Sequence[float]
) -> torch.Tensor:
    """Cross entropy of the main head plus the weighted ones of the auxiliary heads.

    Args:
        output: logits (B, K, H', W') of any sizes, which are interpolated.
        labels: class ids or `IGNORE`, (B, H, W) int64.
        aux_weights: weight of each auxiliary head.
    """

    def cross_entropy(scores: torch.Tensor) -> torch.Tensor:
        scores = F.interpolate(scores, labels.shape[1:], mode="bilinear", align_corners=False)
        return F.cross_entropy(scores, labels, ignore_index=IGNORE)

    heads = zip((1.0, *aux_weights), (output.logits, *output.aux), strict=True)
    return sum((w * cross_entropy(scores) for w, scores in heads), start=labels.new_zeros(()))


@contextlib.contextmanager
def replayed_masks(model: nn.Module, masks: Sequence[np.ndarray]) -> Iterator[None]:
    """Replaces what every active dropout returns, in the order of the calls.

    Raises:
        ValueError: the network draws fewer masks than there are.
    """
    rest = iter(masks)

    def replay(module: Any, inputs: tuple[torch.Tensor], output: torch.Tensor):
        keep = torch.from_numpy(next(rest))
        if isinstance(module, nn.Dropout2d | MapDropout):
            keep = keep.movedim(-1, 1)
        return torch.where(keep, inputs[0] / (1 - module.p), 0.0)

    layers = [m for m in model.modules() if isinstance(m, DROPOUTS) and m.p > 0]
    handles = [layer.register_forward_hook(replay) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if unused := len(list(rest)):
        raise ValueError(f"{unused} of {len(masks)} dropout masks were not used")


def _sort(arrays: Arrays) -> tuple[Arrays, Arrays]:
    """Parameters and running statistics apart."""
    statistics = {key: a for key, a in arrays.items() if ".running_" in key}
    return {key: a for key, a in arrays.items() if key not in statistics}, statistics
