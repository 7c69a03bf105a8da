"""Lists what devices send each other in a compiled training step, and compares it with theory.

    python benchmarks/collectives.py NAME [--devices 8] [--fsdp 8] [--override K=V ...] [--all]

The step is compiled for simulated CPU devices and not run: no weights are made. Payload is the size
of the whole tensor that a collective sums or puts together, on each device; the theory is that of
`flaxseg.planning.payload`.

The sums of BatchNorm and of the loss, one value per channel or less, are listed apart. XLA for CPUs
has no pass that makes reduce-scatters: there a gradient that is to be split is an all-reduce of the
same payload, of which each device keeps its part. Exit code 1 if gradients or parameters exceed
the theory by more than 10 %, or if anything else as large as a matrix is sent.
"""

import argparse
import collections
import os
import sys
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from jax import numpy as jnp

from flaxseg import models
from flaxseg.planning.collectives import collectives
from flaxseg.planning.payload import theory, what_they_carry
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import FSDP, MIN_SHARDED, gather_for_gradient, make_mesh, state_sharding
from flaxseg.training.config import parse_overrides
from flaxseg.training.optim import make_optimizer
from flaxseg.training.step import compile_step, init_state, make_train_step


class Program(NamedTuple):
    """A compiled step, and its abstract parameters with their shardings."""

    text: str
    params: Any


def compile_training(
    config: models.Config, devices: int, fsdp: int, min_size: int = MIN_SHARDED
) -> Program:
    """Compiles the training step of a network for one image on each device."""
    size = config.fixed_size or (64, 64)
    mesh = make_mesh(jax.devices()[:devices], fsdp)
    schedule = optax.constant_schedule(0.01)
    tx = make_optimizer("sgd", schedule, momentum=0.9, weight_decay=1e-4)
    state = jax.eval_shape(lambda: init_state(models.build(config, rngs=models.params_keys(0)), tx))
    sharding = state_sharding(state, mesh, min_size)
    step = make_train_step(
        nnx.split(models.abstract_model(config), nnx.Param, nnx.BatchStat)[0],
        tx,
        schedule=schedule,
        preprocess=Preprocess(),
        aux_weights=config.aux_weights,
        gather=gather_for_gradient(sharding.params, mesh) if mesh.shape[FSDP] > 1 else None,
    )
    image = jax.ShapeDtypeStruct((devices, *size, 3), jnp.uint8)
    label = jax.ShapeDtypeStruct((devices, *size), jnp.uint8)
    lowered = compile_step(step, mesh, sharding).lower(state, image, label)
    params = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state.params,
        sharding.params,
    )
    return Program(lowered.compile().as_text() or "", params)


def report(program: Program, devices: int, fsdp: int, every: bool) -> bool:
    """Prints the tables; True if the step sends what it must and no more."""
    found = collectives(program.text)
    names = what_they_carry(found, program.params, devices // fsdp)
    totals: dict[tuple[str, str, int], list[int]] = collections.defaultdict(lambda: [0, 0])
    for one, name in zip(found, names, strict=True):
        total = totals[name, one.kind, one.group]
        total[0] += one.times
        total[1] += one.times * one.bytes
        if every:
            print(f"{name:10} {one.kind} of {one.group} x{one.times} {one.shape} {one.bytes} bytes")
    print("| carries | collective | devices | tensors | bytes |")
    print("|---|---|---|---|---|")
    for (name, kind, group), (count, size) in sorted(totals.items()):
        print(f"| {name} | {kind} | {group} | {count} | {size:,} |")
    print("\n| | least bytes | found | ratio |\n|---|---|---|---|")
    good = True
    for name, least in theory(program.params, devices // fsdp).items():
        size = sum(total[1] for (carried, *_), total in totals.items() if carried == name)
        if least or size:
            ratio = size / max(least, 1)
            good &= 1 / 1.1 <= ratio <= 1.1
            print(f"| {name} | {least:,} | {size:,} | {ratio:.3f} |")
    least = sum(theory(program.params, devices // fsdp).values())
    other = sum(total[1] for (name, *_), total in totals.items() if name == "other")
    print(f"| other | 0 | {other:,} | {other / least:.3f} of all |")
    return good and other <= 0.1 * least


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="collectives of a compiled training step")
    parser.add_argument("name", help="a network of flaxseg.list_models()")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--override", nargs="*", default=[], help="fields of its configuration")
    parser.add_argument("--all", action="store_true", help="a line for each tensor, too")
    options = parser.parse_args()
    config = models.get_config(options.name, **parse_overrides(options.override))
    program = compile_training(config, options.devices, options.fsdp)
    print(f"{options.name}, {options.devices // options.fsdp} (data) x {options.fsdp} (fsdp)\n")
    sys.exit(0 if report(program, options.devices, options.fsdp, options.all) else 1)


if __name__ == "__main__":
    # Neither option changes what is sent, only how long it takes to compile the rest.
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=64")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_disable_most_optimizations", True)
    main()
