"""Key templates: dotted names with fields, such as `backbone.layer{s+1}.{b}.bn{i}.*`.

`{s}` stands for a number. Where a template is filled it may be shifted and scaled: `{s+1}`,
`{3*i+1}`, `{-1*i+3}`. `*` stands for the name of a parameter or buffer: `weight`, `running_var`.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable

LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""Parameters and buffers of one layer in the order of torch's state dicts."""

Fields = dict[str, int | str]

_FIELD = re.compile(r"\{(?:(-?\d+)\*)?([a-z]+)([+-]\d+)?\}|(\*)")


@dataclasses.dataclass(frozen=True)
class Template:
    """A dotted key with fields."""

    text: str

    @functools.cached_property
    def prefix(self) -> str:
        """How every key begins that it can give: most keys need no further look."""
        return _FIELD.split(self.text, maxsplit=1)[0]

    def names(self) -> frozenset[str]:
        """The fields that occur; `*` is the parameter's name."""
        return frozenset(m[2] or m[4] for m in _FIELD.finditer(self.text))

    def match(self, key: str) -> Fields | None:
        """The fields that give `key`, or None."""
        found = _pattern(self.text).fullmatch(key)
        if found is None:
            return None
        return {
            "*" if name == "leaf" else name: value if name == "leaf" else int(value)
            for name, value in found.groupdict().items()
        }

    def unfill(self, key: str) -> Fields | None:
        """The fields with which `fill` gives `key`, or None: `match` for shifted fields too."""
        found = _shifted_pattern(self.text).fullmatch(key)
        if found is None:
            return None
        fields: Fields = {}
        for number, field in enumerate(_FIELD.finditer(self.text)):
            value, name = found[f"field{number}"], field[2] or field[4]
            if not field[4]:
                value, rest = divmod(int(value) - int(field[3] or 0), int(field[1] or 1))
                if rest or value < 0:
                    return None
            if fields.setdefault(name, value) != value:
                return None
        return fields

    def fill(self, fields: Fields) -> str:
        """The key with these fields."""
        return _FIELD.sub(lambda found: str(_value(found, fields)), self.text)


class KeyOrder:
    """Sorts keys like a state dict whose modules were declared in the order of the templates.

    Templates form a tree over the dots. Children of one node come in the order of their first
    mention, except that neighbours with the same fields take turns: `conv{i}` and `bn{i}` give
    conv1, bn1, conv2, bn2.
    """

    def __init__(self, templates: Iterable[Template]):
        self._places: dict[str, tuple[int, int]] = {}
        children: dict[str, list[tuple[frozenset[str], int]]] = {}
        for template in templates:
            for parent, path in _edges(template):
                if path in self._places:
                    continue
                siblings = children.setdefault(parent, [])
                names = Template(path.removeprefix(parent)).names()
                group = siblings[-1][1] if siblings else 0
                if siblings and siblings[-1][0] != names:
                    group += 1
                self._places[path] = (group, len(siblings))
                siblings.append((names, group))

    def sort_key(self, template: Template, fields: Fields) -> tuple[tuple[int, ...], ...]:
        """Where the filled template stands; it must be one of the templates given."""
        place = []
        for parent, path in _edges(template):
            group, position = self._places[path]
            part = path.removeprefix(parent)
            values = [_rank(_value(found, fields)) for found in _FIELD.finditer(part)]
            place.append((group, *values, position))
        return tuple(place)


def _edges(template: Template) -> list[tuple[str, str]]:
    """Every node of the path with its parent: ("", "a"), ("a", "a.b"), ..."""
    parts = template.text.split(".")
    paths = ["", *(".".join(parts[: n + 1]) for n in range(len(parts)))]
    return list(zip(paths, paths[1:], strict=False))


def _value(found: re.Match[str], fields: Fields) -> int | str:
    factor, name, shift, leaf = found.groups()
    if leaf:
        return fields["*"]
    return int(factor or 1) * int(fields[name]) + int(shift or 0)


def _rank(value: int | str) -> int:
    if isinstance(value, int):
        return value
    return LEAVES.index(value) if value in LEAVES else len(LEAVES)


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    """The regular expression of a template whose fields are plain."""
    pattern, end, seen = "", 0, set()
    for found in _FIELD.finditer(text):
        factor, name, shift, leaf = found.groups()
        if factor or shift:
            raise ValueError(f"template {text!r} cannot be matched: write {found[0]} as {{{name}}}")
        pattern += re.escape(text[end : found.start()])
        if leaf:
            pattern += "(?P<leaf>[a-z_]+)"
        else:
            pattern += f"(?P={name})" if name in seen else rf"(?P<{name}>0|[1-9]\d*)"
            seen.add(name)
        end = found.end()
    return re.compile(pattern + re.escape(text[end:]))


@functools.cache
def _shifted_pattern(text: str) -> re.Pattern[str]:
    """The regular expression of a template with any fields, numbered as they come."""
    pattern, end = "", 0
    for number, found in enumerate(_FIELD.finditer(text)):
        value = "[a-z_]+" if found[4] else r"0|[1-9]\d*"
        pattern += f"{re.escape(text[end : found.start()])}(?P<field{number}>{value})"
        end = found.end()
    return re.compile(pattern + re.escape(text[end:]))
