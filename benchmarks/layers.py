"""Where the training step of a network gains and loses beside PyTorch, layer by layer.

    python benchmarks/layers.py NAME:BATCH:SIZE ... [--rounds N] [--out FILE.json]

Every convolution and linear layer of the network is timed by itself, in turns with PyTorch's
(channels last): its output, the gradient of its input, where there is one, and that of its weight.
Layers of one shape are timed once and count as often as they are there. Short calls are made
several times in a row, as threads that have slept take long to begin. The whole step is timed in
the same process; what the layers leave of it is norms, activations, attention, interpolation, the
loss and the optimiser. `python benchmarks/speed.py --page` makes a table of docs/performance.md
from benchmarks/results/layers/*.json.
"""

import argparse
import collections
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from forms import BOUND, PASSES, PAUSE
from speed import Job, contenders
from speed_machine import machine, threads
from torch import nn

from flaxseg import ops
from flaxseg.bench import take_turns
from flaxseg.files import replace_text
from flaxseg.heap import keep_memory

Call = Callable[[], Any]

LONG = 0.03
"""Seconds of a sample, about."""


class Layer(NamedTuple):
    """A convolution, or a linear layer, whose kernel is 0.

    Attributes:
        shape: of the input, channels last.
        outputs: channels.
        learns: there is a gradient of the input.
    """

    shape: tuple[int, ...]
    outputs: int
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    learns: bool = True

    @classmethod
    def of(cls, module: nn.Conv2d | nn.Linear, x: torch.Tensor) -> "Layer":
        """What a module of PyTorch does to x."""
        if isinstance(module, nn.Linear):
            return cls(tuple(x.shape), module.out_features, learns=x.requires_grad)
        B, C, H, W = x.shape
        return cls(
            (B, H, W, C),
            module.out_channels,
            kernel=module.kernel_size[0],
            stride=module.stride[0],
            padding=int(module.padding[0]),
            dilation=module.dilation[0],
            groups=module.groups,
            learns=x.requires_grad,
        )

    @property
    def passes(self) -> tuple[str, ...]:
        """Of `PASSES` those that a step makes."""
        return tuple(name for name in PASSES if self.learns or name != "map")

    def weight_shape(self) -> tuple[int, ...]:
        """As flaxseg lays it out."""
        inputs = self.shape[-1]
        if not self.kernel:
            return inputs, self.outputs
        return self.kernel, self.kernel, inputs // self.groups, self.outputs


def layers_of(job: Job) -> collections.Counter[Layer]:
    """The layers that a training step of PyTorch's network runs, and how often."""
    _, twins = contenders(job, ["torch_ref"])
    twin = next(iter(twins.values()))
    found = collections.Counter[Layer]()

    def note(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        found[Layer.of(module, given[0])] += 1

    for module in twin.module.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(note)
    twin.module(twin.images, aux=bool(job.config.aux_weights))
    return found


def races(layer: Layer) -> dict[str, dict[str, Call]]:
    """For each pass the calls of both, after their results were found equal."""
    rng = np.random.default_rng(0)
    x, weight = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in (layer.shape, layer.weight_shape())
    )
    run = _ours(layer)
    out = jax.eval_shape(run, x, weight)
    cotangent = jnp.asarray(rng.normal(size=out.shape), jnp.float32)
    theirs = (_theirs_linear if not layer.kernel else _theirs)(layer, x, weight, cotangent)
    made = {}
    for index, name in enumerate(PASSES):
        if name in layer.passes:
            ours = _compiled(run, index, x, weight, cotangent)
            made[name] = {"flaxseg": ours, "PyTorch": theirs[name]}
            _check(layer, name, made[name])
    return made


def _ours(layer: Layer) -> Callable[[jax.Array, jax.Array], jax.Array]:
    if not layer.kernel:
        return jnp.dot
    conv = ops.Conv(
        layer.shape[-1],
        layer.outputs,
        layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=False,
        rngs=nnx.Rngs(0),
    )
    graphdef, state = nnx.split(conv)

    def run(x: jax.Array, weight: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, jax.tree.map(lambda _: weight, state))(x)

    return run


