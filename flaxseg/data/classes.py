"""What a class file says: the names, and which numbers and colours of a mask belong to them."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flaxseg.data.class_forms import COLOR_FILE as COLOR_FILE
from flaxseg.data.class_forms import JSON_FORM as JSON_FORM
from flaxseg.data.class_forms import Entry, Form, colored_lines, read_form
from flaxseg.errors import ConfigError, DataError
from flaxseg.labels import IGNORE, Color, LabelSet

CLASS_FILES = (
    "classes.json",
    "classes.txt",
    "class_names.txt",
    "labels.txt",
    COLOR_FILE,
    "labelmap.txt",
    "_classes.csv",
    "class_dict.csv",
)
"""Where a folder's classes are looked for, in this order."""

MAX_NUMBER = 2**16 - 1
"""The largest number in a mask that a class can have."""

_SHOWN = 6  # classes in a line that is to be pasted
_APART = 8  # the least distance of numbers of which one can be the nearest


@dataclasses.dataclass(frozen=True)
class Classes:
    """What a class file says.

    Attributes:
        labels: names and colours; the colours are made up where the file has none.
        ids: class id, or 255, of every number that a mask may hold, 0 to `MAX_NUMBER`. None: the
            file gives no numbers, number i is class i.
        colors: class id, or 255, of every colour that a mask may show; None: the file has none.
        ignore: where `ids` is None, the numbers besides 255 that count as unlabelled.
        nearest: a colour or number that the file does not give counts as the nearest one.
        source: the file, for messages.
        says: what had to be assumed about the file, a line each.
        fixed: the coding is that of a published data set: masks are read by its colours, if it has
            any, else by its numbers, and no class file can say otherwise.
    """

    labels: LabelSet
    ids: Mapping[int, int] | None = None
    colors: Mapping[Color, int] | None = None
    ignore: tuple[int, ...] = ()
    nearest: bool = False
    source: str = ""
    says: tuple[str, ...] = ()
    fixed: bool = False

    @property
    def apart(self) -> bool:
        """Whether the numbers are so far apart that another one can count as the nearest."""
        numbers = sorted(self.ids or ())
        return bool(numbers) and all(b - a >= _APART for a, b in itertools.pairwise(numbers))

    def numbers(self) -> dict[int, int]:
        """Class id, or 255, of every number that a mask may hold.

        Beside a single class 255 must be listed to count as unlabelled: such masks mostly mean the
        class by it.
        """
        if self.ids is not None:
            return dict(self.ids)
        number = self.labels.num_classes
        unlabelled = (*self.ignore, IGNORE) if number > 1 else self.ignore
        return {**dict.fromkeys(unlabelled, IGNORE), **{index: index for index in range(number)}}

    def as_json(
        self,
        *,
        ids: Sequence[int] | None = None,
        ignore: Iterable[int] = (),
        nearest: bool | None = None,
    ) -> str:
        """A line for classes.json that says the same as this class file, but for the arguments.

        Args:
            ids: the number of each class. None: those of the file, if it gives any.
            ignore: further numbers that are unlabelled.
            nearest: instead of the file's.

        Returns:
            The line; further classes than the first few are left out.
        """
        count = self.labels.num_classes
        numbers = _by_class(self.ids or {}, count) if ids is None else [[n] for n in ids] + [[]]
        colors = _by_class(self.colors or {}, count)
        entries = [
            _entry_json(*each)
            for each in zip(self.labels.classes, numbers[:count], colors[:count], strict=True)
        ]
        shown = [json.dumps(entry, ensure_ascii=False) for entry in entries[:_SHOWN]]
        parts = ['"classes": [' + ", ".join(shown + ["..."] * (len(entries) > _SHOWN)) + "]"]
        plain = [number for number in (*numbers[count], *self.ignore) if number != IGNORE]
        ignored = [*plain, *ignore, *colors[count]]
        if ignored:
            parts.append(f'"ignore": {json.dumps(ignored)}')
        if self.nearest if nearest is None else nearest:
            parts.append('"match": "nearest"')
        return "{" + ", ".join(parts) + "}"


def _entry_json(name: str, ids: list[int], colors: list[Color]) -> dict[str, Any]:
    color = {"colors": colors} if len(colors) > 1 else {"color": colors[0]} if colors else {}
    return {"name": name, **color, **({"ids": ids} if ids else {})}


def _by_class(table: Mapping[Any, int], count: int) -> list[list]:
    """The numbers or colours of each class, and behind them the unlabelled ones."""
    keys: list[list] = [[] for _ in range(count + 1)]
    for key, index in table.items():
        keys[count if index == IGNORE else index].append(key)
    return keys


