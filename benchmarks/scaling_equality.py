"""Trains small networks on meshes of eight devices and compares with one device.

    python benchmarks/scaling_equality.py [NAME ...] [--dtypes float64 float32] [--steps 20]

For each network and number format: one device, eight simulated ones as data x fsdp = 8x1, 4x2 and
1x8, and two processes of four devices each (4x2), which talk over the loopback. A line of Markdown
gives the largest relative difference of the loss, of the running statistics and of the parameters
(relative to the largest value of each tensor). Exit code 1 if a loss or a statistic differs by more
than 1e-9 in float64 or 1e-4 in float32.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax import numpy as jnp
from jax.sharding import Mesh

from flaxseg import models
from flaxseg.distributed import Launch, joined, to_host
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import FSDP, gather_for_gradient, make_mesh, put_batch, state_sharding
from flaxseg.training.optim import make_optimizer
from flaxseg.training.step import compile_step, init_state, make_train_step

_VIT = {"patch_size": 8, "width": 32, "depth": 1, "mlp_dim": 64}
_SETR = {f"backbone.{key}": value for key, value in _VIT.items()}

NETWORKS: dict[str, dict[str, Any]] = {
    "bisenetv2": {
        "backbone.detail_channels": (8, 8, 16),
        "backbone.detail_layers": (1, 1, 1),
        "backbone.semantic_channels": (8, 8, 16, 16),
        "backbone.semantic_layers": (1, 1, 1),
        "backbone.expansion": 2,
        "head_channels": 16,
        "aux_channels": (8, 8, 8, 8),
    },
    "ccnet": {"backbone.width": 8, "backbone.blocks": (1, 1, 1, 1), "channels": 16},
    "segformer_b0": {
        "backbone.widths": (8, 16, 40, 32),
        "backbone.depths": (1, 1, 1, 1),
        "channels": 16,
    },
    "setr": {
        **_SETR,
        "backbone.num_heads": 4,
        "backbone.head_dim": 8,
        "backbone.patch_size": 16,
        "backbone.depth": 4,
        "backbone.out_indices": (0, 1, 2, 3),
        "channels": 8,
    },
    "vitseg": _VIT,
}
"""Each architecture as small as it gets; dropout and auxiliary heads stay."""

SIZE, BATCH, CLASSES = (32, 32), 8, 6
MIN_SHARDED = 512
"""Elements from which a tensor is split here: these networks have none that a real run would."""

MESHES = {"1x1": 1, "8x1": 1, "4x2": 2, "1x8": 8}
"""Name of a mesh -> its devices along fsdp."""

# The higher the rate, the more a value counts that rounding takes across a ReLU's corner.
RATES = {"float64": 1e-3, "float32": 1e-4}
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


class Trained(NamedTuple):
    """A finished training: the loss of every step, and the tensors after the last one."""

    losses: np.ndarray
    stats: list[np.ndarray]
    params: list[np.ndarray]


def batches(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random images and labels, the same at every call."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        image = rng.integers(0, 256, (BATCH, *SIZE, 3), dtype=np.uint8)
        label = rng.integers(0, CLASSES, (BATCH, *SIZE), dtype=np.uint8)
        yield image, np.where(rng.random(label.shape) < 0.1, np.uint8(255), label)


def train(name: str, dtype: str, mesh: Mesh, steps: int) -> Trained:
    """Trains a network of `NETWORKS` from the same weights on the same batches."""
    config = models.get_config(name, num_classes=CLASSES, **NETWORKS[name]).with_image_size(SIZE)
    schedule = optax.constant_schedule(RATES[dtype])
    tx = make_optimizer("sgd", schedule, momentum=0.9, weight_decay=1e-4)

    def init():
        types = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(dtype)}
        return init_state(models.build(config, rngs=models.params_keys(0), **types), tx)

    types = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(dtype)}
    sharding = state_sharding(jax.eval_shape(init), mesh, MIN_SHARDED)
    step = make_train_step(
        nnx.split(models.abstract_model(config, **types), nnx.Param, nnx.BatchStat)[0],
        tx,
        schedule=schedule,
        preprocess=Preprocess(),
        aux_weights=config.aux_weights,
        gather=gather_for_gradient(sharding.params, mesh) if mesh.shape[FSDP] > 1 else None,
    )
    compiled = compile_step(step, mesh, sharding)
    state = jax.jit(init, out_shardings=sharding)()
    losses = []
    for batch in batches(steps):
        state, metrics = compiled(state, *put_batch(batch, mesh, complete=True))
        losses.append(np.asarray(metrics.loss))
    stats, params = (jax.tree.leaves(to_host(tree)) for tree in (state.stats, state.params))
    return Trained(np.array(losses), stats, params)


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest difference of two lists of tensors, relative to the largest value of each."""
    # Some tensors stay at zero up to rounding, such as biases in front of a BatchNorm.
    gaps = [
        np.abs(a - b).max() / max(np.abs(b).max(), 1e-3) for a, b in zip(ours, theirs, strict=True)
    ]
    return float(max(gaps, default=0.0))


