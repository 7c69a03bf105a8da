"""`flaxseg bench`."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

from flaxseg import models
from flaxseg.bench.ceilings import Ceilings, jax_copy, jax_product, measure_ceilings
from flaxseg.bench.programs import PROGRAMS, Costs, Mode, random_batch, without_cache
from flaxseg.bench.samples import Samples, take_turns
from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.files import replace_text
from flaxseg.inference.opening import resolve_model_dir
from flaxseg.model_dir import read_directory
from flaxseg.ops import Precision
from flaxseg.printed import in_bytes, in_milliseconds, print_line
from flaxseg.training.config import HUB, parse_overrides

USUAL_SIZE = (512, 512)
"""Height and width for a network that takes any."""

USUAL_PRECISION: dict[Mode, Precision] = {"infer": "highest", "train": "default"}
"""Of float32 products in `flaxseg predict` and `flaxseg train`."""


Opener = Callable[[str], Path]


class Measured(NamedTuple):
    """A program's numbers.

    Attributes:
        precision: of float32 products.
        costs: what it costs besides its time.
        samples: seconds of its calls.
        ceiling: operations per second of the device's own product of matrices, in the same format
            and precision.
    """

    precision: Precision
    costs: Costs
    samples: Samples
    ceiling: float

    @property
    def share(self) -> float | None:
        """Of the ceiling that the fastest call reaches; None where XLA counts no operations."""
        flops = self.costs.flops
        return None if flops is None else flops / self.samples.min / self.ceiling

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        parts = {"costs": dataclasses.asdict(self.costs), "samples": self.samples.to_json()}
        return self._asdict() | parts | {"share": self.share}


@dataclasses.dataclass(frozen=True)
class BenchArgs:
    """Measure a network's speed on the default device, with weights and images of noise.

    Programs are compiled without a cache. Inference goes from normalised images to logits of the
    images' size; training is a step of SGD with momentum, as `flaxseg train` makes it.
    """

    model: tyro.conf.Positional[str]
    """A network's name, a model directory, the work directory of a training run, or any checkpoint
    that `flaxseg convert formats` lists: file, folder or hf:owner/name[@revision]."""

    size: tuple[int, ...] = ()
    """Height and width of the images in pixels; one number for both. None given: those that the
    network is for, or 512."""

    batch: int = 8
    """Images of a call."""

    mode: tuple[Mode, ...] = ("infer", "train")
    """What is measured: infer, train or both."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the computation; parameters stay float32."""

    matmul_precision: Precision | None = None
    """Of float32 products. highest: float32 itself; default: what the device does fastest. None:
    highest for inference, default for training, as the commands have it."""

    override: tuple[str, ...] = ()
    """Fields of the network, as KEY=VALUE, such as remat=true."""

    num_classes: int | None = None
    """Classes to tell apart. None: as many as the network has."""

    rounds: int = 20
    """Timed calls of each program."""

    json: Path | None = None
    """File to write the same numbers to."""

    def __call__(self, console: Console, *, opened: Opener = Path) -> None:
        """Measures and prints.

        Args:
            console: where to print.
            opened: what makes a directory of ours of a checkpoint.

        Raises:
            FlaxsegError: settings that do not fit the network or the device.
        """
        self._check()
        size, config = self._config(opened)
        parameters = sum(x.size for x in jax.tree.leaves(_parameters(config)))
        height, width = size
        print_line(
            console,
            f"{self.model}, {parameters / 1e6:.2f} M parameters, {self.dtype}, batch {self.batch} "
            f"of {height} x {width} on {_device()}, jax {jax.__version__}",
        )
        measured: dict[Mode, Measured] = {}
        with without_cache():
            for mode in self.mode:
                measured[mode] = self._measure(mode, config, size)
        console.print(_table(measured, self.batch))
        if self.json is not None:
            about = {"model": self.model, "batch": self.batch, "size": size, "dtype": self.dtype}
            about |= {"parameters": parameters, "device": _device(), "jax": jax.__version__}
            about["modes"] = {mode: one.to_json() for mode, one in measured.items()}
            replace_text(self.json, json.dumps(about, indent=1))

    def _check(self) -> None:
        for name in ("batch", "rounds"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"--{name} is {value}, it must be at least 1")
        if not self.mode:
            raise ConfigError("--mode has no value, it must be infer, train or both")
        if len(self.size) > 2 or any(side < 1 for side in self.size):
            given = " ".join(map(str, self.size))
            raise ConfigError(f"--size is {given}, it must be one number or two, at least 1")

    def _config(self, opened: Opener) -> tuple[tuple[int, int], models.Config]:
        """Height and width of the images, and the network for them."""
        config = find_config(self.model, opened)
        classes = {} if self.num_classes is None else {"num_classes": self.num_classes}
        config = models.override(config, parse_overrides(self.override) | classes)
        size = (self.size[0], self.size[-1]) if self.size else config.fixed_size or USUAL_SIZE
        try:
            config = config.with_image_size(size)
            config.check_size(size)
        except ConfigError as error:
            given = " ".join(map(str, self.size)) or "not given"
            raise ConfigError(f"--size is {given}, with {self.model}: {error}") from None
        return size, config

    def _measure(self, mode: Mode, config: models.Config, size: tuple[int, int]) -> Measured:
        precision = self.matmul_precision or USUAL_PRECISION[mode]
        dtype = jnp.dtype(self.dtype)
        try:
            model = models.fresh_model(config, dtype=dtype, rngs=nnx.Rngs(0))
            model = models.with_precision(model, precision)
            program = PROGRAMS[mode](model, random_batch(config, self.batch, size))
            samples = take_turns({mode: program}, self.rounds)[mode]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise ConfigError(
                f"--batch {self.batch} does not fit {_device()} with --mode {mode}: "
                f"{str(error).splitlines()[0]}; give a smaller --batch or --size, or "
                "--override remat=true"
            ) from None
        return Measured(precision, program.costs, samples, _ceilings(self.dtype, precision).product)


