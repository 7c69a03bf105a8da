"""How the masks of a folder become class ids: in the first way that makes their pixels classes.

Files of one kind (a single channel, a palette, three channels) are read alike. The ways are tried
in the order of `mask_ways`, over all files at once, because a single file may fit several: 0 and
255 alone are black and white, or class 0 and unlabelled where another file holds class 1.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flaxseg.data.classes import Classes
from flaxseg.data.mask_files import EVEN, KINDS, MaskFacts, scan_mask, unpack_color
from flaxseg.data.mask_files import look_at_mask as look_at_mask
from flaxseg.data.mask_ways import (
    COLOR_MEND,
    Way,
    black_and_white,
    by_color,
    by_number,
    number_mend,
    percent,
)
from flaxseg.errors import DataError
from flaxseg.labels import IGNORE

_BACKGROUNDS = ("background", "bg", "_background_")
_WORDS: dict[str, str] = {"grey": "grey", "palette": "palette", "colour": "RGB"}
_FAR = np.iinfo(np.int32).max

Masks = Mapping[str, MaskFacts]
Group = Sequence[tuple[str, MaskFacts]]
Groups = Mapping[str, Group]


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """How masks become class ids.

    Attributes:
        ways: the way in which each kind of file is read.
        lines: what was assumed about the masks, to be told.
    """

    ways: Mapping[str, Way]
    lines: tuple[str, ...] = ()

    def problem(self, name: str, facts: MaskFacts) -> str | None:
        """What keeps a mask from being read, in one line; None if nothing does.

        Args:
            name: the file, for the message.
            facts: what it holds.
        """
        return self.ways[facts.kind].problem(name, facts)

    def unknown(self, facts: MaskFacts) -> dict[int, int]:
        """Pixels of the numbers that are no class, where numbers are expected."""
        way = self.ways[facts.kind]
        if facts.numbers is None or way.by == "colour":
            return {}
        odd = way.ids(facts) < 0
        return dict(zip(facts.numbers[odd].tolist(), facts.pixels[odd].tolist(), strict=True))

    def counts(self, facts: MaskFacts) -> np.ndarray:
        """Pixels of each class id of a mask, (256,) int64; other values are left out."""
        ids = self.ways[facts.kind].ids(facts)
        known = ids >= 0
        return np.bincount(ids[known], facts.pixels[known], minlength=256).astype(np.int64)

    def read(self, path: pathlib.Path) -> np.ndarray:
        """The class ids of a mask, (H, W) uint8, 255 where unlabelled.

        Raises:
            DataError: it cannot be read, or holds something else.
        """
        scan = scan_mask(path)
        way = self.ways[scan.facts.kind]
        ids = way.ids(scan.facts)
        if way.spoilt(scan.facts) or (ids < 0).any():
            raise DataError(way.problem(str(path), scan.facts) or str(path))
        return scan.paint(ids.astype(np.uint8))

    def to_json(self) -> dict[str, Any]:
        """The reading as plain JSON values."""
        ways = {kind: way.to_json() for kind, way in self.ways.items()}
        return {"ways": ways, "lines": list(self.lines)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Reading":
        """Rebuilds what `to_json` gave."""
        ways = {kind: Way.from_json(values["ways"][kind]) for kind in KINDS}
        return cls(ways, tuple(values["lines"]))


def declared(classes: Classes) -> Reading:
    """How masks are read whose coding is known, as that of published data sets.

    Args:
        classes: by its colours, if it has any, else by its numbers.
    """
    way = by_number(classes) if classes.colors is None else by_color(classes)
    return Reading(dict.fromkeys(KINDS, way))


def choose(masks: Masks | Iterable[tuple[str, MaskFacts]], classes: Classes) -> Reading:
    """Decides how the masks of a folder are read.

    Args:
        masks: what each file holds, by its name; all files of all splits.
        classes: what the class file says.

    Returns:
        The reading. Single files may not fit it: `Reading.problem` tells.

    Raises:
        DataError: most files of a kind do not fit any way, or it cannot be told what is meant.
    """
    if classes.fixed:
        return declared(classes)
    masks = dict(masks)
    clash = _clash(masks)
    colored = [] if classes.colors is None else [by_color(classes)]
    numbered = by_number(classes)
    if _is_black_and_white(masks, classes, numbered, clash):
        numbered = black_and_white(classes)
    groups: Groups = {
        kind: [(name, facts) for name, facts in masks.items() if facts.kind == kind]
        for kind in KINDS
    }
    ways: dict[str, list[Way]] = {kind: [*colored, numbered] for kind in KINDS}
    if not numbered.painted and not _index_tells(groups["palette"], colored, numbered, clash):
        ways["palette"] = colored
    if not ways["palette"]:
        raise DataError(f"{clash}; {COLOR_MEND}")
    chosen = _chosen(groups, ways)
    found = {
        number
        for kind in KINDS
        for _, facts in groups[kind]
        if chosen[kind] is numbered and facts.numbers is not None
        for number in facts.numbers.tolist()
    }
    mended = dataclasses.replace(numbered, mend=number_mend(classes, sorted(found)))
    chosen = {kind: mended if way is numbered else way for kind, way in chosen.items()}
    _refuse_background(chosen, classes)
    _refuse_common(chosen, groups)
    return Reading(chosen, (*classes.says, *_lines(chosen, groups, classes)))


def _clash(masks: Masks) -> str | None:
    """Where an index has different colours in two palette files, in words."""
    seen: dict[int, tuple[int, str]] = {}
    for name, facts in masks.items():
        if facts.kind != "palette" or facts.numbers is None:
            continue
        for index, color in zip(facts.numbers.tolist(), facts.colors.tolist(), strict=True):
            first, other = seen.setdefault(index, (color, name))
            if first != color:
                return (
                    f"{name}: its palette gives index {index} the colour {unpack_color(color)}, "
                    f"that of {other} {unpack_color(first)}, so the index does not tell the class"
                )
    return None


def _is_black_and_white(masks: Masks, classes: Classes, ids: Way, clash: str | None) -> bool:
    """Whether two classes are black and white rather than numbers.

    They are if that explains as many files: where 255 is unlabelled, some file holds class 1. A
    folder of painted masks means nothing by it.
    """
    two = classes.labels.num_classes == 2 and classes.ids is None and IGNORE not in classes.ignore
    painted = [facts for facts in masks.values() if facts.numbers is None and not facts.lossy]
    if not two or 2 * len(painted) > len(masks):
        return False

    def fits(way: Way) -> tuple[int, int]:
        explained = sum(
            way.explains(facts) and (way.painted or facts.kind != "palette" or not clash)
            for facts in masks.values()
        )
        told = sum(map(way.telling, masks.values())) if explained < len(masks) else 0
        return explained, told

    return any(map(_is_bright, masks.values())) and fits(black_and_white(classes)) >= fits(ids)


def _is_bright(facts: MaskFacts) -> bool:
    """Whether a mask shows white, or nearly so, that is not just the number 1 of one bit."""
    bright = (facts.colors % EVEN == 0) & (facts.colors // EVEN > IGNORE // 2)
    return bool((bright & (facts.numbers != 1) if facts.kind == "grey" else bright).any())


def _index_tells(group: Group, colored: list[Way], ids: Way, clash: str | None) -> bool:
    """Whether the indices of palette files can be numbers of classes.

    They cannot if palettes differ, and not against the colours of the class file: a palette either
    has none of them, black apart, or every index of a class has its class's colour.
    """
    if clash or not colored:
        return not clash
    shows = strays = False
    for _, facts in group:
        painted, numbered = colored[0].exact(facts), ids.exact(facts)
        if ((painted >= 0) & (painted != numbered)).any():
            return False
        shows |= bool(((painted >= 0) & (facts.colors != 0)).any())
        strays |= bool(((painted < 0) & (numbered != IGNORE)).any())
    return not (shows and strays) and (shows or not colored[0].nearest)


def _chosen(groups: Groups, ways: Mapping[str, Sequence[Way]]) -> dict[str, Way]:
    """The way of each kind: of those that some file speaks for, the one that explains most files.

    A kind that speaks for none, such as empty masks, is read like the other kinds.
    """
    chosen: dict[str, Way] = {}
    for kind, group in groups.items():
        explained = {
            way: [facts for _, facts in group if way.explains(facts)] for way in ways[kind]
        }
        convincing = [way for way, files in explained.items() if any(map(way.telling, files))]
        if convincing:
            chosen[kind] = max(convincing, key=lambda way: len(explained[way]))
    decided = list(chosen.values())
    for kind, group in groups.items():
        if kind not in chosen:
            shared = [way for way in ways[kind] if way in decided]
            chosen[kind] = shared[0] if shared else _likeliest(ways[kind], kind, group)
    return chosen


def _likeliest(ways: Sequence[Way], kind: str, group: Group) -> Way:
    """The way that explains most pixels, for masks that none explains well."""

    def score(way: Way) -> tuple[int, int, bool]:
        told = sum(way.telling(facts) for _, facts in group)
        explained = sum(int(facts.pixels[way.exact(facts) >= 0].sum()) for _, facts in group)
        return told, explained, not explained and way.painted == (kind != "grey")

    return max(ways, key=score)


def _refuse_background(chosen: Mapping[str, Way], classes: Classes) -> None:
    names = classes.labels.classes
    if any(way.by == "white" for way in chosen.values()) and names[1].lower() in _BACKGROUNDS:
        raise DataError(
            f"{classes.source}: names {names[1]!r} second, but the masks are black and white, and "
            f"white would be that; write classes.json: {classes.as_json(ids=[IGNORE, 0])}"
        )


def _refuse_common(chosen: Mapping[str, Way], groups: Groups) -> None:
    """Raises one error if most files of a kind cannot be read for the same reason."""
    for kind, group in groups.items():
        way = chosen[kind]
        bad = [(name, facts) for name, facts in group if way.problem(name, facts)]
        bad = [(name, facts) for name, facts in bad if _flaws(facts) == _flaws(bad[0][1])]
        if len(bad) > 1 and 2 * len(bad) > len(group):
            name = f"{bad[0][0]} and {len(bad) - 1} more of {len(group)} {_WORDS[kind]} masks"
            raise DataError(way.problem(name, _pooled([facts for _, facts in bad])) or name)


def _flaws(facts: MaskFacts) -> tuple[bool, ...]:
    return facts.lossy, facts.transparent > 0, facts.numbers is None


def _pooled(files: Sequence[MaskFacts]) -> MaskFacts:
    """What files with the same flaws hold together; places are those of the first file."""
    numbers = [facts.numbers for facts in files if facts.numbers is not None]
    later = [np.full_like(facts.first, _FAR) for facts in files[1:]]
    return dataclasses.replace(
        files[0],
        numbers=np.concatenate(numbers) if numbers else None,
        colors=np.concatenate([facts.colors for facts in files]),
        pixels=np.concatenate([facts.pixels for facts in files]),
        first=np.concatenate([files[0].first, *later]),
        transparent=sum(facts.transparent for facts in files),
    )


def _lines(chosen: Mapping[str, Way], groups: Groups, classes: Classes) -> list[str]:
    """What was assumed, of the kinds that occur."""
    present = {kind: chosen[kind] for kind in KINDS if groups[kind]}
    lines = []
    if any(way.by == "white" for way in present.values()):
        black, white = classes.labels.classes
        lines.append(
            f"masks hold 0 and 255 alone, black and white: 255 is class {white}, 0 is {black}"
        )
    for kind, way in present.items():
        lines += _kind_lines(kind, way, [facts for _, facts in groups[kind]], classes)
    return lines


def _kind_lines(kind: str, way: Way, files: Sequence[MaskFacts], classes: Classes) -> Iterator[str]:
    masks = f"{_WORDS[kind]} masks"
    if way.by == "colour" and kind != "colour":
        yield f"{masks} are read by colour, as {classes.source} gives them"
    if way.by == "number" and kind == "colour":
        even = not any((facts.colors % EVEN).any() for facts in files)
        yield f"{masks} hold numbers: {'all channels are equal' if even else 'red alone counts'}"
    elif way.by == "number" and (kind == "palette" or classes.colors is not None):
        instead = "" if classes.colors is None else f", not by the colours of {classes.source}"
        yield f"{masks} are read by {'index' if kind == 'palette' else 'number'}{instead}"
    total = sum(facts.total for facts in files)
    odd = sum(int(facts.pixels[way.exact(facts) < 0].sum()) for facts in files)
    if way.nearest and odd:
        yield f"{masks} are matched to the nearest {way.key} ({percent(odd, total)} of the pixels)"
    blank = sum(int(f.pixels[f.numbers == IGNORE].sum()) for f in files if f.numbers is not None)
    if way.by == "number" and blank and classes.ids is None and IGNORE not in classes.ignore:
        yield f"{masks}: 255 counts as unlabelled ({percent(blank, total)} of the pixels)"
