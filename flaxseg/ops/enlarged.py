"""What the pixels of an interpolated map say, without making the map.

A segmentation network gives K numbers a pixel at a fraction of the image's resolution. Interpolated
to the image they are by far the largest array of a training step, written once and read half a
dozen times. The functions here interpolate a part of the pixels at a time and keep one number of
each.

A side of n pixels has n + 1 gaps: one before the first pixel, one between any two, one behind the
last. Every pixel of the enlarged side lies in a gap, at a fraction of the way from the pixel before
it to the one behind. If a gap holds up to s of them, it has s slots, and the pixels in slot p of
all gaps are a map of the resolution of the original one: two shifted copies of it, mixed. Those are
visited one after the other; the gaps of a map lie in a row, the lines one behind the other, so that
a shift is a slice.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

CHUNK = 2_000_000
"""Values of a part of the map that is interpolated at a time: they stay in the caches of a CPU."""

CHUNK_OF_IMAGE = 500_000
"""The same of each image on GPUs and TPUs: how many of a batch lie on one is not known here.

With fewer most of the time goes to the borders of parts (docs/accelerators.md); more take memory
where a device has many images.
"""

NOTHING = -1
"""The label of a slot without a pixel."""

Others = tuple[jax.Array, jax.Array] | None
"""Weights of a sum over all classes: of the pixels, (B, H, W), and of the classes, (K,)."""


def enlarged_cross_entropy(
    x: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    others: Others = None,
    *,
    align_corners: bool = False,
) -> jax.Array:
    """A weighted sum of the cross entropies of the pixels of an interpolated map of scores.

    The gradient of x is made together with the value: a pixel is interpolated once. x alone has
    one.

    Args:
        x: scores, (B, h, w, K), float32 or wider.
        labels: class ids, (B, H, W), any integer type; other values than 0 to K - 1 do not count.
        weights: of each pixel's -log of its label's probability, (B, H, W).
        others: adds a second sum, of -log of the probabilities of all classes: its weights of the
            pixels, (B, H, W), and of the classes, (K,).
        align_corners: how x is interpolated, see `resize_bilinear`.

    Returns:
        A scalar.
    """
    return _cross_entropy(align_corners, x, labels, weights, others)


def enlarged_surprise(x: jax.Array, labels: jax.Array, *, align_corners: bool = False) -> jax.Array:
    """-log of the probability of each pixel's label, 0 without a label, (B, H, W); no gradient.

    Args:
        x: scores, (B, h, w, K), float32 or wider.
        labels: class ids, (B, H, W), any integer type; other values than 0 to K - 1 do not count.
        align_corners: how x is interpolated, see `resize_bilinear`.
    """

    def surprise(cpu: bool, x: jax.Array, labels: jax.Array) -> jax.Array:
        plan = _Plan(cpu, x.shape, labels.shape[1:], align_corners)
        slots = plan.to_slots(labels.astype(jnp.int32), NOTHING)
        return plan.told(lambda scores, label: _Pixel.of(scores, label).surprise, x, slots)

    return _by_platform(surprise, lax.stop_gradient(x), labels)


def enlarged_argmax(
    x: jax.Array, size: tuple[int, int], *, align_corners: bool = False
) -> jax.Array:
    """The class with the highest score, of equal ones the first, at each pixel, (B, *size) int32.

    Args:
        x: scores, (B, h, w, K).
        size: height and width to which they are interpolated.
        align_corners: see `resize_bilinear`.
    """
    if x.shape[1:3] == size:
        return jnp.argmax(x, -1).astype(jnp.int32)

    def labels(cpu: bool, x: jax.Array) -> jax.Array:
        plan = _Plan(cpu, x.shape, size, align_corners)
        return plan.told(lambda scores: jnp.argmax(scores, 1).astype(jnp.int32), x)

    return _by_platform(labels, lax.stop_gradient(x))


class _Side(NamedTuple):
    """Where the pixels of an enlarged side lie.

    Attributes:
        fractions: of the way through its gap, of the pixel in each slot, (slots, gaps).
        places: of the pixels among all slots, gap by gap, (pixels,), rising.
    """

    fractions: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, n: int, pixels: int, align_corners: bool) -> "_Side":
        pixel = np.arange(pixels)
        if align_corners:
            source = pixel * ((n - 1) / (pixels - 1) if pixels > 1 else 0.0)
        else:
            source = (pixel + 0.5) * (n / pixels) - 0.5
        before = np.clip(np.floor(source).astype(int), -1, n - 1)
        gap = before + 1
        count = np.bincount(gap, minlength=n + 1)
        slots = count.max()
        slot = pixel - np.searchsorted(gap, gap)
        # The first gap is filled from its end, so that with whole factors the fractions of a slot
        # are the same in all gaps.
        slot += np.where(gap == 0, slots - count[0], 0)
        fractions = np.full((slots, n + 1), np.nan)
        fractions[slot, gap] = source - before
        usual = [row[np.isfinite(row)][0] for row in fractions]
        fractions = np.where(np.isnan(fractions), np.array(usual)[:, None], fractions)
        return cls(fractions, gap * slots + slot)

    @property
    def slots(self) -> int:
        return self.fractions.shape[0]

    @property
    def gaps(self) -> int:
        return self.fractions.shape[1]

    def spread(self, values: jax.Array, axis: int, fill: Any) -> jax.Array:
        """Lays the pixels along an axis into their slots; the others get `fill`."""
        first, last = self.places[0], self.gaps * self.slots - 1 - self.places[-1]
        pads = [(0, 0)] * values.ndim
        if len(self.places) == self.places[-1] - first + 1:
            pads[axis] = (first, last)
            return jnp.pad(values, pads, constant_values=fill)
        source = np.full(self.gaps * self.slots, len(self.places))
        source[self.places] = np.arange(len(self.places))
        pads[axis] = (0, 1)
        return jnp.take(jnp.pad(values, pads, constant_values=fill), source, axis)

    def collect(self, values: jax.Array, axis: int) -> jax.Array:
        """The pixels along an axis, out of their slots."""
        first, last = int(self.places[0]), int(self.places[-1])
        if len(self.places) == last - first + 1:
            return lax.slice_in_dim(values, first, last + 1, axis=axis)
        return jnp.take(values, self.places, axis)


class _Plan:
    """How the pixels of one size of map are visited at one size of image.

    On a CPU in loops: what they read stays in the cache, which takes a third to two thirds of the
    time, and the body compiles once. Elsewhere the loop over the slots of the columns is written
    out: an NVIDIA GPU starts each kernel of a loop anew, and by libtpu's estimate a TPU loses as
    well (docs/accelerators.md).

    A step of the visit takes the pixels in one slot of the rows, of some rows of gaps. Lines have
    a gap more than there are, which leads to the next line and holds no pixel.
    """

    def __init__(
        self, cpu: bool, shape: tuple[int, ...], size: tuple[int, ...], align_corners: bool
    ):
        self.unroll = not cpu
        self.batch, height, width, self.classes = shape
        self.rows = _Side.of(height, size[0], align_corners)
        self.cols = _Side.of(width, size[1], align_corners)
        self.line = self.cols.gaps + 1
        values = CHUNK // self.batch if cpu else CHUNK_OF_IMAGE
        many = max(1, values // (self.line * self.classes))
        self.parts = -(-self.rows.gaps // many)
        self.height = -(-self.rows.gaps // self.parts)
        self.length = self.height * self.line

    @property
    def spare(self) -> int:
        """Rows of gaps that only fill the last part."""
        return self.parts * self.height - self.rows.gaps

    def flat(self, x: jax.Array) -> jax.Array:
        """x, (B, h, w, K), with its border repeated, as (B, K, lines one behind the other)."""
        x = jnp.pad(x, ((0, 0), (1, 1 + self.spare), (1, 1), (0, 0)), mode="edge")
        x = x.transpose(0, 3, 1, 2).reshape(self.batch, self.classes, -1)
        return jnp.pad(x, ((0, 0), (0, 0), (0, 1)))

    def unflat(self, gradient: jax.Array) -> jax.Array:
        """The gradient of x from that of `flat`."""
        shape = self.batch, self.classes, -1, self.line
        gradient = gradient[..., :-1].reshape(shape).transpose(0, 2, 3, 1)
        for axis, n in ((1, self.rows.gaps - 1), (2, self.cols.gaps - 1)):
            first, rest = jnp.split(gradient, [1], axis)
            inner, behind = jnp.split(rest, [n], axis)
            edges = [first, jnp.sum(behind, axis, keepdims=True)]
            if n > 1:
                gap = jnp.zeros_like(lax.slice_in_dim(inner, 0, n - 2, axis=axis))
                inner += jnp.concatenate([edges[0], gap, edges[1]], axis)
            else:
                inner += edges[0] + edges[1]
            gradient = inner
        return gradient

    def steps(self, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """For each step where it starts among the gaps, and the fractions of its rows."""
        fractions = np.pad(self.rows.fractions, ((0, 0), (0, self.spare)), mode="edge")
        fractions = fractions.reshape(-1, self.parts, self.height).swapaxes(0, 1)
        fractions = np.repeat(fractions.reshape(-1, self.height), self.line, 1)
        # One more for the neighbour behind the last.
        fractions = np.pad(fractions, ((0, 0), (0, 1)), mode="edge")
        starts = np.repeat(np.arange(self.parts) * self.length, self.rows.slots)
        return jnp.asarray(starts, jnp.int32), jnp.asarray(fractions, dtype)

    def cut(self, flat: jax.Array, start: jax.Array) -> jax.Array:
        """What the gaps of a step lie between."""
        return lax.dynamic_slice_in_dim(flat, start, self.length + self.line + 1, 2)

    def between(self, part: jax.Array, fractions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What lies left of each gap of a step, (B, K, gaps), and how far it is to the right."""
        above, below = part[..., : self.length + 1], part[..., self.line :]
        row = above + fractions * (below - above)
        left = row[..., :-1]
        return left, row[..., 1:] - left

    def col_fractions(self, dtype: Any) -> jax.Array:
        """Of each slot of the columns, (slots, 1), or (slots, gaps of a step)."""
        columns = self.cols.fractions
        if np.ptp(columns, axis=1).max() < 1e-12:
            return jnp.asarray(columns[:, :1], dtype)
        return jnp.asarray(np.tile(np.pad(columns, ((0, 0), (0, 1))), (1, self.height)), dtype)

    def told(self, tell: Callable[..., jax.Array], x: jax.Array, *pixels: jax.Array) -> jax.Array:
        """What is told of each pixel, (B, H, W).

        Args:
            tell: (scores (B, K, gaps), what `pixels` say of them, each (B, gaps)) -> (B, gaps).
            x: (B, h, w, K).
            *pixels: as `to_slots` gives them.
        """
        values, columns = self.flat(x), self.col_fractions(x.dtype)

        def visit(_: None, step: Any) -> tuple[None, jax.Array]:
            start, fractions, *pixels = step
            left, way = self.between(self.cut(values, start), fractions)

            def visit_slot(_: None, slot: Any) -> tuple[None, jax.Array]:
                fraction, *pixels = slot
                return None, tell(left + fraction * way, *pixels)

            return lax.scan(visit_slot, None, (columns, *pixels), unroll=self.unroll)

        steps = *self.steps(x.dtype), *pixels
        return self.to_pixels(lax.scan(visit, None, steps)[1])

    def spread_back(self, both: jax.Array, right: jax.Array, fractions: jax.Array) -> jax.Array:
        """The gradient of `cut` from the gradients of pixels and their shares of the right."""
        row = _behind(both - right, 0, 1) + _behind(right, 1, 0)
        below = fractions * row
        return _behind(row - below, 0, self.line) + _behind(below, self.line, 0)

    def to_slots(self, values: jax.Array, fill: Any) -> jax.Array:
        """Values (B, H, W) of pixels as (steps, column slots, B, gaps of a step)."""
        values = self.rows.spread(self.cols.spread(values, 2, fill), 1, fill)
        shape = self.batch, self.rows.gaps, self.rows.slots, self.cols.gaps, self.cols.slots
        pads = ((0, 0), (0, self.spare), (0, 0), (0, 1), (0, 0))
        values = jnp.pad(values.reshape(shape), pads, constant_values=fill)
        values = values.reshape(self.batch, self.parts, self.height, *values.shape[2:])
        values = values.transpose(1, 3, 5, 0, 2, 4)
        return values.reshape(-1, self.cols.slots, self.batch, self.length)

    def to_pixels(self, values: jax.Array) -> jax.Array:
        """The inverse of `to_slots`."""
        shape = self.parts, self.rows.slots, self.cols.slots, self.batch, self.height, self.line
        values = values.reshape(shape).transpose(3, 0, 4, 1, 5, 2)
        values = values.reshape(self.batch, -1, self.rows.slots, self.line, self.cols.slots)
        values = values[:, : self.rows.gaps, :, : self.cols.gaps]
        values = values.reshape(self.batch, -1, self.cols.gaps * self.cols.slots)
        return self.rows.collect(self.cols.collect(values, 2), 1)


