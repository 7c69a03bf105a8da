"""The forms of class files: text, tables and JSON, all of which become one list of entries."""

import csv
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flaxseg.data.text import read_lines
from flaxseg.errors import DataError
from flaxseg.labels import Color

COLOR_FILE = "label_colors.txt"
JSON_FORM = (
    '{"classes": [{"name": "road", "color": [128, 64, 128], "ids": [7, 8]}, ...], '
    '"ignore": [0, [0, 0, 0]], "match": "nearest"}, where all but the names may be left out and '
    "colours may be #8040ff; or just a list of names"
)

_COLOR = r"(?P<r>\d+)[\s,;]+(?P<g>\d+)[\s,;]+(?P<b>\d+)"
_COLOR_NAME = re.compile(rf"{_COLOR}[\s,;:]+(?P<name>\S.*)")
_NAME_COLOR = re.compile(rf"(?P<name>\S.*?)[\s,;:]+{_COLOR}")
_NUMBER_NAME = re.compile(r"(?P<id>\d+)(?:\s*[:,;=]\s*|\s+)(?P<name>\S.*)")
_NAME_NUMBER = re.compile(r"(?P<name>\S.*?)\s*[:,;=\t]\s*(?P<id>\d+)")
_LABELMAP = re.compile(
    r"(?P<name>.+?):(?:(?P<r>\d+)\s*,\s*(?P<g>\d+)\s*,\s*(?P<b>\d+))?\s*:[^:]*:[^:]*"
)
_NO_CLASS = "__ignore__"  # labelme's name of what counts for nothing, whose number is -1
_LABELMAP_HEADING = "# label:"
_HEX = re.compile(r"#([0-9a-fA-F]{6})")

