"""Races between forms of the same operation, for `accelerator.py`: what `flaxseg.ops` chooses from.

Every form is compared with the first of its race before it is timed. bfloat16, at sizes of the
networks' own layers. "flaxseg" is what a network gets on the device at hand.
"""

import concurrent.futures
import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from accelerator_jax import compiled, machine, turn
from accelerator_job import Clock, append
from jax import lax
from jax import numpy as jnp

from flaxseg import ops
from flaxseg.ops import dense, depthwise, enlarged, norm
from flaxseg.ops.pixels import Pixels
from flaxseg.ops.window import Window

attention = importlib.import_module("flaxseg.ops.attention")  # `ops.attention` is its function

BOUND = 2e-2
"""How far results may be apart, relative to the largest value: a few roundings to bfloat16."""

WORKERS = 12
"""Programs that compile side by side."""

Form = Callable[..., Any]


class Race(NamedTuple):
    """One operation at one size.

    Attributes:
        what: the operation.
        shape: in words.
        forms: by name, the first is what the others must equal.
        arguments: of all of them.
    """

    what: str
    shape: str
    forms: Mapping[str, Form]
    arguments: tuple[jax.Array, ...]


def run(tiny: bool, clock: Clock, out: Path) -> None:
    """Runs all races: compiles the forms side by side, then times one after the other."""
    found = [(race, name) for race in races(tiny) for name in race.forms]
    lowered = [_caught(jax.jit(race.forms[name]).lower, *race.arguments) for race, name in found]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        programs = list(pool.map(functools.partial(_caught, compiled), lowered))
    expected: dict[tuple[str, str], list[np.ndarray]] = {}
    for (race, name), program in zip(found, programs, strict=True):
        about = {"race": race.what, "shape": race.shape, "form": name, **machine()}
        try:
            if isinstance(program, Exception):
                raise program
            call, more = program
            results = _on_host(call(*race.arguments))
            apart = max(map(_apart, results, expected.setdefault(race[:2], results)))
            if not apart <= BOUND:
                raise ArithmeticError(f"{apart:.0e} from the first form, at most {BOUND:.0e}")
            slowest, median = clock.rates(turn(call, *race.arguments))
        except Exception as error:  # a form that a device cannot run must not cost the others
            append(out, **about, refused=f"{type(error).__name__}: {error}"[:300])
            continue
        append(out, **about, ms=1e3 / median, slowest=1e3 / slowest, apart=apart, **more)