def _by_platform(visit: Callable[..., Any], *args: Any) -> Any:
    """visit(cpu, *args), as it is for the platform that the program is lowered for."""
    return lax.platform_dependent(
        *args, cpu=functools.partial(visit, True), default=functools.partial(visit, False)
    )


def _behind(values: jax.Array, before: int, behind: int) -> jax.Array:
    return lax.pad(values, jnp.zeros((), values.dtype), ((0, 0, 0), (0, 0, 0), (before, behind, 0)))


class _Pixel(NamedTuple):
    """What is said about the pixels of one slot.

    Attributes:
        exponentials: of the scores less the highest one, (B, K, gaps).
        total: their sum over the classes, (B, gaps).
        log_sum: of the exponentials of the scores, (B, gaps).
        truth: whether a class is the label, (B, K, gaps).
        counts: whether any is, (B, gaps).
        surprise: -log of the label's probability, 0 without one, (B, gaps).
    """

    exponentials: jax.Array
    total: jax.Array
    log_sum: jax.Array
    truth: jax.Array
    counts: jax.Array
    surprise: jax.Array

    @classmethod
    def of(cls, scores: jax.Array, label: jax.Array) -> "_Pixel":
        """Reads scores (B, K, gaps) and labels (B, gaps)."""
        classes = scores.shape[1]
        truth = jnp.arange(classes)[:, None] == label[:, None]
        counts = (label >= 0) & (label < classes)
        highest = jnp.max(scores, 1)
        exponentials = jnp.exp(scores - highest[:, None])
        total = jnp.sum(exponentials, 1)
        log_sum = jnp.log(total) + highest
        of_label = jnp.sum(jnp.where(truth, scores, 0), 1)
        surprise = jnp.where(counts, log_sum - of_label, 0)
        return cls(exponentials, total, log_sum, truth, counts, surprise)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross_entropy(
    align_corners: bool, x: jax.Array, labels: jax.Array, weights: jax.Array, others: Others
) -> jax.Array:
    value = functools.partial(_value_and_gradient, align_corners, False)
    return _by_platform(value, x, labels, weights, others)[0]


