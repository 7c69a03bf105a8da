"""What a network says about every pixel, and what is read off it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from flaxseg.errors import ConfigError
from flaxseg.inference.windows import Size, Windows, windowed, windowed_strips
from flaxseg.labels import LabelSet
from flaxseg.models import Config, Model, fold
from flaxseg.ops import enlarged_argmax, resize_bilinear
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import replicated, whole

Images = jax.Array | np.ndarray

LogitsFn = Callable[..., Any]
"""(params, stats, images (B, H, W, 3), size (H', W'), *more) -> what is read off the logits."""


def image_logits(
    model: Model, labels: LabelSet, preprocess: Preprocess, images: Images
) -> jax.Array:
    """What the model says about every pixel, in eval mode; to be called inside `jax.jit`.

    Images of a size that the model does not take are stretched to one that it does.

    Args:
        model: a segmenter of this library, in train or eval mode.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        images: (B, H, W, 3), 0 to 255.

    Returns:
        (B, H, W, K) logits.

    Raises:
        ConfigError: the model has another number of classes than `labels`.
    """
    images = jnp.asarray(images)
    size = (images.shape[1], images.shape[2])
    inputs = resize_bilinear(preprocess(images), fitting_size(model.config, size))
    logits = fold(model)(inputs).logits
    check_classes(logits, labels)
    return resize_bilinear(logits, size, align_corners=False)


def image_labels(
    model: Model, labels: LabelSet, preprocess: Preprocess, images: Images
) -> jax.Array:
    """The class with the highest of the `image_logits` at every pixel, (B, H, W) int32.

    Where one interpolation leads from the network's own resolution to the images', the logits of
    all pixels, by far the largest array, are never made.
    """
    logits = lowest_logits(model, labels, preprocess, images)
    size = (images.shape[1], images.shape[2])
    corners = enlarged_by(model, size)
    if corners is None:
        return jnp.argmax(logits, -1).astype(jnp.int32)
    return enlarged_argmax(logits, size, align_corners=corners)


def lowest_logits(
    model: Model, labels: LabelSet, preprocess: Preprocess, images: Images
) -> jax.Array:
    """The logits (B, h, w, K) at the network's own resolution, or `image_logits`.

    The former where one interpolation leads from there to the images' pixels, see `enlarged_by`.
    """
    images = jnp.asarray(images)
    if enlarged_by(model, (images.shape[1], images.shape[2])) is None:
        return image_logits(model, labels, preprocess, images)
    logits = fold(model)(preprocess(images), resize=False).logits
    check_classes(logits, labels)
    return logits


def enlarged_by(model: Model, size: Size) -> bool | None:
    """`align_corners` of the interpolation from `lowest_logits` to images of a size; None: none."""
    rule = getattr(model, "logits_align_corners", None)
    return rule(size) if rule and fitting_size(model.config, size) == size else None


def check_classes(logits: jax.Array, labels: LabelSet) -> None:
    """Raises a `ConfigError` unless logits (B, h, w, K) are of as many classes as the label set."""
    if logits.shape[-1] != labels.num_classes:
        raise ConfigError(
            f"the model predicts {logits.shape[-1]} classes, label set {labels.name!r} has "
            f"{labels.num_classes}: give the label set that the model was trained with"
        )


def fitting_size(config: Config, size: Size) -> Size:
    """The height and width nearest above `size` that a network takes, or the only one."""
    if config.fixed_size is not None:
        return config.fixed_size
    divisor = config.size_divisor
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def make_logits_fn(
    graphdef: nnx.GraphDef,
    labels: LabelSet,
    preprocess: Preprocess,
    then: Callable[..., Any],
    *,
    mesh: Mesh | None = None,
    windows: Windows | None = None,
    by_pixel: bool = False,
    of_labels: bool = False,
) -> LogitsFn:
    """A compiled function of the logits of pictures, for weights that change between calls.

    Args:
        graphdef: of `nnx.split(model, nnx.Param, nnx.BatchStat)`, in train or eval mode.
        labels: the classes the model knows.
        preprocess: how its images were normalised.
        then: (logits (B, H', W', K), *more) -> the result, a function that can be traced.
        mesh: devices on which the weights lie, whole or split; every device gets the whole result.
            None runs where the weights are.
        windows: where the network looks at a picture; None looks at it as a whole.
        by_pixel: `then` takes the logits alone and reads (B, H', W', ...) off them, each value off
            those of its pixel: the logits of a large picture need not be held all at once.
        of_labels: `then` takes the class of the highest logit, (B, H', W') int32, in place of the
            logits.

    Returns:
        A function of (params, stats, images, size, *more), whose images are (B, H, W, 3), 0 to 255.
        Logits of another size than `size` are interpolated. It compiles once for each shape of the
        images or, in windows, of a window; what follows the network compiles for each `size`, too.
    """

    def look(params: nnx.State, stats: nnx.State, images: Images) -> jax.Array:
        model = nnx.merge(graphdef, *whole((params, stats), mesh))
        return image_logits(model, labels, preprocess, images)

    def at_once(params: nnx.State, stats: nnx.State, images: Images, *more: Any) -> Any:
        if not of_labels:
            return then(look(params, stats, images), *more)
        model = nnx.merge(graphdef, *whole((params, stats), mesh))
        return then(image_labels(model, labels, preprocess, images), *more)

    def said(logits: jax.Array) -> jax.Array:
        return jnp.argmax(logits, -1).astype(jnp.int32) if of_labels else logits

    def finish(logits: jax.Array, size: Size, *more: Any) -> Any:
        return then(said(resize_bilinear(logits, size, align_corners=False)), *more)

    def read(total: jax.Array, seen: Images) -> Any:
        return then(said(total / seen))

    everywhere = None if mesh is None else replicated(mesh)
    at_once = jax.jit(at_once, out_shardings=everywhere)
    look, read = jax.jit(look), jax.jit(read, out_shardings=everywhere)
    finish = jax.jit(finish, static_argnums=1, out_shardings=everywhere)

    def run(params: nnx.State, stats: nnx.State, images: Images, size: Size, *more: Any) -> Any:
        # At the pictures' own size one program needs half the memory: it never holds the logits of
        # all pixels. Elsewhere two programs compile the network less often.
        if windows is None and images.shape[1:3] == size:
            return at_once(params, stats, images, *more)
        see = functools.partial(look, params, stats)
        if windows is not None and by_pixel and images.shape[1:3] == size:
            return windowed_strips(see, jnp.asarray(images), windows, read)
        logits = see(images) if windows is None else windowed(see, jnp.asarray(images), windows)
        return finish(logits, size, *more)

    return run
