"""What SegFormer's order of operations saves, by XLA's own cost analysis.

    python benchmarks/segformer_cost.py

Xie et al. 2021 (https://arxiv.org/abs/2105.15203) enlarge every level to the finest one's size,
concatenate, and fuse with a 1x1 convolution. `flaxseg.models.segformer` fuses every level before
enlarging it. Both counts are of the whole network, image to logits of the image's size, with the
same encoder; a multiplication and an addition are two FLOPs.
"""

import argparse
from collections.abc import Callable

import jax
from flax import nnx
from jax import numpy as jnp

from flaxseg import models, ops
from flaxseg.models.segformer import MLPHead, SegFormer


def reordered(model: SegFormer, images: jax.Array) -> jax.Array:
    """Logits of images, (B, H, W, 3), in flaxseg's order."""
    return model(images).logits


def textbook(model: SegFormer, images: jax.Array) -> jax.Array:
    """The same logits in the paper's order."""
    levels, head = model.backbone(images), model.head
    assert isinstance(head, MLPHead)
    size = levels[0].shape[1], levels[0].shape[2]
    maps = [linear(x) for linear, x in zip(head.linears, levels, strict=True)]
    maps = [ops.resize_bilinear(x, size) for x in reversed(maps)]
    logits = head.classifier(head.dropout(head.fuse(jnp.concatenate(maps, -1))))
    return ops.resize_bilinear(logits, (images.shape[1], images.shape[2]))


def flops(
    forward: Callable[[SegFormer, jax.Array], jax.Array],
    name: str,
    size: tuple[int, int],
    num_classes: int = 150,
) -> float:
    """XLA's count for one image; nothing is run, and no weights exist."""
    config = models.get_config(name, num_classes=num_classes)
    graphdef, state = nnx.split(models.eval_view(models.abstract_model(config)))
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    lowered = jax.jit(lambda s, x: forward(nnx.merge(graphdef, s), x)).lower(state, images)
    return lowered.cost_analysis()["flops"]


def main():
    """Prints both orders side by side."""
    parser = argparse.ArgumentParser(description="FLOPs of SegFormer in both orders")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), help="rows and columns")
    parser.add_argument("--classes", type=int, default=150)
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    print(f"jax {jax.__version__}, {jax.default_backend()}, image {size}")
    for name in ("segformer_b0", "segformer_b2"):
        before, after = (flops(f, name, size, options.classes) for f in (textbook, reordered))
        print(
            f"{name}  textbook {before / 1e9:7.2f} GFLOP  reordered {after / 1e9:7.2f} GFLOP  "
            f"ratio {after / before:5.1%}"
        )


if __name__ == "__main__":
    main()