def _caught(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it gives, or the error that it or what came before met."""
    if isinstance(arguments[0], Exception):
        return arguments[0]
    try:
        return function(*arguments)
    except Exception as error:
        return error


def races(tiny: bool) -> Iterator[Race]:
    """All of them, small ones if `tiny`."""
    shrink = 16 if tiny else 1
    for batch, side, channels, stride in ((16, 128, 128, 1), (16, 32, 640, 1), (16, 112, 96, 2)):
        yield from _depthwise(batch, side // shrink, channels // shrink, stride)
    for batch, side, channels, dilation in ((8, 64, 256, 2), (8, 64, 512, 4), (16, 56, 64, 1)):
        yield from _dense(batch, side // shrink, channels // shrink, dilation)
    for kernel, stride, outputs in ((7, 4, 32), (3, 2, 64)):
        yield from _stem(16, 512 // shrink, kernel, stride, outputs)
    for batch, queries, keys, heads, width in (
        (16, 16384, 256, 1, 32),
        (16, 1024, 256, 5, 32),
        (16, 257, 257, 16, 64),
        (8, 1025, 1025, 16, 64),
    ):
        yield from _attention(batch, queries // shrink, keys // shrink, heads, width)
    for batch, side, channels in ((16, 112, 64), (16, 28, 1024)):
        yield from _norm(batch, side // min(shrink, 4), channels // shrink)
    for batch, side, classes, factor in ((16, 128, 150, 4), (16, 56, 19, 8)):
        yield from _loss(batch, side // min(shrink, 8), classes, factor)
    yield from _linear(16 * 1024 // shrink, 1024 // shrink, 4096 // shrink)


def _passes(what: str, shape: str, forms: Mapping[str, Form], *arguments: Any) -> Iterator[Race]:
    """A race of the outputs, and one of the gradients of each argument."""
    yield Race(f"{what}, output", shape, forms, arguments)
    cotangent = _random(9, jax.eval_shape(next(iter(forms.values())), *arguments).shape)
    for number, of in enumerate(("map", "weight")):
        backwards = {name: _gradient(form, number) for name, form in forms.items()}
        yield Race(f"{what}, gradient of the {of}", shape, backwards, (*arguments, cotangent))


def _gradient(form: Form, number: int) -> Form:
    def run(*arguments: jax.Array) -> jax.Array:
        *arguments, cotangent = arguments
        return jax.vjp(form, *arguments)[1](cotangent)[number]

    return run


def _depthwise(batch: int, side: int, channels: int, stride: int) -> Iterator[Race]:
    window = Window(stride, 1, 1)
    x, weight = _random(0, (batch, side, side, channels)), _random(1, (3, 3, 1, channels))
    forms = {
        "XLA": functools.partial(depthwise._library_conv, window, None),
        "shifted maps": functools.partial(depthwise._shifted_conv, window),
    }
    shape = f"{batch}×{side}²×{channels}" + ", stride 2" * (stride == 2)
    yield from _passes("depthwise 3×3", shape, forms, x, weight)


def _dense(batch: int, side: int, channels: int, dilation: int) -> Iterator[Race]:
    window = Window(1, dilation, dilation)
    x, weight = _random(0, (batch, side, side, channels)), _random(1, (3, 3, channels, channels))
    forms = _own_and_plain(window)
    if dilation > 1:
        forms["plain one on sub-grids"] = functools.partial(_on_sub_grids, dilation)
    shape = f"{batch}×{side}²×{channels} to {channels}" + f", dilation {dilation}" * (dilation > 1)
    *before, last = _passes("3×3", shape, forms, x, weight)
    gathered = {"product of gathered pixels": _gathered(window)}
    yield from (*before, last._replace(forms={**last.forms, **gathered}))


def _own_and_plain(window: Window) -> dict[str, Form]:
    def own(x: jax.Array, weight: jax.Array) -> jax.Array:
        return dense.dense_conv(x, weight, window)

    return {"XLA": functools.partial(dense._plain, window, None), "flaxseg": own}


def _on_sub_grids(dilation: int, x: jax.Array, weight: jax.Array) -> jax.Array:
    B, H, W, C = x.shape
    d = dilation
    x = x.reshape(B, H // d, d, W // d, d, C).transpose(2, 4, 0, 1, 3, 5)
    x = dense._plain(Window(1, 1, 1), None, x.reshape(-1, H // d, W // d, C), weight)
    x = x.reshape(d, d, B, H // d, W // d, -1).transpose(2, 3, 0, 4, 1, 5)
    return x.reshape(B, H, W, -1)


def _gathered(window: Window) -> Form:
    def run(x: jax.Array, weight: jax.Array, cotangent: jax.Array) -> jax.Array:
        k, _, channels, outputs = weight.shape
        taps = list(window.taps(_padded(x, window), k, *cotangent.shape[1:3]))
        patches = jnp.concatenate(taps, -1).reshape(-1, k * k * channels)
        return _sum_over_pixels(patches, cotangent, weight.dtype).reshape(weight.shape)

    return run


def _padded(x: jax.Array, window: Window) -> jax.Array:
    side = (window.padding, window.padding)
    return jnp.pad(x, ((0, 0), side, side, (0, 0)))


def _sum_over_pixels(x: jax.Array, cotangent: jax.Array, dtype: Any) -> jax.Array:
    left, right = x.reshape(-1, x.shape[-1]), cotangent.reshape(-1, cotangent.shape[-1])
    return jnp.dot(left.T, right, preferred_element_type=jnp.float32).astype(dtype)


def _stem(batch: int, side: int, kernel: int, stride: int, outputs: int) -> Iterator[Race]:
    window = Window(stride, kernel // 2, 1)
    x, weight = _random(0, (batch, side, side, 3)), _random(1, (kernel, kernel, 3, outputs))
    shape = f"{batch}×{side}²×3 to {outputs}"
    yield from _passes(f"{kernel}×{kernel}/{stride}", shape, _own_and_plain(window), x, weight)


def _attention(batch: int, queries: int, keys: int, heads: int, width: int) -> Iterator[Race]:
    shapes = (batch, queries, heads, width), *((batch, keys, heads, width),) * 2
    arguments = tuple(_random(number, shape) for number, shape in enumerate(shapes))
    formula = functools.partial(_heads_first, functools.partial(attention._attention, None))
    own = functools.partial(_heads_first, ops.attention)
    forms: dict[str, Form] = {"formula": formula, "flaxseg": own}
    shape = f"{batch}×{heads}, {queries} by {keys}, width {width}"
    yield Race("attention, output", shape, forms, arguments)
    both = {name: _value_and_gradients(form) for name, form in forms.items()}
    cotangent = _random(9, shapes[0])
    yield Race("attention, output and gradients", shape, both, (*arguments, cotangent))


def _heads_first(attend: Form, *arguments: jax.Array) -> jax.Array:
    return jnp.swapaxes(attend(*(jnp.swapaxes(x, 1, 2) for x in arguments)), 1, 2)


def _value_and_gradients(form: Form) -> Form:
    def run(*arguments: jax.Array) -> Any:
        *arguments, cotangent = arguments
        value, back = jax.vjp(form, *arguments)
        return value, *back(cotangent)

    return run


def _norm(batch: int, side: int, channels: int) -> Iterator[Race]:
    x = _random(0, (batch, side, side, channels))
    weight, bias = jnp.ones(channels), jnp.zeros(channels)

    def plain(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
        (y, _, _), _ = norm._forward(1e-5, jnp.bfloat16, x, weight, bias)
        return jax.nn.relu(y)

    def shifted(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
        return jax.nn.relu(_normalised_about_a_shift(x, weight, bias))

    def own(*arguments: jax.Array) -> jax.Array:
        return jax.nn.relu(norm._normalised(1e-5, jnp.bfloat16, *arguments)[0])

    forms = {"flaxseg": own, "left to JAX": plain, "sums in one pass": shifted}
    both = {name: _value_and_gradients(form) for name, form in forms.items()}
    arguments = (x, weight, bias, _random(9, x.shape))
    shape = f"{batch}×{side}²×{channels}"
    yield Race("BatchNorm and ReLU, output and gradients", shape, both, arguments)


@jax.custom_vjp
def _normalised_about_a_shift(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    return _shift_forward(x, weight, bias)[0]


def _shift_forward(x: jax.Array, weight: jax.Array, bias: jax.Array) -> Any:
    wide = x.astype(jnp.float32)
    shift = wide[:, ::8, ::8].mean((0, 1, 2))
    away = wide - shift
    first, second = away.mean((0, 1, 2)), jnp.square(away).mean((0, 1, 2))
    mean, inverse = shift + first, lax.rsqrt(second - first * first + 1e-5)
    y = (wide - mean) * (weight * inverse) + bias
    return y.astype(x.dtype), (x, weight, bias, mean, inverse)


def _shift_backward(saved: Any, cotangent: jax.Array) -> Any:
    return norm._backward(1e-5, jnp.bfloat16, saved, (cotangent, saved[3], saved[3]))


_normalised_about_a_shift.defvjp(_shift_forward, _shift_backward)


def _loss(batch: int, side: int, classes: int, factor: int) -> Iterator[Race]:
    size = side * factor
    x = _random(0, (batch, side, side, classes)).astype(jnp.float32)
    labels = jax.random.randint(jax.random.key(1), (batch, size, size), 0, classes, jnp.int32)
    weights = jnp.full(labels.shape, 1 / labels.size)

    def whole(x: jax.Array, labels: jax.Array) -> jax.Array:
        scores = ops.resize_bilinear(x, (size, size), align_corners=False)
        return jnp.mean(Pixels.of(scores, labels).surprise())

    def classes_of_all(x: jax.Array) -> jax.Array:
        scores = ops.resize_bilinear(x, (size, size), align_corners=False)
        return jnp.argmax(scores, -1).astype(jnp.int32)

    losses: dict[str, Form] = {"all logits": jax.value_and_grad(whole)}
    labelled: dict[str, Form] = {"all logits": classes_of_all}
    for chunk in (2_000_000, 16_000_000):
        parts = f"parts of {chunk // 1_000_000} million values"

        def in_parts(x: jax.Array, labels: jax.Array, chunk: int = chunk) -> Any:
            with _parts_of(chunk // batch):
                return jax.value_and_grad(enlarged.enlarged_cross_entropy)(x, labels, weights)

        def labels_in_parts(x: jax.Array, chunk: int = chunk) -> jax.Array:
            with _parts_of(chunk // batch):
                return enlarged.enlarged_argmax(x, (size, size))

        losses[parts], labelled[parts] = in_parts, labels_in_parts
    shape = f"{batch}×{side}²×{classes} to {size}²"
    yield Race("cross entropy of interpolated scores and its gradient", shape, losses, (x, labels))
    yield Race("labels of interpolated scores", shape, labelled, (x,))


@contextlib.contextmanager
def _parts_of(values: int) -> Iterator[None]:
    """While a form is traced, the loss and the labels visit so many of an image at a time."""
    before = enlarged.CHUNK_OF_IMAGE
    try:
        enlarged.CHUNK_OF_IMAGE = values
        yield
    finally:
        enlarged.CHUNK_OF_IMAGE = before


def _linear(rows: int, inputs: int, outputs: int) -> Iterator[Race]:
    x, cotangent = _random(0, (rows, inputs)), _random(1, (rows, outputs))

    def sums(x: jax.Array, cotangent: jax.Array) -> Any:
        bias = cotangent.astype(jnp.float32).sum(0)
        return _sum_over_pixels(x, cotangent, jnp.float32), bias

    def product(x: jax.Array, cotangent: jax.Array) -> Any:
        ones = jnp.ones((8, len(x)), x.dtype)
        bias = jnp.dot(ones, cotangent, preferred_element_type=jnp.float32)[0]
        return _sum_over_pixels(x, cotangent, jnp.float32), bias

    forms = {"sums": sums, "a product with ones": product}
    shape = f"{rows}×{inputs} to {outputs}"
    yield Race("linear, gradients of weight and bias", shape, forms, (x, cotangent))


def _random(number: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(number), shape, jnp.bfloat16)


def _on_host(results: Any) -> list[np.ndarray]:
    return [
        np.asarray(x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(jnp.float32))
        for x in jax.tree.leaves(results)
    ]


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    if np.issubdtype(expected.dtype, np.integer):
        return float((found != expected).mean())
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
