"""The rule engine: from rename rules and a network's leaves to an explicit table.

A rule is a pair of templates that share their fields. The native network is the source of truth:
every native key is pushed through the rules, native to foreign, and exactly one rule must take
it. The table that results is read forward to export and backward to import, so no rule and no
format ever states an inverse. Nothing here reads files or knows a framework.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from convert.changes import KEEP, Change, Shape
from convert.templates import Fields, KeyOrder, Template
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import COUNTER, Tensor, check_keys


@dataclasses.dataclass(frozen=True)
class Condition:
    """Networks, by native keys that they have and lack."""

    having: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    def holds(self, leaves: Mapping[str, Shape]) -> bool:
        """Whether a network with these native keys is meant."""
        lacks = not any(key in leaves for key in self.lacking)
        return lacks and all(key in leaves for key in self.having)


ANY = Condition()


@dataclasses.dataclass(frozen=True)
class Rule:
    """Native keys and the foreign keys that hold the same values.

    Attributes:
        native: templates with plain fields, usually one.
        foreign: templates over the same fields, usually one.
        change: what happens to the values on the way.
        condition: which networks it is for; all of them by default.
    """

    native: tuple[Template, ...]
    foreign: tuple[Template, ...]
    change: Change = KEEP
    condition: Condition = ANY

    def __post_init__(self):
        names = self.native[0].names()
        if any(template.names() != names for template in (*self.native, *self.foreign)):
            raise ValueError(f"the templates of rule {self} do not share their fields")

    def __str__(self) -> str:
        native, foreign = (", ".join(t.text for t in side) for side in (self.native, self.foreign))
        return f"{native} <-> {foreign}"


@dataclasses.dataclass(frozen=True)
class Extra:
    """A tensor that the peer stores and the network does not use.

    Attributes:
        key: the foreign key.
        reason: why nothing is lost by leaving it out.
        shape: of the tensor of zeros that stands in for it on export, from the native shapes.
        condition: which networks it is for; all of them by default.
    """

    key: str
    reason: str
    shape: Callable[[Mapping[str, Shape]], Shape]
    condition: Condition = ANY


def rename(
    native: str | Sequence[str], foreign: str | Sequence[str], change: Change = KEEP
) -> Rule:
    """A rule from template texts; several on a side are tensors that belong together."""
    return Rule(_templates(native), _templates(foreign), change)


def _templates(texts: str | Sequence[str]) -> tuple[Template, ...]:
    return tuple(map(Template, [texts] if isinstance(texts, str) else texts))


def under(prefix: str, rules: Iterable[Rule | Extra]) -> tuple[Rule | Extra, ...]:
    """The same rules for a peer that keeps those tensors under a prefix such as "backbone."."""

    def move(rule: Rule | Extra) -> Rule | Extra:
        if isinstance(rule, Extra):
            return dataclasses.replace(rule, key=prefix + rule.key)
        foreign = tuple(Template(prefix + template.text) for template in rule.foreign)
        return dataclasses.replace(rule, foreign=foreign)

    return tuple(move(rule) for rule in rules)


def where(
    rules: Iterable[Rule | Extra],
    *,
    having: str | tuple[str, ...] = (),
    lacking: str | tuple[str, ...] = (),
) -> tuple[Rule | Extra, ...]:
    """The same rules, for networks alone that have and lack these native keys.

    A peer may store the same part of two networks under two names.
    """

    def keys(value: str | tuple[str, ...]) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else value

    condition = Condition(keys(having), keys(lacking))
    return tuple(dataclasses.replace(rule, condition=condition) for rule in rules)


@dataclasses.dataclass(frozen=True)
class Link:
    """A rule with its fields filled: native key -> shape beside foreign key -> shape."""

    native: dict[str, Shape]
    foreign: dict[str, Shape]
    change: Change


@dataclasses.dataclass(frozen=True)
class Spare:
    """A foreign tensor without native counterpart: why, and what stands in for it."""

    reason: str
    shape: Shape
    dtype: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Every tensor of one network in one format.

    Attributes:
        links: what carries values.
        spares: foreign key -> tensor that does not.
        order: all foreign keys, in the order of the peer's own state dict.
    """

    links: tuple[Link, ...]
    spares: dict[str, Spare]
    order: tuple[str, ...]

    @property
    def foreign_shapes(self) -> dict[str, Shape]:
        """Foreign key -> shape, of all tensors in the peer's order."""
        shapes = {key: spare.shape for key, spare in self.spares.items()}
        for link in self.links:
            shapes |= link.foreign
        return {key: shapes[key] for key in self.order}

    def to_foreign(
        self, native: Mapping[str, np.ndarray], spares: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Native arrays under the peer's keys, in the peer's order.

        Args:
            native: native key -> array in torch's axis order.
            spares: unused tensors kept from an import; zeros stand in for those not given.

        Raises:
            CheckpointError: names all missing, unexpected and misshapen native keys.
        """
        expected = {key: shape for link in self.links for key, shape in link.native.items()}
        check_keys(expected, native)
        arrays = {key: np.zeros(s.shape, s.dtype) for key, s in self.spares.items()}
        arrays |= spares or {}
        for link in self.links:
            inputs = [native[key] for key in link.native]
            outputs = link.change.to_foreign(inputs, list(link.foreign.values()))
            arrays |= zip(link.foreign, outputs, strict=True)
        return {key: arrays[key] for key in self.order}

    def to_native(self, foreign: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The peer's tensors under native keys, in torch's axis order, read where they change.

        Spare tensors may be there or not, in any shape.

        Raises:
            CheckpointError: names all missing, unexpected and misshapen keys, or tensors whose
                values contradict each other.
        """
        expected = {key: shape for link in self.links for key, shape in link.foreign.items()}
        check_keys(expected, {k: a for k, a in foreign.items() if k not in self.spares})
        arrays: dict[str, Tensor] = {}
        for link in self.links:
            if link.change is KEEP:
                arrays |= zip(link.native, (foreign[key] for key in link.foreign), strict=True)
                continue
            inputs = [np.asarray(foreign[key]) for key in link.foreign]
            try:
                outputs = link.change.to_native(inputs, list(link.native.values()))
            except ValueError as error:
                raise CheckpointError(f"{', '.join(link.foreign)}: {error}") from None
            arrays |= zip(link.native, outputs, strict=True)
        return arrays


def build_table(
    rules: Iterable[Rule | Extra], leaves: Mapping[str, Shape], *, counters: bool = True
) -> Table:
    """Pushes every native key through the rules.

    Args:
        rules: in the order in which the peer declares its modules, which gives the key order.
        leaves: native key -> shape in torch's axis order.
        counters: the peer stores `num_batches_tracked` beside every running variance.

    Raises:
        CheckpointError: a native key that not exactly one rule takes, an incomplete group of
            native keys, or two native keys with one foreign name.
    """
    rules = tuple(rule for rule in rules if rule.condition.holds(leaves))
    renames = [rule for rule in rules if isinstance(rule, Rule)]
    extras = [rule for rule in rules if isinstance(rule, Extra)]
    order = KeyOrder(t for rule in rules for t in _foreign_templates(rule))

    links, places = [], {}
    for rule, fields in _uses(renames, leaves):
        links.append(_link(rule, fields, leaves))
        for template in rule.foreign:
            _claim(places, template, fields, order)
    spares = {e.key: Spare(e.reason, tuple(e.shape(leaves)), "float32") for e in extras}
    for extra in extras:
        _claim(places, Template(extra.key), {}, order)
    if counters:
        spares |= _counters(places)
    return Table(tuple(links), spares, tuple(sorted(places, key=places.__getitem__)))


def _foreign_templates(rule: Rule | Extra) -> tuple[Template, ...]:
    return rule.foreign if isinstance(rule, Rule) else (Template(rule.key),)


def _uses(rules: list[Rule], leaves: Mapping[str, Shape]) -> list[tuple[Rule, Fields]]:
    """Each rule with each set of fields for which the network has leaves."""
    uses: dict[tuple[int, tuple], tuple[Rule, Fields]] = {}
    problems = []
    for key in leaves:
        matches = [
            (number, rule, fields)
            for number, rule in enumerate(rules)
            for template in rule.native
            if (fields := template.match(key)) is not None
        ]
        if len(matches) != 1:
            taken = "; ".join(str(rule) for _, rule, _ in matches) or "no rule"
            problems.append(f"{key} is taken by {taken}")
            continue
        number, rule, fields = matches[0]
        uses[number, tuple(sorted(fields.items()))] = (rule, fields)
    if problems:
        raise CheckpointError(
            "the format does not fit the network, every key needs exactly one rule: "
            + "; ".join(problems)
        )
    return list(uses.values())


def _link(rule: Rule, fields: Fields, leaves: Mapping[str, Shape]) -> Link:
    native = [template.fill(fields) for template in rule.native]
    absent = [key for key in native if key not in leaves]
    if absent:
        raise CheckpointError(f"rule {rule} needs {', '.join(absent)}, which the network lacks")
    shapes = [tuple(leaves[key]) for key in native]
    foreign = [template.fill(fields) for template in rule.foreign]
    foreign_shapes = rule.change.foreign_shapes(shapes, len(foreign))
    return Link(
        dict(zip(native, shapes, strict=True)),
        dict(zip(foreign, foreign_shapes, strict=True)),
        rule.change,
    )


def _claim(places: dict[str, tuple], template: Template, fields: Fields, order: KeyOrder) -> None:
    key = template.fill(fields)
    if key in places:
        raise CheckpointError(f"two tensors of the network would be stored as {key}")
    places[key] = order.sort_key(template, fields)


def _counters(places: dict[str, tuple]) -> dict[str, Spare]:
    """Adds the counter beside every running variance, right behind it in the order."""
    counters = {}
    for key, place in list(places.items()):
        layer, _, leaf = key.rpartition(".")
        if leaf == "running_var":
            counter = f"{layer}.{COUNTER}"
            places[counter] = (*place, (0,))
            counters[counter] = Spare("counts training batches", (), "int64")
    return counters
