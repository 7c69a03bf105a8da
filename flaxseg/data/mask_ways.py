"""The ways in which a mask's values can be its classes: by colour, as black and white, by number.

A way is a table from colours or numbers to class ids, with the words for what is not in it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from flaxseg.data.classes import Classes
from flaxseg.data.mask_files import EVEN, MaskFacts, pack_color, unpack_color
from flaxseg.labels import IGNORE
from flaxseg.pictures.open import count_pixels

WHITE = 255 * EVEN
_NAMED = 5  # values in a message
_CHUNK = 4096  # colours compared at a time
_MEND = "mend the mask"
COLOR_MEND = (
    'give each class its colour in classes.json ({"classes": [{"name": "road", "color": '
    "[128, 64, 128]}, ...]}) or save the masks as class ids, in an 8-bit single-channel PNG"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Way:
    """A table from what masks hold to classes.

    Attributes:
        by: what its keys are: colours, as `pack_color` gives them, such as class files list or
            black and white alone; or numbers.
        table: class id, or 255, of every key.
        allowed: the keys in words.
        nearest: a value that is no key counts as the nearest one.
        mend: what to do about values that are no keys.
        paint: what to do about masks in colour, where numbers are expected.
        near: how to ask for the nearest key, if that can help.
    """

    by: Literal["colour", "white", "number"]
    table: Mapping[int, int]
    allowed: str
    nearest: bool = False
    mend: str = _MEND
    paint: str = _MEND
    near: str = ""

    @property
    def painted(self) -> bool:
        """Whether its keys are colours."""
        return self.by != "number"

    @property
    def key(self) -> str:
        """What a key is, in a word."""
        return "colour" if self.painted else "number"

    def exact(self, facts: MaskFacts) -> np.ndarray:
        """The class ids of a mask's values, (N,) int64, -1 where the table has none."""
        keys = self._keys(facts)
        if keys is None:
            return np.full(len(facts.pixels), -1)
        known = np.array(sorted(self.table))
        ids = np.array([self.table[key] for key in known.tolist()])
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[place] == keys, ids[place], -1)

    def ids(self, facts: MaskFacts) -> np.ndarray:
        """As `exact`, but by the nearest key where the way is such."""
        ids, keys = self.exact(facts), self._keys(facts)
        if not self.nearest or keys is None:
            return ids
        odd = np.flatnonzero((ids < 0) & (keys >= 0))
        known, owners = np.array(list(self.table)), np.array(list(self.table.values()))
        ids[odd] = owners[_nearest(self._points(keys[odd]), self._points(known))]
        return ids

    def explains(self, facts: MaskFacts) -> bool:
        """Whether all values of a mask are keys, and are what was saved."""
        spoilt = facts.lossy or self.spoilt(facts)
        return not spoilt and bool((self.exact(facts) >= 0).all())

    def spoilt(self, facts: MaskFacts) -> bool:
        """Whether a mask cannot be read this way whatever its values are."""
        clear = self.painted and facts.transparent > 0
        return clear or (facts.lossy and not self.nearest)

    def telling(self, facts: MaskFacts) -> int:
        """The pixels that speak for this way: those of a class, but for 0 and black.

        An empty mask holds these whatever its values are.
        """
        keys, ids = self._keys(facts), self.exact(facts)
        if keys is None:
            return 0
        return int(facts.pixels[(keys != 0) & (ids >= 0) & (ids != IGNORE)].sum())

    def problem(self, name: str, facts: MaskFacts) -> str | None:
        """What keeps a mask from being read this way, in one line; None if nothing does.

        Args:
            name: the file, for the message.
            facts: what it holds.
        """
        near = f", or {self.near}" if self.near else ""
        unknown = self.ids(facts) < 0
        wrong = int(facts.pixels[unknown].sum())
        if facts.lossy and not self.nearest:
            share = f" ({percent(wrong, facts.total)} of the pixels are of no class)" * (wrong > 0)
            return (
                f"{name}: is a JPEG or compressed like one, which changes the values{share}; save "
                f"it as PNG{near}"
            )
        if facts.transparent and self.painted:
            pixels = count_pixels(facts.transparent)
            return f"{name}: {pixels} are transparent; save it without alpha channel"
        if not wrong:
            return None
        if facts.numbers is None and not self.painted:
            unknown &= facts.colors % EVEN != 0
            found = f"is an RGB mask (colour {_place(facts, unknown)})"
            return f"{name}: {found}, but numbers are expected: {self.allowed}; {self.paint}"
        share = f"{count_pixels(wrong)}, {percent(wrong, facts.total)}"
        if facts.kind == "colour" and self.painted or self.by == "colour":
            return (
                f"{name}: colour {_place(facts, unknown)} is none of {self.allowed} ({share} of "
                f"unknown colour); {self.mend}{near}"
            )
        row, column = _first(facts, unknown)
        return (
            f"{name}: {_some(facts.numbers, unknown)} in {share} (first at row {row}, "
            f"column {column}); allowed are {self.allowed}; {self.mend}{near}"
        )

    def to_json(self) -> dict[str, Any]:
        """The way as plain JSON values."""
        return {**dataclasses.asdict(self), "table": list(map(list, self.table.items()))}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Way":
        """Rebuilds what `to_json` gave."""
        return cls(**{**values, "table": {key: index for key, index in values["table"]}})

    def _keys(self, facts: MaskFacts) -> np.ndarray | None:
        return facts.colors if self.painted else facts.numbers

    def _points(self, keys: np.ndarray) -> np.ndarray:
        """Keys as points, between which distances are taken, (N, 1 or 3)."""
        parts = keys[:, None] >> np.array((0, 8, 16)) & 255 if self.painted else keys[:, None]
        return parts.astype(np.float64)