_COLUMNS = {
    "name": ("name", "class", "label", "class name", "category"),
    "id": ("pixel value", "id", "index", "value", "class id", "label id"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
}
"""What a column of a table is, by its heading."""


class Entry(NamedTuple):
    """A class, or a part of one, as a place in a file gives it.

    Attributes:
        name: of the class; None for what is unlabelled.
        ids: its numbers in masks.
        colors: its colours in masks.
        where: the place, to be put behind the file's name, such as ", line 3".
    """

    name: str | None
    ids: tuple[int, ...] = ()
    colors: tuple[Color, ...] = ()
    where: str = ""


class Form(NamedTuple):
    """The content of a class file.

    Attributes:
        entries: in the file's order.
        merge: entries of one name are one class; otherwise a name stands for one entry.
        nearest: a colour or number that the file does not give counts as the nearest one.
        says: what had to be assumed, a line each.
    """

    entries: list[Entry]
    merge: bool = True
    nearest: bool = False
    says: tuple[str, ...] = ()


def _by_number(entries: list[Entry]) -> list[Entry]:
    """In the order of their numbers, where a list of names with numbers has another one."""
    return sorted(entries, key=lambda entry: entry.ids)


class _Line(NamedTuple):
    where: str
    text: str


def read_form(path: pathlib.Path) -> Form:
    """Reads a class file; what kind of file it is its ending and its content tell.

    Raises:
        DataError: no UTF-8 text, or content of another form.
    """
    match path.suffix.lower():
        case ".json":
            return _json(path)
        case ".csv":
            return Form(_by_number(_table(path)))
        case _:
            return _text(path)


def colored_lines(path: pathlib.Path) -> list[Entry]:
    """The lines "R G B Name" or "Name R G B" of a file; lines that begin with # are comments.

    Raises:
        DataError: no UTF-8 text, no such line, or a line of another form.
    """
    entries = []
    for line in _lines(path):
        if line.text.startswith("#"):
            continue
        found = _COLOR_NAME.fullmatch(line.text) or _NAME_COLOR.fullmatch(line.text)
        if not found or max(int(found[part]) for part in "rgb") > 255:
            raise DataError(
                f"{path}{line.where}: {line.text!r}, expected R G B Name, 0 to 255 each"
            )
        entries.append(Entry(found["name"], (), _line_colors(path, line, found), line.where))
    if not entries:
        raise DataError(f"{path}: is empty, expected lines R G B Name")
    return entries


def _lines(path: pathlib.Path) -> list[_Line]:
    """The lines that are not blank."""
    numbered = enumerate(read_lines(path), start=1)
    return [_Line(f", line {i}", line.strip()) for i, line in numbered if line.strip()]


def _text(path: pathlib.Path) -> Form:
    lines = _lines(path)
    rows = [line for line in lines if not line.text.startswith("#")]
    if lines and lines[0].text.startswith(_LABELMAP_HEADING) or _all(_LABELMAP, rows):
        return Form(_labelmap(path, lines))
    # One line with a colour makes the others, if they have none, mistakes rather than names.
    colored = _all(_NAME_COLOR, rows) or any(_COLOR_NAME.fullmatch(row.text) for row in rows)
    if path.name == COLOR_FILE or colored:
        return Form(colored_lines(path))
    for form in (_NUMBER_NAME, _NAME_NUMBER):
        if numbered := _numbered(form, rows):
            says = f"{path}: gives each class its number, as in {rows[0].text!r}"
            return Form(_by_number(numbered), says=(says,))
    if rows and rows[0].text == _NO_CLASS:
        says = f"{path}: {_NO_CLASS} is no class, the names after it count from 0, as in labelme"
        return Form(_names(path, lines[lines.index(rows[0]) + 1 :]), merge=False, says=(says,))
    return Form(_names(path, lines), merge=False)


def _all(form: re.Pattern, rows: Sequence[_Line]) -> bool:
    return bool(rows) and all(form.fullmatch(row.text) for row in rows)


def _line_colors(path: pathlib.Path, line: _Line, found: re.Match) -> tuple[Color, ...]:
    """The colour of a line, none where it is left out."""
    if found["r"] is None:
        return ()
    return (_color(f"{path}{line.where}", [int(found[part]) for part in "rgb"]),)


def _labelmap(path: pathlib.Path, lines: Iterable[_Line]) -> list[Entry]:
    """CVAT's lines name:r,g,b:parts:actions."""
    entries = []
    for line in lines:
        if line.text.startswith(_LABELMAP_HEADING):
            continue
        found = _LABELMAP.fullmatch(line.text)
        if not found:
            raise DataError(f"{path}{line.where}: {line.text!r}, expected name:R,G,B::")
        colors = _line_colors(path, line, found)
        entries.append(Entry(found["name"].strip(), (), colors, line.where))
    return entries


def _numbered(form: re.Pattern, rows: Sequence[_Line]) -> list[Entry]:
    """Lines such as "0 road" or "road: 0"; nothing if a single line is not so.

    "1 euro" and "2 euro" are names: a number of its own goes with a name of its own.
    """
    if not _all(form, rows):
        return []
    found = [form.fullmatch(row.text) for row in rows]
    entries = [
        Entry(match["name"], (int(match["id"]),), (), row.where)
        for row, match in zip(rows, found, strict=True)
        if match
    ]
    return entries if len({entry.name for entry in entries}) == len(entries) else []


def _names(path: pathlib.Path, lines: Sequence[_Line]) -> list[Entry]:
    for where, text in lines:
        if text.startswith("# "):
            raise DataError(
                f"{path}{where}: {text!r} looks like a comment, but every line names a class; "
                "remove it, or write classes.json if a class is called so"
            )
    if len(lines) == 1 and "," in lines[0].text:
        raise DataError(f"{path}: has the one line {lines[0].text!r}; give one class name per line")
    return [Entry(text, where=where) for where, text in lines]


def _table(path: pathlib.Path) -> list[Entry]:
    """The rows of a CSV file, whose heading tells what the columns are."""
    lines = read_lines(path)
    heading = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t", key=heading.count)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    rows = [(f", line {reader.line_num}", [cell.strip() for cell in row]) for row in reader]
    rows = [(where, row) for where, row in rows if any(row)]
    columns = _columns(rows[0][1] if rows else [])
    if "name" not in columns or not ("id" in columns or {"r", "g", "b"} <= set(columns)):
        raise DataError(
            f"{path}: begins with {heading!r}; expected are the headings Pixel Value, Class or "
            "name, r, g, b"
        )
    entries = []
    for where, row in rows[1:]:
        if len(row) != len(rows[0][1]):
            raise DataError(
                f"{path}{where}: has {len(row)} columns, but the heading {len(rows[0][1])}; put "
                "quotes around a name that holds the separator"
            )
        cells = {column: row[place] for column, place in columns.items()}
        entries.append(_row_entry(f"{path}{where}", where, cells))
    return entries


def _columns(headings: Iterable[str]) -> dict[str, int]:
    """Where the known columns are."""
    plain = [heading.lower().replace("_", " ") for heading in headings]
    found = {
        column: [plain.index(word) for word in words if word in plain]
        for column, words in _COLUMNS.items()
    }
    return {column: places[0] for column, places in found.items() if places}


def _row_entry(shown: str, where: str, cells: Mapping[str, str]) -> Entry:
    if not cells["name"]:
        raise DataError(f"{shown}: has no name")
    values = {}
    for column, cell in cells.items():
        if column != "name" and not re.fullmatch("[0-9]+", cell):
            raise DataError(f"{shown}: {cell!r}, expected is a whole number")
        if column != "name":
            values[column] = int(cell)
    ids = (values["id"],) if "id" in values else ()
    colored = {"r", "g", "b"} <= set(values)
    colors = (_color(shown, [values[part] for part in "rgb"]),) if colored else ()
    return Entry(cells["name"], ids, colors, where)


def _json(path: pathlib.Path) -> Form:
    try:
        values = json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        raise DataError(f"{path}: is no JSON file ({error}); expected is {JSON_FORM}") from error
    if isinstance(values, dict) and (entries := _plain(path, values)):
        return Form(_by_number(entries))
    settings = {"classes": values} if isinstance(values, list) else values
    known = isinstance(settings, dict) and set(settings) <= {"classes", "ignore", "match"}
    listed = settings.get("classes") if known else None
    if not isinstance(listed, list):
        raise DataError(f"{path}: is no list of classes; expected is {JSON_FORM}")
    match = settings.get("match", "exact")
    if match not in ("exact", "nearest"):
        raise DataError(f'{path}: "match" is {match!r}; expected is "exact" or "nearest"')
    entries = [_json_entry(path, entry) for entry in listed]
    entries.append(_ignored(path, settings.get("ignore", [])))
    return Form(entries, merge=False, nearest=match == "nearest")


def _plain(path: pathlib.Path, values: Mapping[str, Any]) -> list[Entry]:
    """An object {"0": "road"}, {"road": 0} or {"road": "#804080"}; nothing for another one."""
    if not values or {"classes", "ignore", "match"} & set(values):
        return []
    if all(re.fullmatch("[0-9]+", key) and isinstance(text, str) for key, text in values.items()):
        return [Entry(text, (int(key),), (), f", {key!r}") for key, text in values.items()]
    if all(map(_is_number, values.values())):
        return [Entry(key, (number,), (), f", {key!r}") for key, number in values.items()]
    if all(_is_triple(value) or _is_hex(value) for value in values.values()):
        return [Entry(key, (), (_color(path, v),), f", {key!r}") for key, v in values.items()]
    return []


def _json_entry(path: pathlib.Path, entry: Any) -> Entry:
    given = entry if isinstance(entry, dict) else {"name": entry}
    name = given.get("name")
    if not isinstance(name, str) or not set(given) <= {"name", "color", "colors", "id", "ids"}:
        raise DataError(f"{path}: {given} is no class; expected is {JSON_FORM}")
    shown = f"{path}, {name!r}"
    ids = [given["id"]] if "id" in given else []
    ids += _listed(shown, "ids", given.get("ids", []))
    colors = [given["color"]] if "color" in given else []
    colors += _listed(shown, "colors", given.get("colors", []))
    for number in ids:
        if not _is_number(number):
            raise DataError(f"{shown}: {number!r} is no id; expected are whole numbers")
    return Entry(name, tuple(ids), tuple(_color(path, c) for c in colors), f", {name!r}")


def _ignored(path: pathlib.Path, given: Any) -> Entry:
    values = _listed(str(path), "ignore", [given] if _is_number(given) else given)
    if _is_triple(values) and len(set(values)) < 3:
        raise DataError(f'{path}: "ignore" is {values}, ids twice; a colour is written [{values}]')
    ids = tuple(value for value in values if _is_number(value))
    colors = tuple(_color(path, value) for value in values if not _is_number(value))
    return Entry(None, ids, colors, ", ignore")


def _listed(shown: str, key: str, values: Any) -> list:
    if not isinstance(values, list):
        raise DataError(f'{shown}: "{key}" is {values!r}, expected is a list')
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and bool(_HEX.fullmatch(value))


def _color(shown: str | pathlib.Path, value: Any) -> Color:
    parts = list(bytes.fromhex(value[1:])) if _is_hex(value) else value
    if _is_triple(parts) and all(0 <= part <= 255 for part in parts):
        return parts[0], parts[1], parts[2]
    raise DataError(f"{shown}: {value!r} is no colour; expected is [R, G, B], 0 to 255, or #rrggbb")
