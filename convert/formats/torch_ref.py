"""State dicts of `torch_ref`'s networks: native keys, in torch's order, with torch's counters.

These keys are the design's own, so they tell the architecture and its sizes, but not which of the
variants that differ in an epsilon alone.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import nnx

from convert.changes import KEEP, Shape
from convert.formats.format import Format, Names
from convert.rules import Link, Rule, Spare, Table
from flaxseg import models, native
from flaxseg.model_dir import COUNTER
from flaxseg.models.registry import ARCHITECTURES, build


@dataclasses.dataclass(frozen=True)
class NativeKeys(Format):
    """Every native key stands for itself; the rules only tell which keys these are."""

    def names(self, shapes: Mapping[str, Shape]) -> Names:
        """Every key that some published layout of the architecture translates to."""
        templates = [t for rule in self.rules if isinstance(rule, Rule) for t in rule.native]
        begun = ((key, t) for t in templates for key in shapes if key.startswith(t.prefix))
        known = {key for key, template in begun if template.match(key)}
        unknown = [key for key in shapes if key not in known and not key.endswith(COUNTER)]
        return Names({key: shapes[key] for key in shapes if key in known}, unknown, [])

    def table(self, model: Any) -> Table:
        """The identity on all tensors."""
        leaves = native.leaves(models.abstract_model(model.config))
        counters = [_counter(key) for key in leaves if key.endswith("running_var")]
        spares = {key: Spare("counts training batches", (), "int64") for key in counters}
        links = tuple(Link({key: shape}, {key: shape}, KEEP) for key, shape in leaves.items())
        return Table(links, spares, tuple(declared(model.config)))


def declared(config: models.Config) -> list[str]:
    """The keys of a network's state dict in PyTorch, in torch's order.

    Both sides declare their modules alike, and torch lists a module's parameters, then its running
    statistics, then its children.
    """
    keys: list[str] = []

    def declare() -> nnx.State:
        model = build(config, rngs=models.params_keys(0))
        keys.extend(_keys_of(model, ""))
        return nnx.state(model)

    jax.eval_shape(declare)  # as a model keeps the order only while it is being built
    return keys


def _keys_of(module: Any, prefix: str) -> Iterator[str]:
    parts = vars(module).items() if isinstance(module, nnx.Module) else enumerate(module)
    parts = [(f"{prefix}{name}", part) for name, part in parts]
    for kind in (nnx.Param, nnx.BatchStat):
        yield from (key for key, part in parts if isinstance(part, kind))
    yield from (_counter(key) for key, _ in parts if key.endswith("running_var"))
    for key, part in parts:
        if isinstance(part, nnx.Module | nnx.List | list | tuple):
            yield from _keys_of(part, f"{key}.")


def _counter(key: str) -> str:
    return f"{key.removesuffix('running_var')}{COUNTER}"


def native_keys(architecture: str, formats: tuple[Format, ...]) -> NativeKeys:
    """The format of an architecture's own keys.

    Args:
        architecture: one of `flaxseg.models.registry.ARCHITECTURES`.
        formats: the published ones, whose rules have all its keys on their native side.
    """
    rules = [r for f in formats if f.architecture == architecture for r in f.rules]
    return NativeKeys(
        name="torch_ref",
        architecture=architecture,
        origin=f"torch_ref's {architecture}, state dict of the bare network",
        rules=tuple(rules),
        variants=tuple(ARCHITECTURES[architecture].variants),
        free=frozenset(),
        bare=True,
        preprocess=None,
    )