def by_color(classes: Classes) -> Way:
    """By the colours of the class file, which must give some."""
    table = {pack_color(color): index for color, index in (classes.colors or {}).items()}
    allowed = f"the {len(table)} colours of {classes.source}"
    if classes.fixed:
        return Way("colour", table, allowed)
    mend, near = 'give it to a class, or to "ignore" in classes.json', _near(classes, "colour")
    return Way("colour", table, allowed, classes.nearest, mend, near=near)


def black_and_white(classes: Classes) -> Way:
    """White is the second of two classes, black the first."""
    greys = {grey * EVEN: IGNORE for grey in classes.ignore if grey < 255}
    allowed = "0 and 255, black and white" + "".join(f", {grey // EVEN}" for grey in greys)
    table = {**greys, 0: 0, WHITE: 1}
    near = _near(classes, "colour")
    return Way("white", table, allowed, classes.nearest, near=near)


def by_number(classes: Classes) -> Way:
    """By the numbers of the class file; where it gives none, number i is class i."""
    table = classes.numbers()
    numbers = sorted(number for number, index in table.items() if index != IGNORE)
    ignored = sorted(number for number, index in table.items() if index == IGNORE)
    allowed = _ranges(numbers)
    if ignored:
        allowed += f", and {_ranges(ignored)} for unlabelled pixels"
    if classes.fixed:
        return Way("number", table, allowed)
    bare = f"{classes.source} gives no colours; " * (classes.colors is None)
    near = _near(classes, "number") if classes.apart else ""
    return Way("number", table, allowed, classes.nearest, paint=bare + COLOR_MEND, near=near)


def _near(classes: Classes, kind: str) -> str:
    if classes.source.endswith(".json"):
        return f'take the nearest {kind}: add "match": "nearest" to {classes.source}'
    return f"take the nearest {kind}: write classes.json: {classes.as_json(nearest=True)}"


def number_mend(classes: Classes, found: Sequence[int]) -> str:
    """What to do about masks that hold other numbers than the class file gives.

    Args:
        classes: what the class file says.
        found: all numbers that the masks of the folder hold, sorted.

    Returns:
        The mend, where the numbers suggest one with the line for classes.json.
    """
    names, count = classes.labels.classes, classes.labels.num_classes
    if classes.ids is not None:
        line = classes.as_json(ignore=[n for n in found if n not in classes.ids][:_NAMED])
        return f"{_MEND}, give the number to a class, or ignore it: classes.json: {line}"
    if count == 1:
        return (
            "one class is nothing to tell apart: name the background as well, before "
            f"{names[0]!r} in {classes.source}"
        )
    plain = [number for number in found if number != IGNORE]
    strange = [number for number in plain if number >= count or number < 0]
    if plain[:count] == list(range(count)) and strange != [count]:
        line = classes.as_json(ignore=strange[:_NAMED])
        return f"{_MEND}, or ignore the number: classes.json: {line}"
    for numbers, ignored in ((plain, []), (list(found), []), (plain[1:], [0])):
        if len(numbers) == count and (not ignored or plain[:1] == ignored):
            line = classes.as_json(ids=numbers, ignore=ignored)
            also = "name the class of every number, or, if 0 is unlabelled, " if ignored else ""
            return f"{also}give the classes their ids: classes.json: {line}"
    line = classes.as_json(ids=range(count)).replace("[0]", "[...]", 1)
    return f"give each class its ids: classes.json: {line}"


def percent(part: int, total: int) -> str:
    """A share of all pixels in words."""
    share = 100 * part / max(total, 1)
    return "less than 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"


def _nearest(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The place of the nearest known point of every point, (N, D) and (K, D) to (N,)."""
    places = [
        np.argmin((known**2).sum(1) - 2 * points[i : i + _CHUNK] @ known.T, axis=1)
        for i in range(0, len(points), _CHUNK)
    ]
    return np.concatenate([np.zeros(0, np.int64), *places])


def _place(facts: MaskFacts, chosen: np.ndarray) -> str:
    """The first of some values as a colour, with its place."""
    value = np.flatnonzero(chosen)[np.argmin(facts.first[chosen])]
    row, column = _first(facts, chosen)
    return f"{unpack_color(int(facts.colors[value]))} at row {row}, column {column}"


def _first(facts: MaskFacts, chosen: np.ndarray) -> tuple[int, int]:
    row, column = divmod(int(facts.first[chosen].min()), facts.size[1])
    return row, column


def _some(numbers: np.ndarray | None, chosen: np.ndarray) -> str:
    found = [] if numbers is None else sorted(set(numbers[chosen].tolist()))
    more = ", ..." if len(found) > _NAMED else ""
    return f"number{'s' * (len(found) > 1)} {', '.join(map(str, found[:_NAMED]))}{more}"


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted whole numbers in words, such as "0 to 33, 255"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join(" to ".join(str(end) for end in run) for run in runs)
