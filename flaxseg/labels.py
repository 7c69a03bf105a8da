"""Class names and colours of a data set, carried beside every checkpoint."""

import colorsys
import dataclasses
import re
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from flaxseg.errors import ConfigError

IGNORE = 255
"""Label of the pixels that neither loss nor metric counts."""

MAX_CLASSES = 255
"""Class ids fit one byte next to `IGNORE`."""

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, in index order.

    Attributes:
        name: data set name, such as "camvid".
        classes: one name per class.
        palette: one RGB colour per class, 0 to 255.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]

    def __post_init__(self):
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise ConfigError(
                f"label set {self.name!r} has {len(self.classes)} classes, 1 to {MAX_CLASSES} fit"
            )
        if len(self.classes) != len(self.palette):
            raise ConfigError(
                f"label set {self.name!r} has {len(self.classes)} classes and "
                f"{len(self.palette)} colours: give one colour per class"
            )
        for name in self.classes:
            if self.classes.count(name) > 1:
                raise ConfigError(f"label set {self.name!r} has two classes called {name!r}")
        for name, color in zip(self.classes, self.palette, strict=True):
            if len(color) != 3 or not all(0 <= part <= 255 for part in color):
                raise ConfigError(
                    f"label set {self.name!r} gives {name!r} the colour {color}: it must be three "
                    "numbers from 0 to 255"
                )
        # Lists and arrays are taken, too; what is kept can be compared and written as JSON.
        colors = tuple(tuple(int(part) for part in color) for color in self.palette)
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "palette", colors)

    @property
    def num_classes(self) -> int:
        """Number of classes, the ignore label not counted."""
        return len(self.classes)

    def differences(self, other: "LabelSet") -> list[int]:
        """The numbers of the classes that have another name there, or none, by their meaning.

        Case, spaces, `_` and `-` make no difference; and where a name lists several, divided by
        commas or semicolons, the first one may stand alone.
        """
        pairs = zip_longest(_meanings(self.classes), _meanings(other.classes), fillvalue=set())
        return [number for number, (ours, theirs) in enumerate(pairs) if ours.isdisjoint(theirs)]

    def matches(self, other: "LabelSet") -> dict[int, int]:
        """The number of each class -> that of the only one there of the same meaning, if any.

        Numbered classes, as `generic` makes them, have no meaning.
        """
        ours, theirs = _meanings(self.classes), _meanings(other.classes)
        named = [j for j, name in enumerate(other.classes) if name != _numbered(j)]
        found = {}
        for number, name in enumerate(self.classes):
            same = [j for j in named if not ours[number].isdisjoint(theirs[j])]
            if len(same) == 1 and name != _numbered(number):
                found[number] = same[0]
        return found

    def to_json(self) -> dict[str, Any]:
        """The label set as plain JSON values."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "palette": [list(color) for color in self.palette],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "LabelSet":
        """Rebuilds what `to_json` gave."""
        red_green_blue = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
        return cls(values["name"], tuple(values["classes"]), red_green_blue)

    @classmethod
    def generic(cls, num_classes: int) -> "LabelSet":
        """Numbered classes in distinct colours, for weights that come without names."""
        names = tuple(map(_numbered, range(num_classes)))
        return cls("generic", names, tuple(_spread_color(i) for i in range(num_classes)))


def _numbered(number: int) -> str:
    return f"class_{number}"


def meaning(name: str) -> str:
    """A class name without what people spell in different ways: case, spaces, `_` and `-`."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()


def _meanings(classes: Sequence[str]) -> list[set[str]]:
    """For each class the names that mean it: its own, and the first of several if no other's."""
    whole = [meaning(name) for name in classes]
    if len(set(whole)) < len(whole):
        whole = list(classes)  # their spelling alone tells them apart
    first = [meaning(re.split("[,;]", name)[0]) for name in classes]
    return [{w, f} if first.count(f) == 1 else {w} for w, f in zip(whole, first, strict=True)]


def _spread_color(index: int) -> Color:
    """The colour of a class: golden-ratio steps of hue keep neighbours in the list apart."""
    hue = (index * 0.618033988749895) % 1.0
    value = (1.0, 0.75, 0.5)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)