def find_config(name: str, opened: Opener = Path) -> models.Config:
    """The configuration that a user means.

    Args:
        name: of a network, or path of a model directory or of a run's work directory.
        opened: what makes one of these of the name of a checkpoint.

    Raises:
        FlaxsegError: it is none of them, or the directory is damaged.
    """
    if name in models.list_models():
        return models.get_config(name)
    if not Path(name).exists() and not name.startswith(HUB):
        near = did_you_mean(name, models.list_models())
        raise ConfigError(f"{name!r} is neither the name of a network nor a folder or file{near}")
    return read_directory(resolve_model_dir(opened(name)))[0].config


def _parameters(config: models.Config) -> nnx.State:
    return nnx.state(models.abstract_model(config), nnx.Param)


def _device() -> str:
    device = jax.devices()[0]
    return f"{device.device_kind} ({device.platform})"


@functools.cache
def _ceilings(dtype: str, precision: Precision) -> Ceilings:
    product = functools.partial(jax_product, dtype=dtype, precision=precision)
    return measure_ceilings(product, jax_copy)


def _table(measured: Mapping[Mode, Measured], batch: int) -> Table:
    """One column for each program."""
    table = Table("", *measured, box=None, padding=(0, 2, 0, 0))
    columns = [_cells(one, batch) for one in measured.values()]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def _cells(one: Measured, batch: int) -> dict[str, str]:
    """What is told of a program, by the name of the row."""
    samples, costs = one.samples, one.costs
    low, high = samples.quartiles
    return {
        "float32 products": one.precision,
        "images/s, fastest call": f"{batch / samples.min:.4g}",
        "images/s, median": f"{batch / samples.median:.4g}",
        "a call, fastest": in_milliseconds(samples.min),
        "a call, median": in_milliseconds(samples.median),
        "half of the calls": f"{in_milliseconds(low)} to {in_milliseconds(high)}",
        "calls that count": f"{len(samples.seconds)} of {samples.taken}",
        "tracing": f"{costs.trace_seconds:.2f} s",
        "compiling": f"{costs.compile_seconds:.2f} s",
        "FLOPs": _giga(costs.flops),
        "FLOPs after optimising": _giga(costs.compiled_flops),
        "bytes accessed": _bytes(costs.bytes_accessed),
        "temporary memory": _bytes(costs.temporary),
        "memory": _bytes(costs.memory),
        "of a matrix product's speed": "unknown" if one.share is None else f"{one.share:.0%}",
        "a matrix product": f"{one.ceiling / 1e9:.0f} GFLOP/s",
    }


def _giga(count: float | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:.4g} GFLOP"


def _bytes(count: float | None) -> str:
    return "unknown" if count is None else in_bytes(count)
