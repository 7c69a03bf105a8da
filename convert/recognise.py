"""Finds out what a checkpoint is from its keys and shapes alone."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from convert.changes import Shape
from convert.formats import FORMATS, TORCH_REF, Format
from convert.formats.format import Names, differing_fields
from convert.reveal import reveal
from flaxseg import models
from flaxseg.errors import CheckpointError, ConfigError

NETWORKS = (*(format_ for format_ in FORMATS if format_.variants), *TORCH_REF)
ENCODERS = tuple(format_ for format_ in FORMATS if not format_.variants)

HEAD = "head."
"""The native keys of every network's head start with this."""

LEAST_SHARE = 0.5
"""A file of which no format knows this share of the keys is none of the known ones."""


@dataclasses.dataclass(frozen=True)
class Recognition:
    """What a checkpoint is.

    Attributes:
        format: the layout of its keys.
        config: the network's configuration.
        model_name: the network's registry name.
        alternatives: names of networks of another function that the same file would fit.
    """

    format: Format
    config: models.Config
    model_name: str
    alternatives: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.format.name}: {self.model_name}, {self.config.num_classes} classes"


class _Candidate(NamedTuple):
    """A network in a format, and how far the file is from it: tensors that are wrong, of these the
    network's own, and unused ones that the file lacks."""

    wrong: int
    lacking: int
    absent: int
    format: Format
    config: models.Config


def identify(
    shapes: Mapping[str, Shape],
    *,
    origin: str | None = None,
    model: str | None = None,
    like: models.Config | None = None,
) -> Recognition:
    """The format and the network that a state dict fits best.

    Whether every key and shape fits is for `Format.import_state` to say, which names what does
    not.

    Args:
        shapes: key -> shape of every tensor.
        origin: name of the format, if it is known.
        model: registry name of the network, if it is known.
        like: the network to choose where the file fits several.

    Raises:
        CheckpointError: no format knows half of the keys, the file holds an encoder alone, or it
            fits several networks that only their user can tell apart.
        ConfigError: no format or no network has that name.
    """
    likely = _likely(shapes, _named(origin, model))
    candidates = sorted(
        (c for format_, names in likely for c in _candidates(format_, names, shapes, model)),
        key=lambda candidate: candidate[:3],
    )
    # Tensors of nobody's are wrong in all of them alike.
    whole = [c for c in candidates if c.lacking == 0 and c.wrong == candidates[0].wrong]
    fitting = whole or candidates[:1]
    alike = [c for c in fitting if like and not differing_fields(c.config, like, c.format.free)]
    best = (alike or fitting)[0]
    equals = [] if alike else fitting[1:]
    others = tuple(f"{models.name_of(c.config)} ({c.format.name})" for c in equals)
    if best.format.bare and equals:
        names = (models.name_of(c.config) for c in (best, *equals))
        raise CheckpointError(
            f"the keys fit {', '.join(names)}, which differ in what no file tells, such as the "
            "epsilon of their norms: flaxseg convert import --model says which one it is"
        )
    return Recognition(best.format, best.config, models.name_of(best.config), others)


def _named(origin: str | None, model: str | None) -> list[Format]:
    """The formats of that origin that store that network, for the known parts of both."""
    origins = sorted({format_.name for format_ in NETWORKS})
    if origin is not None and origin not in origins:
        raise ConfigError(f"no format is called {origin!r}, expected one of {', '.join(origins)}")
    config = models.get_config(model) if model else None
    found = [
        format_
        for format_ in NETWORKS
        if origin in (None, format_.name) and (config is None or format_.stores(config))
    ]
    if not found:
        raise ConfigError(f"no format {origin or ''} stores {model}: leave one of the two out")
    return found


def _likely(shapes: Mapping[str, Shape], formats: Iterable[Format]) -> list[tuple[Format, Names]]:
    """The formats that know most of the keys, with their reading of them."""
    readings = [(format_, format_.names(shapes)) for format_ in formats]
    best = max(_share(format_, names, shapes) for format_, names in readings)
    if alone := encoders(shapes, best):
        raise CheckpointError(
            f"it holds an encoder alone ({alone[0].origin}), no whole network: start a training "
            "from it with train.py --init"
        )
    if best < LEAST_SHARE:
        listed = ", ".join(list(shapes)[:5])
        raise CheckpointError(
            f"none of the known formats (flaxseg convert formats) has these keys: {listed}, ..."
        )
    return [(f, names) for f, names in readings if _share(f, names, shapes) == best]


def known_share(shapes: Mapping[str, Shape]) -> float:
    """The largest part of the keys that a format knows, of networks and of encoders, 0 to 1."""
    return max(_share(f, f.names(shapes), shapes) for f in (*NETWORKS, *ENCODERS))


def encoders(shapes: Mapping[str, Shape], known: float | None = None) -> list[Format]:
    """The formats of encoders that know more of the keys than those of whole networks.

    Args:
        shapes: key -> shape of every tensor.
        known: the part of the keys that the latter know, 0 to 1; found out if None.
    """
    if known is None:
        known = max(_share(f, f.names(shapes), shapes) for f in NETWORKS)
    shares = [_share(f, f.names(shapes), shapes) for f in ENCODERS]
    best = max(shares)
    better = best > known and best >= LEAST_SHARE
    return [f for f, share in zip(ENCODERS, shares, strict=True) if better and share == best]


def _share(format_: Format, names: Names, shapes: Mapping[str, Shape]) -> float:
    """The part of the keys that a format knows, 0 to 1: none if its network lacks a head, for the
    encoder's keys may be those of a file that holds it alone."""
    if format_.variants and not any(key.startswith(HEAD) for key in names.native):
        return 0.0
    return 1 - len(names.unknown) / len(shapes) if shapes else 0.0


def _candidates(
    format_: Format, names: Names, shapes: Mapping[str, Shape], model: str | None
) -> list[_Candidate]:
    """The format's networks, each once, in the sizes that the shapes tell."""
    variants = [v for v in format_.variants if model in (None, v)] or [model or ""]
    configs = dict.fromkeys(reveal(models.get_config(name), names.native) for name in variants)
    absent = len(names.absent)
    return [_Candidate(*_wrong(format_, c, shapes), absent, format_, c) for c in configs]


def _wrong(format_: Format, config: models.Config, shapes: Mapping[str, Shape]) -> tuple[int, int]:
    """How many tensors are missing, unexpected or misshapen; and without the unexpected ones."""
    table = format_.table(models.abstract_model(config))
    needed = {k: s for k, s in table.foreign_shapes.items() if k not in table.spares}
    found = {k: tuple(s) for k, s in shapes.items() if k not in table.spares}
    lacking = sum(found.get(key) != shape for key, shape in needed.items())
    return lacking + len(found.keys() - needed.keys()), lacking