def _forward(
    align_corners: bool, x: jax.Array, labels: jax.Array, weights: jax.Array, others: Others
) -> tuple[jax.Array, jax.Array | None]:
    both = functools.partial(_value_and_gradient, align_corners, True)
    return _by_platform(both, x, labels, weights, others)


def _backward(align_corners: bool, gradient: jax.Array, of_value: jax.Array) -> tuple[Any, ...]:
    del align_corners
    return of_value * gradient, None, None, None


_cross_entropy.defvjp(_forward, _backward)


def _value_and_gradient(
    align_corners: bool,
    learns: bool,
    cpu: bool,
    x: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    others: Others,
) -> tuple[jax.Array, jax.Array | None]:
    """The value of `enlarged_cross_entropy` and, if it `learns`, the gradient of x."""
    plan = _Plan(cpu, x.shape, labels.shape[1:], align_corners)
    values = plan.flat(x)
    spread = None if others is None else others[1].astype(x.dtype)[:, None]

    columns = plan.col_fractions(x.dtype)
    nothing = jnp.zeros((plan.batch, plan.length), x.dtype)
    level = jnp.zeros((plan.batch, plan.classes, plan.length), x.dtype) if learns else None

    def visit(carry: Any, step: Any) -> tuple[Any, None]:
        value, total = carry
        start, fractions, *pixels = step
        left, way = plan.between(plan.cut(values, start), fractions)

        def visit_slot(carry: Any, slot: Any) -> tuple[Any, None]:
            value, both, right = carry
            fraction, labels, weight, other = slot
            scores = left + fraction * way
            pixel = _Pixel.of(scores, labels)
            value += weight * pixel.surprise
            # The gradient of a sum over the classes of w -log p is p times the sum of w, less w.
            share, constant = weight, jnp.where(pixel.truth, weight[:, None], 0)
            if spread is not None:
                whole = jnp.sum(spread)
                surprises = whole * pixel.log_sum - jnp.sum(spread * scores, 1)
                value += jnp.where(pixel.counts, other * surprises, 0)
                share, constant = share + other * whole, constant + other[:, None] * spread
            if learns:
                gradient = pixel.exponentials * (share / pixel.total)[:, None] - constant
                # Masked, not multiplied by 0: scores that do not count may be infinite.
                gradient = jnp.where(pixel.counts[:, None], gradient, 0)
                both, right = both + gradient, right + fraction * gradient
            return (value, both, right), None

        begin = value, level, level
        (value, both, right), _ = lax.scan(
            visit_slot, begin, (columns, *pixels), unroll=plan.unroll
        )
        if learns:
            part = plan.cut(total, start) + plan.spread_back(both, right, fractions)
            total = lax.dynamic_update_slice_in_dim(total, part, start, 2)
        return (value, total), None

    pixels = plan.to_slots(labels.astype(jnp.int32), NOTHING), plan.to_slots(weights, 0)
    steps = *plan.steps(x.dtype), *pixels, None if others is None else plan.to_slots(others[0], 0)
    begin = nothing, jnp.zeros_like(values) if learns else None
    (value, total), _ = lax.scan(visit, begin, steps)
    return jnp.sum(value), None if total is None else plan.unflat(total)