def differences(ours: Trained, reference: Trained) -> dict[str, float]:
    """Relative differences of losses (each by itself), statistics and parameters."""
    return {
        "loss": float(np.max(np.abs(ours.losses / reference.losses - 1))),
        "statistics": difference(ours.stats, reference.stats),
        "parameters": difference(ours.params, reference.params),
    }


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Context in which JAX computes in a number format."""
    with jax.enable_x64(dtype == "float64"):
        yield


def worker(process: int, port: int, steps: int, file: Path, jobs: list[str]) -> None:
    """One of two processes: trains all jobs NAME:DTYPE; the first one writes what comes out."""
    arrays: dict[str, np.ndarray] = {}
    with joined(Launch("auto", f"127.0.0.1:{port}", 2, process)):
        mesh = make_mesh(fsdp=2)
        for job in jobs:
            name, dtype = job.split(":")
            with precision(dtype):
                trained = train(name, dtype, mesh, steps)
            arrays[f"{job}/losses"] = trained.losses
            for part in ("stats", "params"):
                for i, array in enumerate(getattr(trained, part)):
                    arrays[f"{job}/{part}/{i:05}"] = array
        if process == 0:
            np.savez(file, **arrays)


def two_processes(jobs: list[str], steps: int, folder: Path) -> dict[str, Trained]:
    """Trains all jobs in two processes of four devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = folder / "two.npz"
    flags = os.environ.get("XLA_FLAGS", "")
    env = {**os.environ, "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=4"}
    common = ["--steps", str(steps), "--file", str(file), "--port", str(port), *jobs]
    command = [sys.executable, __file__, "--worker"]
    running = [subprocess.Popen([*command, str(i), *common], env=env) for i in (1, 0)]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"the two processes ended with {codes}")
    with np.load(file) as arrays:
        return {job: _read(job, arrays) for job in jobs}


def _read(job: str, arrays: Any) -> Trained:
    keys = sorted(arrays.files)
    stats, params = (
        [arrays[key] for key in keys if key.startswith(f"{job}/{part}/")]
        for part in ("stats", "params")
    )
    return Trained(arrays[f"{job}/losses"], stats, params)


def compare(names: list[str], dtypes: list[str], steps: int) -> bool:
    """Prints the table; True if everything is within its bound."""
    jobs = [f"{name}:{dtype}" for name in names for dtype in dtypes]
    print("| network | format | mesh | loss | statistics | parameters | |")
    print("|---|---|---|---|---|---|---|", flush=True)
    references, good = {}, True
    for job in jobs:
        name, dtype = job.split(":")
        for mesh_name, fsdp in MESHES.items():
            devices = jax.devices()[: 1 if mesh_name == "1x1" else 8]
            with precision(dtype):
                trained = train(name, dtype, make_mesh(devices, fsdp), steps)
            reference = references.setdefault(job, trained)
            if mesh_name != "1x1":
                good &= report(job, mesh_name, trained, reference)
    with tempfile.TemporaryDirectory() as folder:
        for job, trained in two_processes(jobs, steps, Path(folder)).items():
            good &= report(job, "2 processes, 4x2", trained, references[job])
    return good


def report(job: str, mesh: str, trained: Trained, reference: Trained) -> bool:
    """Prints a line; True if it is within its bound."""
    name, dtype = job.split(":")
    found = differences(trained, reference)
    good = max(found["loss"], found["statistics"]) <= TOLERANCE[dtype]
    numbers = " | ".join(f"{value:.1e}" for value in found.values())
    print(f"| `{name}` | {dtype} | {mesh} | {numbers} | {'ok' if good else 'FAIL'} |", flush=True)
    return good


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="eight devices and two processes against one")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCE, default=list(TOLERANCE))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.worker, options.port, options.steps, options.file, options.names)
        return
    names = options.names or list(NETWORKS)
    sys.exit(0 if compare(names, options.dtypes, options.steps) else 1)


if __name__ == "__main__":
    # A program that runs for moments had better be made fast than be fast.
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update(
        "jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
    )
    main()
