"""State dicts of `torch_ref`'s networks: native keys, in torch's order, with torch's counters.

These keys are the design's own, so they tell the architecture and its sizes, but not which of the
variants that differ in an epsilon alone.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from convert.changes import KEEP, Shape
from convert.formats.format import Format, Names
from convert.rules import Link, Rule, Spare, Table
from flaxseg import models, native
from flaxseg.model_dir import COUNTER
from flaxseg.models.registry import ARCHITECTURES


@dataclasses.dataclass(frozen=True)
class NativeKeys(Format):
    """Every native key stands for itself; the rules only tell which keys these are."""

    def names(self, shapes: Mapping[str, Shape]) -> Names:
        """Every key that some published layout of the architecture translates to."""
        templates = [t for rule in self.rules if isinstance(rule, Rule) for t in rule.native]
        known = {key for key in shapes if any(t.match(key) for t in templates)}
        unknown = [key for key in shapes if key not in known and not key.endswith(COUNTER)]
        return Names({key: shapes[key] for key in shapes if key in known}, unknown, [])

    def table(self, model: Any) -> Table:
        """The identity on all tensors."""
        leaves = native.leaves(models.abstract_model(model.config))
        counters = [_counter(key) for key in leaves if key.endswith("running_var")]
        spares = {key: Spare("counts training batches", (), "int64") for key in counters}
        links = tuple(Link({key: shape}, {key: shape}, KEEP) for key, shape in leaves.items())
        return Table(links, spares, tuple(self._order(model.config)))

    def _order(self, config: models.Config) -> list[str]:
        import torch

        import torch_ref

        with torch.device("meta"):
            return list(torch_ref.create_model(config).state_dict())


def _counter(key: str) -> str:
    return f"{key.removesuffix('running_var')}{COUNTER}"


def native_keys(architecture: str, formats: tuple[Format, ...]) -> NativeKeys:
    """The format of an architecture's own keys.

    Args:
        architecture: one of `flaxseg.models.ARCHITECTURES`.
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