def read_classes(path: pathlib.Path, name: str) -> Classes:
    """Reads a class file.

    Args:
        path: JSON of the form `JSON_FORM`, or an object of numbers and names; a CSV table with a
            heading, of names with numbers or with colours; CVAT's labelmap.txt; or a text file
            with a class name per line, alone, with its number, or with its colour.
        name: of the data set.

    Raises:
        DataError: no UTF-8 text, content of another form, or a number or colour of two classes.
    """
    return _classes(path, name, read_form(path))


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
    found = _classes(path, name, Form(colored_lines(path)))
    labels = dataclasses.replace(found.labels, name=f"{name}{found.labels.num_classes}")
    return labels, dict(found.colors or {})


def from_names(names: Iterable[str], name: str, source: str) -> Classes:
    """Classes that another file names, such as the categories of a COCO file.

    Args:
        names: one name per class; number i in a mask is class i.
        name: of the data set.
        source: the file that names them, for messages.

    Raises:
        DataError: no name, or the same one twice.
    """
    return _classes(source, name, Form([Entry(each) for each in names], merge=False))


def _classes(path: pathlib.Path | str, name: str, form: Form) -> Classes:
    """Checks the entries of a file and puts them together."""
    named = [entry for entry in form.entries if entry.name is not None]
    names = [str(entry.name) for entry in named]
    names = list(dict.fromkeys(names)) if form.merge else names
    if not names:
        raise DataError(f"{path}: names no class; give one name per line")
    colored = _all_or_none(path, "color", named, [bool(entry.colors) for entry in named])
    numbered = _all_or_none(path, "ids", named, [bool(entry.ids) for entry in named])
    ids = _owners(path, "id", names, [(entry, entry.ids) for entry in form.entries])
    colors = _owners(path, "colour", names, [(entry, entry.colors) for entry in form.entries])
    for number in ids:
        if not 0 <= number <= MAX_NUMBER:
            raise DataError(f"{path}: id {number} is outside 0 to {MAX_NUMBER}")
    palette = [own[0] for own in _by_class(colors, len(names))[:-1]] if colored else None
    try:
        labels = LabelSet(
            name, tuple(names), tuple(palette or LabelSet.generic(len(names)).palette)
        )
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from None
    found = Classes(
        labels,
        colors=colors if colored else None,
        nearest=form.nearest,
        source=str(path),
        says=form.says,
    )
    if numbered and ids != {index: index for index in range(len(names))}:
        found = dataclasses.replace(found, ids={IGNORE: IGNORE, **ids})
    if found.nearest and not (found.colors or found.apart or len(names) == 2):
        raise DataError(
            f'{path}: "match": "nearest" needs a "color" of every class, or "ids" that are '
            f"{_APART} or more apart; add them, or take it out"
        )
    if found.ids is not None:
        return found
    ignored = tuple(number for number, index in ids.items() if index == IGNORE)
    return _with_ignored(path, found, ignored)


def _all_or_none(
    path: pathlib.Path | str, key: str, entries: Sequence[Entry], given: Sequence[bool]
) -> bool:
    if any(given) and not all(given):
        bare = entries[given.index(False)].name
        raise DataError(f"{path}: {bare!r} has no {key}, but other classes have; give all or none")
    return any(given)


def _owners(
    path: pathlib.Path | str,
    kind: str,
    names: Sequence[str],
    keys: Iterable[tuple[Entry, Iterable[Any]]],
) -> dict[Any, int]:
    """Class id, or 255, of every number or colour; an error if one has two."""
    owners: dict[Any, int] = {}
    for entry, own in keys:
        index = IGNORE if entry.name is None else names.index(entry.name)
        for key in own:
            first = owners.setdefault(key, index)
            if first != index:
                owner = "ignore" if first == IGNORE else names[first]
                raise DataError(f"{path}{entry.where}: {owner} has the {kind} {key}, too")
    return owners


def _with_ignored(path: pathlib.Path | str, found: Classes, ignored: tuple[int, ...]) -> Classes:
    """Classes without numbers of their own, with further numbers that are unlabelled."""
    count = found.labels.num_classes
    for number in ignored:
        if number < count:
            free = [n for n in range(count + len(ignored)) if n not in ignored][:count]
            raise DataError(
                f"{path}: ignores id {number}, which is {found.labels.classes[number]!r} as long "
                "as no ids are given; if the classes have other numbers, write them: "
                f"{found.as_json(ids=free, ignore=ignored)}"
            )
    return dataclasses.replace(found, ignore=ignored)
