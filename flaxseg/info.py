"""What a model is: its network, its classes, what it takes and what it costs."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from rich.color import Color
from rich.columns import Columns
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from flaxseg import models
from flaxseg.errors import ConfigError
from flaxseg.exported import ExportedConfig, files_of, kind_of, read_about
from flaxseg.inference.opening import resolve_model_dir
from flaxseg.labels import LabelSet
from flaxseg.model_dir import CONFIG_FILE, read_header
from flaxseg.origin import Chain, chain_to_json, licences
from flaxseg.preprocess import Preprocess
from flaxseg.printed import in_bytes, print_line

USUAL_SIZE = (512, 512)
"""Height and width for a network that takes any."""

Changed = dict[str, tuple[Any, Any]]
"""Field of a configuration -> (value, another network's value)."""

_HEAD = ("head", "neck")
_AUXILIARY = ("aux_head", "aux_heads")


class Part(NamedTuple):
    """What a part of a network costs.

    Attributes:
        parameters: trainable values.
        flops: XLA's count for one picture before it optimises, two for each multiply-add; None
            where XLA does not tell.
    """

    parameters: int
    flops: float | None


class Parts(NamedTuple):
    """A network's parts; prediction takes the first two.

    Attributes:
        backbone: all that makes features of a picture.
        head: what makes logits of the picture's size of them, with the neck if there is one.
        auxiliary: the auxiliary heads, which training alone needs.
    """

    backbone: Part
    head: Part
    auxiliary: Part


@dataclasses.dataclass(frozen=True)
class Info:
    """What a model is.

    Attributes:
        path: of its directory.
        name: of its network.
        config: of its network.
        like: the named network of the architecture that differs in the fewest fields.
        changed: field -> (value, value of that network), where they differ.
        labels: its classes.
        preprocess: normalisation of its pictures.
        size: height and width in pixels of the picture that is counted.
        parts: what it costs.
        disk_bytes: of the directory's files.
        origin: where its weights come from, the oldest step first.
        temperature: what its logits are divided by before they become probabilities, if that was
            calibrated.
        more: what else its `config.json` tells.
    """

    path: Path
    name: str
    config: models.Config | ExportedConfig
    like: str
    changed: Changed
    labels: LabelSet
    preprocess: Preprocess
    size: tuple[int, int]
    parts: Parts
    disk_bytes: int
    origin: Chain
    temperature: float | None
    more: dict[str, Any]

    @property
    def parameters(self) -> int:
        """Of all parts."""
        return sum(part.parameters for part in self.parts)

    @property
    def flops(self) -> float | None:
        """Of a prediction; None where XLA does not tell."""
        counts = self.parts.backbone.flops, self.parts.head.flops
        return None if None in counts else sum(count or 0 for count in counts)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        config = self.config
        return {
            "path": str(self.path),
            "name": self.name,
            "model": models.config_to_json(config.network),
            "like": self.like,
            "changed": self.changed,
            "labels": self.labels.to_json(),
            "preprocess": self.preprocess.to_json(),
            "sizes": {
                "fixed": config.fixed_size,
                "divisor": config.size_divisor,
                "square": config.square,
            },
            "counted_size": self.size,
            "parameters": self.parameters,
            "flops": self.flops,
            "parts": {name: part._asdict() for name, part in self.parts._asdict().items()},
            "disk_bytes": self.disk_bytes,
            "licences": list(licences(self.origin)),
            "origin": chain_to_json(self.origin),
            "temperature": self.temperature,
            "more": self.more,
        }


def read_info(path: str | os.PathLike, size: tuple[int, int] | None = None) -> Info:
    """Looks at a model; nothing is computed, and no weights are read.

    Args:
        path: work directory of a training run, model directory, or exported file.
        size: height and width of the picture that is counted. None: the only one that the network
            takes, or 512 x 512.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: the network does not take this size.
    """
    directory = resolve_model_dir(path)
    found = _told_of_file(directory) if kind_of(directory) else _told_of_directory(directory)
    config = found.config
    fixed: tuple[int, int] | None = config.fixed_size
    size = size or fixed or USUAL_SIZE
    try:
        config.check_size(size)
    except ConfigError as error:
        raise ConfigError(f"--size {size[0]} {size[1]}: {error}") from None
    like, changed = nearest(found.name, config.network)
    return Info(
        path=directory,
        name=found.name,
        config=config,
        like=like,
        changed=changed,
        labels=found.labels,
        preprocess=found.preprocess,
        size=size,
        parts=count_parts(config.network, size),
        disk_bytes=sum(file.stat().st_size for file in found.files),
        origin=found.origin,
        temperature=found.temperature,
        more=found.more,
    )


class _Told(NamedTuple):
    """What the files of a model tell."""

    name: str
    config: models.Config | ExportedConfig
    labels: LabelSet
    preprocess: Preprocess
    origin: Chain
    temperature: float | None
    files: list[Path]
    more: dict[str, Any]


def _told_of_directory(directory: Path) -> _Told:
    told = read_header(directory)
    values = json.loads((directory / CONFIG_FILE).read_text())
    more = {key: value for key, value in values.items() if key not in told.to_json()}
    return _Told(*told, files=[file for file in directory.iterdir() if file.is_file()], more=more)


def _told_of_file(path: Path) -> _Told:
    about = read_about(path)
    more = {key: about.values[key] for key in _OF_FILES if key in about.values}
    more |= about.values.get("more", {})
    return _Told(
        about.name,
        about.config,
        about.labels,
        about.preprocess,
        about.origin,
        about.temperature,
        files_of(path),
        more,
    )


_OF_FILES = ("format", "input", "output", "platforms", "opset", "jax", "jaxlib")
"""What an exported file tells besides a model directory."""


def nearest(name: str, config: models.Config) -> tuple[str, Changed]:
    """The named network that a configuration differs least from, and in what.

    Args:
        name: of the network; of several that are as near it is taken.
        config: of the network.

    Returns:
        The name, and field -> (value, the named network's value).
    """
    ours = _flat(dataclasses.asdict(config))
    found: dict[str, Changed] = {}
    for known in sorted(models.list_models(), key=lambda known: known != name):
        variant = models.get_config(known)
        if type(variant) is type(config):
            theirs = _flat(dataclasses.asdict(variant))
            found[known] = {k: (v, theirs[k]) for k, v in ours.items() if v != theirs[k]}
    like = min(found, key=lambda known: len(found[known]))
    return like, found[like]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names."""
    flat = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def count_parts(config: models.Config, size: tuple[int, int]) -> Parts:
    """Parameters and FLOPs of a network's parts, in eval mode.

    Args:
        config: of the network.
        size: height and width of the one picture, in pixels.
    """
    model = models.eval_view(models.abstract_model(config))
    counts = dict.fromkeys(Parts._fields, 0)
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        top = str(path[0])
        name = "auxiliary" if top in _AUXILIARY else "head" if top in _HEAD else "backbone"
        counts[name] += leaf.get_value().size
    # The parts of a program add up before it is optimised.
    encoder = _flops(model, size, _encode)
    whole = _flops(model, size, lambda model, x: model(x).logits)
    training = _flops(model, size, lambda model, x: model(x, aux=True)) if config.aux_weights else 0
    auxiliary = _difference(training, whole) if config.aux_weights else 0
    flops = (encoder, _difference(whole, encoder), auxiliary)
    return Parts(*(Part(*pair) for pair in zip(counts.values(), flops, strict=True)))


def _encode(model: Any, images: jax.Array) -> Any:
    encode = model.backbone if hasattr(model, "backbone") else model.encode
    with jax.default_matmul_precision(model.matmul_precision):
        return encode(images)


def _difference(more: float | None, less: float | None) -> float | None:
    return None if more is None or less is None else more - less


def _flops(
    model: models.Model, size: tuple[int, int], run: Callable[[Any, jax.Array], Any]
) -> float | None:
    graphdef, state = nnx.split(model)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    lowered = jax.jit(lambda s, x: run(nnx.merge(graphdef, s), x)).lower(state, image)
    cost: Any = lowered.cost_analysis()
    found = cost.get("flops", -1) if isinstance(cost, dict) else -1
    return float(found) if found > 0 else None


def print_info(info: Info, console: Console) -> None:
    """Prints it for people."""
    rows = {
        "model": str(info.path),
        "network": info.name if info.like == info.name else f"{info.name}, like {info.like}",
        **{f"  {key}": f"{_said(v)}, not {_said(w)}" for key, (v, w) in info.changed.items()},
        "pictures": sizes_in_words(info.config),
        "normalised": str(info.preprocess),
        "licence": "; ".join(licences(info.origin)) or "not told",
        **{f"origin {number}": str(step) for number, step in enumerate(info.origin, 1)},
        "temperature": "not calibrated" if info.temperature is None else f"{info.temperature:.4g}",
        **{key: _said(value) for key, value in info.more.items()},
        "on disk": in_bytes(info.disk_bytes),
    }
    width = max(map(len, rows))
    for key, value in rows.items():
        print_line(console, f"{key:{width}}  {value}")
    console.print()
    console.print(_costs(info))
    console.print()
    print_line(console, f"{info.labels.num_classes} classes, {info.labels.name}:")
    console.print(_classes(info.labels))


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def sizes_in_words(config: models.Config | ExportedConfig) -> str:
    """Which pictures a network takes, such as "any size, sides multiples of 32"."""
    if config.fixed_size is not None:
        return f"{config.fixed_size[0]} x {config.fixed_size[1]} pixels, others are stretched"
    multiples = f", sides multiples of {config.size_divisor}" if config.size_divisor > 1 else ""
    return f"any size{multiples}{', square' if config.square else ''}"


def _costs(info: Info) -> Table:
    height, width = info.size
    table = Table("", "parameters", f"GFLOP at {height} x {width}", box=None, padding=(0, 2, 0, 0))
    backbone, head, auxiliary = info.parts
    rows = {
        "backbone": backbone,
        "head": head,
        "a prediction": Part(backbone.parameters + head.parameters, info.flops),
    }
    if auxiliary.parameters:
        rows |= {"auxiliary heads": auxiliary, "all": Part(info.parameters, None)}
    for name, part in rows.items():
        flops = "" if name == "all" else _giga(part.flops)
        table.add_row(name, f"{part.parameters:,}", flops)
    return table


def _giga(flops: float | None) -> str:
    return "unknown" if flops is None else f"{flops / 1e9:.4g}"


def _classes(labels: LabelSet) -> Columns:
    """Number, colour and name of every class."""
    rows = []
    for number, (name, color) in enumerate(zip(labels.classes, labels.palette, strict=True)):
        square = Text("■ ", style=Style(color=Color.from_rgb(*color)))
        rows.append(Text(f"{number:>3} ").append_text(square).append(name))
    return Columns(rows, column_first=True, padding=(0, 3))
