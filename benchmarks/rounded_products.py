"""What a network loses where an accelerator rounds the operands of float32 products.

    python benchmarks/rounded_products.py [--networks bisenetv2 segformer_b0 ...] [--size 128 128]

Computed on the CPU, which rounds nothing: the network's program is run operation by operation, and
the operands of matrix products and convolutions are rounded as GPUs do (TF32) and TPUs (one pass of
bfloat16), with sums in float32. Which of them is the question of three columns: those that stay
exact whatever a run asks for (interpolation, products of weights); the others, which is what
`--matmul-precision default` does; or all. Random weights, as the tests of equality have them.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from convert.parity.runs import random_state
from flaxseg import models, native

FORMATS = {"TF32": 10, "bfloat16": 7}
"""Bits behind the leading one; float32 has 23."""

PRODUCTS = ("dot_general", "conv_general_dilated")
CHOICES = {
    "interpolation": lambda exact: exact,
    "the others": lambda exact: not exact,
    "all": lambda exact: True,
}
Rounding = Callable[[bool, jax.Array], jax.Array]
"""(whether its product is always exact, an operand) -> what is multiplied."""


def run(program: Jaxpr, constants: Sequence[Any], inputs: Sequence[Any], rounded: Rounding) -> list:
    """The outputs of a program whose products take rounded operands."""
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    values.update(zip(program.constvars, constants, strict=True))
    values.update(zip(program.invars, inputs, strict=True))
    for equation in program.eqns:
        operands = [read(atom) for atom in equation.invars]
        inner = _inner(equation)
        if inner is not None:
            extra = len(operands) - len(inner.jaxpr.invars)
            outputs = run(inner.jaxpr, inner.consts, operands[extra:], rounded)
        else:
            name = equation.primitive.name
            if name in PRODUCTS:
                exact = lax.Precision.HIGHEST in equation.params["precision"]
                operands = [rounded(exact, operand) for operand in operands]
            outputs = equation.primitive.bind(*operands, **equation.params)
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in program.outvars]


def _inner(equation: Any) -> ClosedJaxpr | None:
    """The program inside an equation; of a choice by platform the accelerators' one."""
    if "branches" in equation.params:
        return equation.params["branches"][-1]
    for value in equation.params.values():
        if isinstance(value, ClosedJaxpr):
            return value
    return None


def compare(name: str, size: tuple[int, int]) -> Iterator[tuple[str, str, float, float]]:
    """For each format and choice: the largest difference of a logit, and the pixels that change."""
    config = models.get_config(name).with_image_size(size)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    model = models.with_precision(models.eval_view(model), "default")
    graphdef, state = nnx.split(model)
    image = np.random.default_rng(0).standard_normal((1, *size, 3), np.float32)

    def forward(state: nnx.State, image: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state)(image).logits

    program, inputs = jax.make_jaxpr(forward)(state, image), [*jax.tree.leaves(state), image]

    def logits(rounded: Rounding) -> np.ndarray:
        replay = jax.jit(
            lambda *inputs: run(program.jaxpr, program.consts, inputs, rounded)[0],
            compiler_options=models.quick_compile(),
        )
        return np.asarray(replay(*inputs))

    exact = logits(lambda _, operand: operand)
    for format, bits in FORMATS.items():
        for choice, chosen in CHOICES.items():

            def rounded(exact: bool, operand: jax.Array, chosen=chosen, bits=bits) -> jax.Array:
                return lax.reduce_precision(operand, 8, bits) if chosen(exact) else operand

            found = logits(rounded)
            apart = np.abs(found - exact).max() / np.abs(exact).max()
            moved = (found.argmax(-1) != exact.argmax(-1)).mean()
            yield format, choice, float(apart), float(moved)


def main():
    """Prints a row for each network and format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("bisenetv2", "segformer_b0", "ccnet", "setr", "vitseg")
    parser.add_argument("--networks", nargs="+", default=names)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), help="height and width")
    options = parser.parse_args()
    print("| network | operands become | " + " | ".join(CHOICES) + " |")
    print("|---|---|" + "---|" * len(CHOICES))
    for name in options.networks:
        rows: dict[str, list[str]] = {}
        for format, _, apart, moved in compare(name, tuple(options.size)):
            rows.setdefault(format, []).append(f"{apart:.1e}, {moved:.2%}")
        for format, cells in rows.items():
            print(f"| `{name}` | {format} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
