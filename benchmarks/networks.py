"""The table of networks: parameters and FLOPs of a forward pass, in Markdown.

    python benchmarks/networks.py [PATTERN] [--size H W]

FLOPs are XLA's count for one image in eval mode before it optimises the program, two for each
multiply-add; nothing is computed and no weights are made.
"""

import argparse

import jax
from flax import nnx
from jax import numpy as jnp

from flaxseg import models

SIZES = {
    "bisenetv2": (448, 448),
    "bisenetv2_coincheung": (1024, 2048),
    "bisenetv2_matmul": (448, 448),
    "bisenetv2_mmseg": (1024, 2048),
    "ccnet": (224, 224),
    "ccnet_r101_original": (769, 769),
    "setr_mla_cityscapes": (768, 768),
    "setr_naive_cityscapes": (768, 768),
    "setr_pup_cityscapes": (768, 768),
}
"""Height and width that a network was published with, where 512x512 is not it."""


def published_size(name: str) -> tuple[int, int]:
    """The height and width in pixels at which a network is counted."""
    config = models.get_config(name)
    return config.fixed_size or SIZES.get(name, (512, 512))


def parameters(config: models.Config) -> int:
    """Trainable values."""
    params = nnx.state(models.abstract_model(config), nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def flops(config: models.Config, size: tuple[int, int]) -> float:
    """XLA's count for one image of this height and width, without auxiliary heads."""
    graphdef, state = nnx.split(models.eval_view(models.abstract_model(config)))
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    lowered = jax.jit(lambda s, x: nnx.merge(graphdef, s)(x).logits).lower(state, image)
    return lowered.cost_analysis()["flops"]


def row(name: str, size: tuple[int, int] | None = None) -> str:
    """One line of the table."""
    config = models.get_config(name)
    height, width = size or published_size(name)
    count = f"{parameters(config):,}".replace(",", " ")
    giga = flops(config, (height, width)) / 1e9
    return f"| `{name}` | {config.num_classes} | {count} | {giga:.1f} | {height}×{width} |"


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description="parameters and FLOPs of every network")
    parser.add_argument("pattern", nargs="?", default="*", help="names, such as 'segformer*'")
    parser.add_argument("--size", type=int, nargs=2, help="height and width instead of the usual")
    options = parser.parse_args()
    print("| name | classes | parameters | GFLOP | at |\n|---|---|---|---|---|")
    for name in models.list_models(options.pattern):
        print(row(name, options.size), flush=True)


if __name__ == "__main__":
    main()
