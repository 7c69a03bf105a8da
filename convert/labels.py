"""Class names and colours that travel with published checkpoints."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from convert.formats import Format
from convert.sources import Checkpoint
from flaxseg.errors import ConfigError
from flaxseg.labels import LabelSet, meaning

MMSEG = "mmseg"

NO_CLASS = {"background", "unlabeled", "unlabelled", "unlabel", "ignore", "ignored", "void", "none"}
"""Names of what is no class, where a list has one name too many."""

PLACEHOLDER = re.compile(r"LABEL_\d+")
"""What transformers writes where nobody has given names."""

FOREGROUND = ("background", "foreground")


class Named(NamedTuple):
    """Names that a file gives.

    Attributes:
        names: number -> name, as the file counts.
        where: what holds them, for messages.
        palette: number -> colour, likewise.
    """

    names: dict[int, str]
    where: str
    palette: dict[int, Any]


def from_checkpoint(
    checkpoint: Checkpoint, num_classes: int, *, one_output: bool = False
) -> tuple[LabelSet, tuple[str, ...]]:
    """The classes that a file names, or numbered ones; and what to note about it.

    Args:
        checkpoint: what was read.
        num_classes: of the network.
        one_output: its two classes come from one output, so that a single name is that of the
            foreground.
    """
    generic = LabelSet.generic(num_classes)
    found, notes = _noted(checkpoint.content.meta), ()
    if found is None:
        found, notes = _of_hugging_face(checkpoint.config)
    if one_output:
        found, notes = _of_one_output(found, notes)
    if found is None:
        return generic, notes
    numbers, note = place(found.names, num_classes)
    if numbers is None:
        count = len(found.names)
        note = f"{found.where} names {count} classes for {num_classes} outputs: numbered instead"
        return generic, (*notes, note)
    notes += (f"{found.where} {note}",) if note else ()
    names = [generic.classes[i] if n is None else found.names[n] for i, n in enumerate(numbers)]
    colours = [
        generic.palette[i] if n is None or n not in found.palette else tuple(found.palette[n])
        for i, n in enumerate(numbers)
    ]
    try:
        return LabelSet("imported", _distinct(names), tuple(colours)), notes
    except (ConfigError, TypeError) as error:
        return generic, (
            *notes,
            f"class names and colours of the file do not fit: {error}",
        )


def place(names: Mapping[int, str], num_classes: int) -> tuple[Sequence[int | None] | None, str]:
    """Which of a file's numbers is which output, where its meaning is plain.

    Args:
        names: number -> name, as the file counts.
        num_classes: how many outputs there are.

    Returns:
        For each output the file's number, None where it names none, or nothing at all if the
        meaning is not plain; and what was done about it.
    """
    plain = list(range(num_classes))
    numbers = sorted(names)
    if numbers == plain:
        return plain, ""
    if numbers == [number + 1 for number in plain]:
        return numbers, f"counts its classes from 1: taken as 0 to {num_classes - 1}"
    no_class = [number for number in numbers if meaning(names[number]) in NO_CLASS]
    if len(numbers) == num_classes + 1 and len(no_class) == 1:
        kept = [number for number in numbers if number != no_class[0]]
        if no_class[0] in (numbers[0], numbers[-1]) and kept[-1] - kept[0] == num_classes - 1:
            named = f"{no_class[0]} {names[no_class[0]]!r}"
            return kept, f"names one class more than there are outputs: without {named}"
    if numbers and 0 <= numbers[0] and numbers[-1] == num_classes - 1:
        absent = [number for number in plain if number not in names]
        listed = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
        return [n if n in names else None for n in plain], f"has no name for class {listed}"
    return None, ""


def to_meta(layout: Format, labels: LabelSet | None) -> dict[str, Any] | None:
    """What a training script of the peer notes beside the weights about classes."""
    if layout.name != MMSEG or labels is None:
        return None
    palette = [list(colour) for colour in labels.palette]
    meta = {"classes": list(labels.classes), "palette": palette}
    return {"CLASSES": meta["classes"], "PALETTE": palette, "dataset_meta": meta}


def _of_one_output(found: Named | None, notes: tuple[str, ...]) -> tuple[Named, tuple[str, ...]]:
    """Two names: the file's, its only one behind the background, or those of any such network."""
    names = list(found.names.values()) if found else []
    if found and len(names) == 2:
        return found, notes
    if found and len(names) == 1 and meaning(names[0]) not in NO_CLASS:
        colours = dict(enumerate(found.palette.values(), 1))
        return Named({0: FOREGROUND[0], 1: names[0]}, found.where, colours), notes
    if found and len(names) > 2:
        note = (
            f"{found.where} names {len(names)} classes for one output: {' and '.join(FOREGROUND)}"
        )
        notes = (*notes, f"{note} instead")
    return Named(dict(enumerate(FOREGROUND)), "the file", {}), notes


def _noted(meta: Mapping[str, Any]) -> Named | None:
    """mmsegmentation's names: of 1.x under `dataset_meta`, of 0.x in capitals."""
    inner = meta.get("dataset_meta")
    if isinstance(inner, dict):
        names, palette = inner.get("classes"), inner.get("palette")
    else:
        names, palette = meta.get("CLASSES"), meta.get("PALETTE")
    if not isinstance(names, list | tuple) or not names:
        return None
    if not all(isinstance(name, str) for name in names):
        return None
    colours = dict(enumerate(_colours(palette, len(names))))
    return Named(dict(enumerate(names)), "the file", colours)


def _colours(palette: Any, count: int) -> Sequence[Any]:
    """The palette, if it is one of so many colours; else none at all."""
    if not isinstance(palette, list | tuple) or len(palette) != count:
        return ()
    plain = all(
        isinstance(colour, list | tuple) and all(isinstance(part, int) for part in colour)
        for colour in palette
    )
    return palette if plain else ()


def _of_hugging_face(config: Mapping[str, Any]) -> tuple[Named | None, tuple[str, ...]]:
    """The names of a config.json, and a note if it has some that cannot be read.

    Numbers and names stand on either side, in `id2label` or in `label2id`, or the names in a list.
    """
    values = config.get("id2label") or config.get("label2id")
    if not values:
        return None, ()
    where = "id2label" if config.get("id2label") else "label2id"
    pairs = list(values.items() if isinstance(values, dict) else _enumerated(values))
    forward = [(_number(key), name) for key, name in pairs]
    backward = [(_number(name), key) for key, name in pairs]
    for numbered in (forward, backward):
        names = {n: str(name) for n, name in numbered if n is not None and _is_name(name)}
        if len(names) == len(pairs) > 0:
            if all(PLACEHOLDER.fullmatch(name) for name in names.values()):
                return None, ()
            return Named(names, where, {}), ()
    return None, (f"{where} of config.json gives no name for each number: classes are numbered",)


def _enumerated(values: Any) -> list[tuple[int, Any]]:
    return list(enumerate(values)) if isinstance(values, list) else []


def _number(value: Any) -> int | None:
    """A whole number, also one that is written as text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Two classes of one name are told apart by their number."""
    seen = [name for name in names if names.count(name) > 1]
    return tuple(f"{name} {i}" if name in seen else name for i, name in enumerate(names))
