"""Memory of a training step with and without `remat`, by XLA's own analysis.

    python benchmarks/remat_memory.py [NAME ...] [--size H W] [--batch-size N]

The step is the whole network in train mode: loss, gradients and running statistics. What XLA calls
temporary holds activations and gradients, and neither weights nor results. The program is compiled
for the device at hand and not run: no weights are made.
"""

import argparse
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp

from flaxseg import models
from flaxseg.training.losses import segmentation_loss

OPTIONS = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
"""Machine code takes most of the compilation and no buffer depends on it."""


def temporary_bytes(config: models.Config, size: tuple[int, int], batch_size: int) -> int:
    """Temporary memory of one training step, in bytes."""
    model = models.train_view(models.abstract_model(config))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    def loss(params: Any, stats: Any, images: jax.Array, labels: jax.Array):
        model = nnx.merge(graphdef, params, stats, copy=True)
        output = model(images, aux=True, rngs=nnx.Rngs(dropout=0))
        total = segmentation_loss(output, labels, config.aux_weights)
        return total, nnx.state(model, nnx.BatchStat)

    images = jax.ShapeDtypeStruct((batch_size, *size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch_size, *size), jnp.uint8)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    compiled = step.lower(params, stats, images, labels).compile(compiler_options=OPTIONS)
    return compiled.memory_analysis().temp_size_in_bytes


def main():
    """Prints a line for each network."""
    parser = argparse.ArgumentParser(description="memory of a training step, by XLA")
    parser.add_argument("names", nargs="*", default=["setr", "segformer_b5"])
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), help="rows and columns")
    parser.add_argument("--batch-size", type=int, default=1)
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    print(f"jax {jax.__version__}, {jax.default_backend()}, {options.batch_size} x {size}")
    for name in options.names:
        config = models.get_config(name).with_image_size(size)
        kept, again = (
            temporary_bytes(models.override(config, {"remat": remat}), size, options.batch_size)
            for remat in (False, True)
        )
        ratio = f"ratio {again / kept:.2f}"
        print(f"{name:20} kept {kept / 2**20:8.0f} MiB  remat {again / 2**20:8.0f} MiB  {ratio}")


if __name__ == "__main__":
    main()
