"""Reads the files that tell a folder's classes: label_colors.txt, classes.txt or classes.json."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from flaxseg.data.pairs import read_lines
from flaxseg.errors import ConfigError, DataError
from flaxseg.labels import IGNORE, Color, LabelSet

COLOR_FILE = "label_colors.txt"
CLASS_FILES = ("classes.json", "classes.txt", COLOR_FILE)
"""Where a folder's classes are looked for, in this order."""

JSON_FORM = (
    '{"classes": [{"name": "road", "color": [128, 64, 128]}, ...], "ignore": [[0, 0, 0]]}, '
    "with colours also as #8040ff; or just a list of names"
)

_COLORED_LINE = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)\s+(\S.*)")
_HEX = re.compile(r"#([0-9a-fA-F]{6})")


@dataclasses.dataclass(frozen=True)
class Classes:
    """What a class file tells.

    Attributes:
        labels: names and colours; the colours are made up where the file has none.
        colors: class id, or 255, of every colour that a mask may show; None where the file has no
            colours.
        ignore: ids in index masks that count as unlabelled, 255 among them.
    """

    labels: LabelSet
    colors: Mapping[Color, int] | None
    ignore: tuple[int, ...] = (IGNORE,)


def read_classes(path: pathlib.Path, name: str) -> Classes:
    """Reads one of `CLASS_FILES`.

    Args:
        path: classes.json of the form `JSON_FORM`, or a text file with a class name per line, or
            with lines "R G B Name".
        name: of the data set.

    Raises:
        DataError: no UTF-8 text, or content of another form.
    """
    if path.suffix == ".json":
        return _read_json(path, name)
    lines = [line.strip() for line in read_lines(path) if line.strip()]
    if path.name == COLOR_FILE or (lines and all(map(_COLORED_LINE.fullmatch, lines))):
        labels, colors = read_colors(path, name)
        return Classes(labels, colors)
    return Classes(_label_set(path, name, lines, None), None)


def read_colors(path: pathlib.Path, name: str) -> tuple[LabelSet, dict[Color, int]]:
    """Reads a label_colors.txt: lines "R G B Name", one class per name, in the file's order.

    Args:
        path: the file. A name may come on several lines to give its class further colours.
        name: of the data set; the number of classes is appended.

    Returns:
        The classes, each in its first colour, and the class id of every colour.

    Raises:
        DataError: no UTF-8 text, a line of another form, or a colour that has two names.
    """
    palette: dict[str, Color] = {}
    names: dict[Color, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        found = _COLORED_LINE.fullmatch(line.strip())
        values = [int(part) for part in found.groups()[:3]] if found else []
        if not found or max(values) > 255:
            raise DataError(f"{path}, line {number}: {line!r}, expected R G B Name, 0 to 255 each")
        color, class_name = (values[0], values[1], values[2]), found[4]
        if names.setdefault(color, class_name) != class_name:
            raise DataError(f"{path}, line {number}: {names[color]} has the colour {color}, too")
        palette.setdefault(class_name, color)
    if not palette:
        raise DataError(f"{path}: is empty, expected lines R G B Name")
    ids = {class_name: index for index, class_name in enumerate(palette)}
    labels = _label_set(path, f"{name}{len(ids)}", palette, tuple(palette.values()))
    return labels, {color: ids[class_name] for color, class_name in names.items()}


def _read_json(path: pathlib.Path, name: str) -> Classes:
    try:
        values = json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        raise DataError(f"{path}: is no JSON file ({error}); expected is {JSON_FORM}") from error
    settings = {"classes": values} if isinstance(values, list) else values
    known = isinstance(settings, dict) and set(settings) <= {"classes", "ignore"}
    entries = settings.get("classes") if known else None
    ignored = settings.get("ignore", []) if known else None
    if not isinstance(entries, list) or not isinstance(ignored, list):
        raise DataError(f"{path}: is no list of classes; expected is {JSON_FORM}")
    named = [entry if isinstance(entry, dict) else {"name": entry} for entry in entries]
    for entry in named:
        if not isinstance(entry.get("name"), str) or not set(entry) <= {"name", "color"}:
            raise DataError(f"{path}: {entry} is no class; expected is {JSON_FORM}")
    names = [str(entry["name"]) for entry in named]
    ids = [entry for entry in ignored if isinstance(entry, int)]
    ignored_colors = [_color(path, entry) for entry in ignored if not isinstance(entry, int)]
    colored = ["color" in entry for entry in named]
    if any(colored) and not all(colored):
        bare = names[colored.index(False)]
        raise DataError(f"{path}: {bare!r} has no color, but other classes have; give all or none")
    palette = tuple(_color(path, entry["color"]) for entry in named) if any(colored) else None
    labels = _label_set(path, name, names, palette)
    wrong = [index for index in ids if 0 <= index < labels.num_classes]
    if wrong:
        raise DataError(f"{path}: ignores id {wrong[0]}, which is {labels.classes[wrong[0]]!r}")
    colors = None if palette is None else _color_ids(path, labels, ignored_colors)
    return Classes(labels, colors, tuple(dict.fromkeys((*ids, IGNORE))))


def _color_ids(path: pathlib.Path, labels: LabelSet, ignored: Iterable[Color]) -> dict[Color, int]:
    ids: dict[Color, int] = {}
    entries = [*enumerate(labels.palette), *((IGNORE, color) for color in ignored)]
    for index, color in entries:
        if ids.setdefault(color, index) != index:
            other = labels.classes[ids[color]]
            again = "is ignored" if index == IGNORE else f"is {labels.classes[index]!r}"
            raise DataError(f"{path}: the colour {color} is {other!r} and {again}, too")
    return ids


def _color(path: pathlib.Path, value: Any) -> Color:
    if isinstance(value, str) and (found := _HEX.fullmatch(value)):
        value = list(bytes.fromhex(found[1]))
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(part, int) and 0 <= part <= 255 for part in value)
    ):
        return value[0], value[1], value[2]
    raise DataError(f"{path}: {value!r} is no colour; expected is [R, G, B], 0 to 255, or #rrggbb")


def _label_set(
    path: pathlib.Path, name: str, classes: Iterable[str], palette: tuple[Color, ...] | None
) -> LabelSet:
    classes = tuple(classes)
    if not classes:
        raise DataError(f"{path}: names no class; give one name per line")
    try:
        return LabelSet(name, classes, palette or LabelSet.generic(len(classes)).palette)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from None
