"""What a published checkpoint layout is: its rules, and the networks that it stores."""

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from convert.changes import Shape
from convert.rules import Extra, Rule, Table, build_table
from flaxseg import native
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import COUNTER, Tensor
from flaxseg.models import get_config
from flaxseg.preprocess import Preprocess


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did not use.

    Attributes:
        left_out: foreign key -> why nothing is lost without it.
        spares: the same tensors, to be handed to `Format.export_state`.
    """

    left_out: dict[str, str]
    spares: dict[str, np.ndarray]


class Names(NamedTuple):
    """How the keys of a file read under a format.

    Attributes:
        native: native key -> shape of the peer's tensor; where a key has two readings, both.
        unknown: keys that no rule gives.
        absent: keys of unused tensors that the peer stores and this file lacks.
    """

    native: dict[str, Shape]
    unknown: list[str]
    absent: list[str]


@dataclasses.dataclass(frozen=True)
class Format:
    """A published layout.

    Attributes:
        name: of the origin, as users call it.
        architecture: what the files hold: a network, or an encoder.
        origin: whose files these are.
        rules: in the order in which the peer declares its modules.
        variants: registry names of the networks it stores; empty if it holds a part of many.
        free: dotted configuration fields in which a network may differ from the variants, since
            shapes reveal them or a trained network's output does not depend on them.
        scope: the native keys it covers start with this, or with one of these.
        counters: it stores `num_batches_tracked` beside every running variance.
        wrapper: the entry of the file under which the peer keeps the state dict, None if bare.
        licence: of the peer's code and weights.
        non_commercial: it forbids commercial use.
        inplace_abn: its norms are InPlaceABN layers, which scale by |weight| + eps. The rules carry
            the weights as they are; `convert.load` and `convert.save` go by this.
        bare: any network of the architecture has these keys, so that they tell no variant.
        head_dim: channels of an attention head, where an encoder's shapes do not tell it.
        preprocess: normalisation of the images that its networks were trained on, ImageNet's
            unless told; None if it is not known.
        by_classes: number of classes -> another one, where that tells the data set.
    """

    name: str
    architecture: str
    origin: str
    rules: tuple[Rule | Extra, ...]
    variants: tuple[str, ...] = ()
    free: frozenset[str] = frozenset()
    scope: str | tuple[str, ...] = ""
    counters: bool = True
    wrapper: str | None = None
    licence: str = ""
    non_commercial: bool = False
    inplace_abn: bool = False
    bare: bool = False
    head_dim: int | None = None
    preprocess: Preprocess | None = Preprocess()
    by_classes: Mapping[int, Preprocess] = dataclasses.field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.name} {self.architecture}"

    def import_state(self, foreign: Mapping[str, np.ndarray], model: Any) -> Imported:
        """Fills `model` from the peer's tensors.

        Args:
            foreign: the peer's key -> array.
            model: of `flaxseg.models` (real; abstract if the format covers all of it) or
                `torch_ref`; its variables are overwritten.

        Raises:
            CheckpointError: another function than the peer's, or keys and shapes that do not
                fit, all of them named; the model is untouched.
        """
        table = self.table(model)
        arrays = self.to_native(table, foreign)
        side = _side(model)
        rest = side.state_dict(model) if self.scope else {}
        side.fill(model, {**rest, **arrays})
        spares = {key: foreign[key] for key in table.spares if key in foreign}
        return Imported({key: table.spares[key].reason for key in spares}, spares)

    def to_native(self, table: Table, foreign: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The peer's tensors under native keys, by a table of this format.

        Raises:
            CheckpointError: keys and shapes that do not fit, all of them named.
        """
        try:
            return table.to_native(foreign)
        except CheckpointError as error:
            raise CheckpointError(f"format {self}: {error}") from None

    def export_state(
        self, model: Any, spares: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """The model's tensors as the peer stores them, in the peer's order.

        Args:
            model: of `flaxseg.models` or `torch_ref`.
            spares: what an import left out; zeros if None.

        Raises:
            CheckpointError: the model computes something else than the peer's network.
        """
        arrays = {k: a for k, a in _side(model).state_dict(model).items() if self.covers(k)}
        return self.table(model).to_foreign(arrays, spares)

    def table(self, model: Any) -> Table:
        """The explicit table of the model's tensors.

        Raises:
            CheckpointError: the format does not store this network.
        """
        self._check_function(model.config)
        leaves = {k: shape for k, shape in _side(model).leaves(model).items() if self.covers(k)}
        if not leaves:
            raise CheckpointError(f"format {self} stores no part of this network")
        return build_table(self.rules, leaves, counters=self.counters)

    def names(self, shapes: Mapping[str, Shape]) -> Names:
        """Reads the keys of a file without knowing its network."""
        known, native = set(), {}
        for rule in (rule for rule in self.rules if isinstance(rule, Rule)):
            for template in rule.foreign:
                prefix = template.prefix
                found = ((key, template.unfill(key)) for key in shapes if key.startswith(prefix))
                uses = {key: fields for key, fields in found if fields is not None}
                known |= uses.keys()
                if not rule.condition.holds(native):
                    continue
                for key, fields in uses.items():
                    native |= dict.fromkeys((t.fill(fields) for t in rule.native), shapes[key])
        extras = {rule.key for rule in self.rules if isinstance(rule, Extra)}
        counters = {key for key in shapes if self.counters and key.endswith(COUNTER)}
        unknown = [key for key in shapes if key not in known | extras | counters]
        return Names(native, unknown, [key for key in extras if key not in shapes])

    def covers(self, key: str) -> bool:
        """Whether the format holds this native key."""
        return key.startswith(self.scope)

    def stores(self, config: Any) -> bool:
        """Whether a network of this configuration computes what the peer's does."""
        return not self.variants or [] in self._differences(config).values()

    def _check_function(self, config: Any) -> None:
        """No key and no shape would reveal another dilation or activation."""
        if self.stores(config):
            return
        differences = self._differences(config)
        variant = min(differences, key=lambda name: len(differences[name]))
        found = ", ".join(f"{n} is {a!r}, there {b!r}" for n, a, b in differences[variant])
        raise CheckpointError(
            f"format {self} stores {' and '.join(self.variants)}, which compute something "
            f"else than this network: {found}"
        )

    def _differences(self, config: Any) -> dict[str, list[tuple[str, Any, Any]]]:
        """Variant -> the fields in which the configuration has another function."""
        return {v: differing_fields(config, get_config(v), self.free) for v in self.variants}


def differing_fields(
    ours: Any, theirs: Any, free: frozenset[str] = frozenset()
) -> list[tuple[str, Any, Any]]:
    """Dotted name, our and their value of every field in which two configurations differ.

    Args:
        ours: a configuration.
        theirs: another.
        free: dotted names of fields that may differ.
    """
    a, b = _fields(ours), _fields(theirs)
    names = sorted((a.keys() | b.keys()) - free)
    return [(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)]


def _side(model: Any) -> ModuleType:
    """The module that reads and fills this kind of model; torch is imported only for its own."""
    if isinstance(model, nnx.Module):
        return native
    from convert import bridge

    return bridge


def _fields(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of every field, nested ones included."""
    fields = {}
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            fields |= _fields(value, f"{name}.")
        else:
            fields[name] = value
    return fields
