"""Speed of the networks on this machine's CPU, PyTorch in turns with them.

    python benchmarks/speed.py [--models NAME[:BATCH:SIZE] ...] [--mode infer train]
        [--against torch_ref torch_compile] [--rounds N] [--cold] [--scaling] [--out FILE.json]
    python benchmarks/speed.py --page

Both frameworks hold the same weights and images, in one process with as many threads, and take
turns: flaxseg, PyTorch in one layout, PyTorch in the other. Before anything is timed their logits
are compared, for training the losses of the first step, dropout included; a difference is an error.

- infer: normalised images to logits of the images' own height and width.
- train: a step as `flaxseg train` makes it, from bytes, with SGD and momentum; PyTorch's images are
  normalised before, and its optimiser is torch.optim.SGD(fused=True).

A sample during which the system took a thread of this process off its processor is dropped, where
five others remain. Ratios are PyTorch's time over flaxseg's, of the better of PyTorch's layouts.
How well the processors read from each other is measured before and after, see `shared_cache.py`.
FILE is written after each network. --cold adds the seconds of a fresh process until its first
result with compiled programs on disk, --scaling how time and memory grow with size and batch.
--page makes the tables of docs/performance.md from benchmarks/results/speed/*.json.

`taskset -c 0-3 python benchmarks/speed.py` gives both frameworks four processors.
"""

import argparse
import dataclasses
import datetime
import gc
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import speed_page
import speed_torch
import torch
from networks import published_size
from shared_cache import read_across
from speed_cold import first_result
from speed_machine import machine, threads
from speed_scaling import Limits, scaling

from convert.parity.runs import random_state
from flaxseg import cli, models, native
from flaxseg.bench import (
    PROGRAMS,
    Inference,
    Mode,
    Samples,
    Training,
    measure_ceilings,
    random_batch,
    take_turns,
    without_cache,
)
from flaxseg.bench.ceilings import jax_copy, jax_product
from flaxseg.errors import ConfigError, FlaxsegError
from flaxseg.files import replace_text
from flaxseg.heap import keep_memory

MODELS = (
    "ccnet:2:224 ccnet_r50:1:256 setr:1:256 segformer_b0:2:224 segformer_b0:1:512 "
    "segformer_b2:1:512 bisenetv2:2:224 bisenetv2:1:448 vitseg:8:128"
).split()

JOB = re.compile(r"(\w+)(?::([1-9]\d*):([1-9]\d*)(?:x([1-9]\d*))?)?")
"""NAME:BATCH:SIZE, as `Job.parse` reads it."""

BOUNDS = {"float32": 1e-4, "bfloat16": 5e-2}
"""How far logits may be apart, relative to the largest, and losses, relative to them."""

PAUSE = 0.02
"""Seconds before each call: workers of the other framework still spin for a moment."""

Found = dict[str, Any]


class UnequalError(FlaxsegError):
    """Frameworks that compute different things, so that comparing their times means nothing."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A program to be measured.

    Attributes:
        name: of the network.
        config: its configuration, for images of this size.
        batch: images.
        size: their height and width in pixels.
        mode: "infer" or "train".
        dtype: of the computation.
    """

    name: str
    config: models.Config
    batch: int
    size: tuple[int, int]
    mode: Mode
    dtype: str

    @classmethod
    def parse(cls, text: str, mode: Mode, dtype: str) -> "Job":
        """Reads NAME or NAME:BATCH:SIZE, where SIZE is a number or HEIGHTxWIDTH.

        Raises:
            ConfigError: it is something else, or does not fit the network.
        """
        match = JOB.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"--models {text}: expected NAME or NAME:BATCH:SIZE, as in ccnet:2:224"
            )
        name, batch, height, width = match.groups()
        config = models.get_config(name)
        size = (int(height), int(width or height)) if height else published_size(name)
        config = config.with_image_size(size)
        config.check_size(size)
        return cls(name, config, int(batch or 1), size, mode, dtype)

    @property
    def title(self) -> str:
        """For errors and progress."""
        return f"{self.name}, {self.batch} of {self.size[0]}x{self.size[1]}, {self.mode}"


def contenders(
    job: Job, against: list[str]
) -> tuple[Inference | Training, dict[str, speed_torch.Inference | speed_torch.Training]]:
    """The program of flaxseg, and those of PyTorch by name, with the same weights and images.

    Nothing is at a default: no gate is closed, no statistic empty.
    """
    arrays = random_state(job.config, 0)
    model = native.fill(models.abstract_model(job.config, dtype=job.dtype), arrays)
    batch = random_batch(job.config, job.batch, job.size)
    rivals = speed_torch.twins(model, batch, job.mode, job.dtype, against)
    return PROGRAMS[job.mode](model, batch), rivals


def measure(job: Job, against: list[str], rounds: int) -> Found:
    """Compares a network with its rivals, then times them in turns.

    Raises:
        UnequalError: they compute different things.
    """
    ours, rivals = contenders(job, against)
    apart, left_out = compare(job, np.asarray(ours()), rivals)
    calls = {"flaxseg": ours} | {name: rivals[name] for name in apart}
    before = read_across()
    samples = take_turns(calls, rounds, PAUSE)
    across = [reading and reading._asdict() for reading in (before, read_across())]
    return {
        "model": job.name,
        "batch": job.batch,
        "size": list(job.size),
        "mode": job.mode,
        "dtype": job.dtype,
        "apart": apart,
        "left_out": left_out,
        "costs": dataclasses.asdict(ours.costs),
        "samples": {name: one.to_json() for name, one in samples.items()},
        "ratios": ratios(samples),
        "across": across,
    }