def _compiled(run: Callable[..., jax.Array], index: int, *arrays: jax.Array) -> Call:
    def passed(x: jax.Array, weight: jax.Array, cotangent: jax.Array) -> jax.Array:
        y, back = jax.vjp(run, x, weight)
        return (y, *back(cotangent))[index]

    program = jax.jit(passed).lower(*arrays).compile()
    return lambda: jax.block_until_ready(program(*arrays))


def _theirs(layer: Layer, *arrays: jax.Array) -> dict[str, Call]:
    x, weight, cotangent = (torch.from_numpy(np.array(array)) for array in arrays)
    x, cotangent = x.permute(0, 3, 1, 2), cotangent.permute(0, 3, 1, 2)
    weight = weight.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    stride, padding, dilation = ([n] * 2 for n in (layer.stride, layer.padding, layer.dilation))
    given = (None, stride, padding, dilation)
    back = functools.partial(torch.ops.aten.convolution_backward, cotangent, x, weight, *given)
    back = functools.partial(back, False, [0, 0], layer.groups)
    return {
        "output": lambda: torch.conv2d(x, weight, *given, layer.groups).permute(0, 2, 3, 1),
        "map": lambda: back([True, False, False])[0].permute(0, 2, 3, 1),
        "weight": lambda: back([False, True, False])[1].permute(2, 3, 1, 0),
    }


def _theirs_linear(layer: Layer, *arrays: jax.Array) -> dict[str, Call]:
    del layer
    x, weight, cotangent = (torch.from_numpy(np.array(array)) for array in arrays)
    weight = weight.T.contiguous()
    rows, wide = x.flatten(0, -2), cotangent.flatten(0, -2)
    return {
        "output": lambda: nn.functional.linear(x, weight),
        "map": lambda: cotangent @ weight,
        "weight": lambda: (wide.T @ rows).T,
    }


def _check(layer: Layer, name: str, calls: dict[str, Call]) -> None:
    ours, theirs = np.asarray(calls["flaxseg"]()), calls["PyTorch"]().numpy()
    apart = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not apart <= BOUND:
        raise SystemExit(f"error: {layer}, {name}: {apart:.0e} apart, at most {BOUND:.0e}")


def _fastest(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Seconds of the fastest call of each."""
    begin = time.perf_counter()
    calls["flaxseg"]()
    times = max(1, int(LONG / (time.perf_counter() - begin)))

    def repeated(call: Call) -> Call:
        return lambda: [call() for _ in range(times)]

    samples = take_turns({who: repeated(call) for who, call in calls.items()}, rounds, PAUSE)
    return {who: sample.min / times for who, sample in samples.items()}


def measure(job: Job, rounds: int) -> dict[str, Any]:
    """The whole step, and its layers by themselves."""
    rows = []
    for layer, count in layers_of(job).items():
        for name, calls in races(layer).items():
            rows.append(
                {
                    "layer": layer._asdict(),
                    "pass": name,
                    "count": count,
                    "seconds": _fastest(calls, rounds),
                }
            )
        jax.clear_caches()
    ours, rivals = contenders(job, ["torch_ref"])
    samples = take_turns({"flaxseg": ours} | rivals, rounds, PAUSE)
    return {
        "model": job.name,
        "batch": job.batch,
        "size": list(job.size),
        "step": {who: sample.min for who, sample in samples.items()},
        "rows": rows,
    }


def main() -> None:
    """Measures what is asked for, and writes it down after each network."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="NAME:BATCH:SIZE")
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each")
    parser.add_argument("--out", type=Path, help="file of results, JSON")
    options = parser.parse_args()
    torch.set_num_threads(threads())
    keep_memory()
    run: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "networks": []}
    for text in options.models:
        run["networks"].append(measure(Job.parse(text, "train", "float32"), options.rounds))
        if options.out is not None:
            replace_text(options.out, json.dumps(run, indent=1) + "\n")
        print(f"{text}: {len(run['networks'][-1]['rows'])} rows", flush=True)


if __name__ == "__main__":
    main()
