"""Races what `flaxseg.ops` runs on a CPU against XLA's own convolution, and PyTorch's beside them.

    python benchmarks/forms.py [--rounds N] [--out FILE.json]

For each shape the output, the gradient of the map and that of the weight, in turns; the results of
all three are compared first. `python benchmarks/speed.py --page` makes a table of
docs/performance.md from benchmarks/results/forms/*.json.
"""

import argparse
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from speed_machine import machine, threads

from flaxseg.bench import take_turns
from flaxseg.files import replace_text
from flaxseg.ops.dense import _forms as dense_forms
from flaxseg.ops.depthwise import _forms as depthwise_forms
from flaxseg.ops.window import Window

BOUND = 1e-4
"""How far results may be apart, relative to the largest value."""

PAUSE = 0.02
"""Seconds before each call: workers of the other framework still spin for a moment."""


class Shape(NamedTuple):
    """A convolution whose padding keeps the side, or divides it by the stride."""

    batch: int
    side: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False

    @property
    def window(self) -> Window:
        """How the kernel moves."""
        return Window(self.stride, self.dilation * (self.kernel // 2), self.dilation)


SHAPES = (
    Shape(2, 112, 64, 64),
    Shape(2, 28, 128, 128),
    Shape(1, 64, 256, 256),
    Shape(1, 32, 512, 512),
    Shape(2, 28, 2048, 512),
    Shape(2, 28, 256, 256, dilation=2),
    Shape(2, 112, 64, 64, stride=2),
    Shape(1, 64, 128, 128, stride=2),
    Shape(1, 256, 3, 64, kernel=7, stride=2),
    Shape(1, 64, 256, 256, depthwise=True),
)

PASSES = ("output", "map", "weight")


def races(shape: Shape) -> Iterator[tuple[str, dict[str, Callable[[], Any]]]]:
    """For each pass the calls of the three, after their results were found equal."""
    rng = np.random.default_rng(0)
    k = shape.kernel
    x = rng.normal(size=(shape.batch, shape.side, shape.side, shape.inputs))
    weight = rng.normal(size=(k, k, 1 if shape.depthwise else shape.inputs, shape.outputs))
    x, weight = jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32)
    if shape.depthwise:
        forms = depthwise_forms(shape.window, None)
    else:
        forms = dense_forms(shape.window, None, shape.inputs)
    cotangent = jnp.asarray(rng.normal(size=forms["default"].forward(x, weight).shape), jnp.float32)
    theirs = _torch_calls(shape, x, weight, cotangent)
    for name in PASSES:
        calls = {
            "flaxseg": _ours(forms["cpu"], name, x, weight, cotangent),
            "XLA": _ours(forms["default"], name, x, weight, cotangent),
            "PyTorch": theirs[name],
        }
        results = [_numpy(call(), name) for call in calls.values()]
        for result in results[1:]:
            apart = np.abs(result - results[0]).max() / np.abs(result).max()
            if apart > BOUND:
                raise SystemExit(f"error: {shape}, {name}: {apart:.0e} apart, at most {BOUND:.0e}")
        yield name, calls


def _ours(form: Any, name: str, *arrays: jax.Array) -> Callable[[], Any]:
    if name == "output":
        run = jax.jit(form.forward)
        return lambda: jax.block_until_ready(run(*arrays[:2]))
    run = jax.jit(lambda *given: form.gradients(*given)[PASSES.index(name) - 1])
    return lambda: jax.block_until_ready(run(*arrays))


def _torch_calls(shape: Shape, *arrays: jax.Array) -> dict[str, Callable[[], torch.Tensor]]:
    """In channels last, which is PyTorch's faster layout for almost all of them."""
    x, weight, cotangent = (torch.from_numpy(np.array(array)) for array in arrays)
    x, cotangent = x.permute(0, 3, 1, 2), cotangent.permute(0, 3, 1, 2)
    weight = weight.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    stride, padding, dilation = ([side] * 2 for side in shape.window)
    groups = shape.inputs if shape.depthwise else 1
    given = (None, stride, padding, dilation)
    back = functools.partial(torch.ops.aten.convolution_backward, cotangent, x, weight, *given)
    back = functools.partial(back, False, [0, 0], groups)
    return {
        "output": lambda: torch.conv2d(x, weight, *given, groups),
        "map": lambda: back([True, False, False])[0],
        "weight": lambda: back([False, True, False])[1],
    }


def _numpy(result: Any, name: str) -> np.ndarray:
    if isinstance(result, torch.Tensor):
        return result.permute(2, 3, 1, 0).numpy() if name == "weight" else _nhwc(result)
    return np.asarray(result)


def _nhwc(result: torch.Tensor) -> np.ndarray:
    return result.permute(0, 2, 3, 1).numpy()


def main() -> None:
    """Runs all races."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="timed calls of each")
    parser.add_argument("--out", type=Path, help="file of results, JSON")
    options = parser.parse_args()
    torch.set_num_threads(threads())
    rows = []
    for shape in SHAPES:
        for name, calls in races(shape):
            samples = take_turns(calls, options.rounds, PAUSE)
            found = {who: sample.to_json() for who, sample in samples.items()}
            rows.append({"shape": shape._asdict(), "pass": name, "samples": found})
            times = ", ".join(f"{who} {1e3 * sample.min:.1f} ms" for who, sample in samples.items())
            print(f"{shape}, {name}: {times}", flush=True)
    if options.out is not None:
        found = {"machine": machine(), "rounds": options.rounds, "rows": rows}
        replace_text(options.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