def compare(
    job: Job, found: np.ndarray, rivals: dict[str, Any]
) -> tuple[dict[str, float], dict[str, str]]:
    """How far each rival is apart, and why those are left out that do not run.

    Args:
        job: what is compared.
        found: flaxseg's logits, or the loss of its first step.
        rivals: of PyTorch, by name.

    Raises:
        UnequalError: one of them is further apart than the bound.
    """
    apart, left_out, bound = {}, {}, BOUNDS[job.dtype]
    what = "logits" if job.mode == "infer" else "losses of the first step"
    for name, rival in rivals.items():
        try:
            apart[name] = rival.difference(found)
        except (RuntimeError, ValueError) as error:
            left_out[name] = str(error).strip().partition("\n")[0] or type(error).__name__
            continue
        if not apart[name] <= bound:
            raise UnequalError(
                f"{job.title}: {what} of flaxseg and {name} are {apart[name]:.1e} apart, the bound "
                f"is {bound:.0e}: nothing was timed; python -m convert.parity tells where they part"
            )
    return apart, left_out


def ratios(samples: dict[str, Samples]) -> dict[str, Found]:
    """PyTorch's time over flaxseg's, for "PyTorch" and "torch.compile" as far as they ran.

    Each is as fast as its better layout.
    """
    found, ours = {}, samples["flaxseg"]
    for rival in ("PyTorch", "torch.compile"):
        theirs = {name: one for name, one in samples.items() if name.startswith(f"{rival} ")}
        if theirs:
            found[rival] = {
                "fastest": min(theirs, key=lambda name: theirs[name].min),
                "min": min(one.min for one in theirs.values()) / ours.min,
                "median": min(one.median for one in theirs.values()) / ours.median,
            }
    return found


def ceilings() -> dict[str, Found]:
    """What each framework reaches without a network, in float32."""
    return {
        "jax": measure_ceilings(jax_product, jax_copy)._asdict(),
        "torch": measure_ceilings(speed_torch.torch_product, speed_torch.torch_copy)._asdict(),
    }


def with_shares(run: Found) -> Found:
    """The run with the share of the highest product's speed that each network reaches."""
    highest = max(x["product"] for those in run["ceilings"].values() for x in those.values())
    for row in run["networks"]:
        flops = row["costs"]["flops"]
        row["share"] = flops and flops / row["samples"]["flaxseg"]["min"] / highest
    return run


def measure_all(options: argparse.Namespace) -> Found:
    """Measures everything that is asked for, and writes it down again and again."""
    jobs = [
        Job.parse(text, mode, options.dtype) for text in options.models for mode in options.mode
    ]
    run: Found = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "command": shlex.join(["python", "benchmarks/speed.py", *sys.argv[1:]]),
        "rounds": options.rounds,
        **machine(),
        "ceilings": {"first": ceilings()},
        "networks": [],
        "scaling": [],
    }

    def keep() -> None:
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            replace_text(options.out, json.dumps(with_shares(run), indent=1) + "\n")

    for job in jobs:
        print(job.title, end=": ", flush=True)
        row = measure(job, options.against, options.rounds)
        if options.cold:
            row["cold"] = first_result(job.name, job.batch, job.size, job.mode, job.dtype)
        run["networks"].append(row)
        keep()
        print(_in_short(row), flush=True)
        gc.collect()
        jax.clear_caches()
    if options.scaling:
        limits = Limits(options.limit, max(3, options.rounds // 3))
        for job in {(job.name, job.mode): job for job in jobs}.values():
            print(f"scaling of {job.name}, {job.mode}", flush=True)
            series = scaling(job.config, job.mode, job.dtype, limits)
            run["scaling"].append({"model": job.name, "mode": job.mode, "series": series})
            keep()
            jax.clear_caches()
    run["ceilings"]["last"] = ceilings()
    keep()
    return with_shares(run)


def _in_short(row: Found) -> str:
    """What a network came to, in a line."""
    parts = [f"{1e3 * row['samples']['flaxseg']['min']:.0f} ms"]
    for rival, found in row["ratios"].items():
        parts.append(f"{rival} takes {found['min']:.2f} times that ({found['fastest']})")
    parts += [f"{name} left out: {why}" for name, why in row["left_out"].items()]
    return "; ".join(parts)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME[:BATCH:SIZE]")
    parser.add_argument("--dtype", choices=BOUNDS, default="float32")
    parser.add_argument("--mode", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    rivals = ("torch_ref", "torch_compile")
    parser.add_argument("--against", nargs="*", choices=rivals, default=["torch_ref"])
    parser.add_argument("--rounds", type=int, default=15, help="timed calls of each")
    parser.add_argument("--cold", action="store_true", help="first result of a fresh process, too")
    parser.add_argument("--scaling", action="store_true", help="growth with size and batch, too")
    parser.add_argument("--limit", type=float, default=20, help="seconds of a call in --scaling")
    parser.add_argument("--out", type=Path, help="file of results, JSON")
    parser.add_argument("--page", action="store_true", help="only write docs/performance.md")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def main() -> None:
    """Measures, or writes the page."""
    options = arguments()
    if options.page:
        return speed_page.write_page()
    # PyTorch computes on the CPU here, and so does JAX; accelerators have a benchmark of their own.
    jax.config.update("jax_platforms", "cpu")
    keep_memory()
    torch.set_num_threads(threads())
    with without_cache():
        run = measure_all(options)
    for made in speed_page.tables({"here": run}).values():
        print(f"\n{made}")


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
