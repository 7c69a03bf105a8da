"""Tells photos from masks where both lie in one folder, by their names alone."""

import collections
import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from flaxseg.data import words
from flaxseg.data.names import is_cut_off, is_told

_MAX_ALIKE = 8  # files of one stem; what more files share is no picture's name
_MAX_PARTS = 6  # of a name, such as "_", "gt", "_" and "mask", that a tail is made of
_PART = re.compile(r"[^\W\d_]+|\d+|[\W_]")
_SAMPLE = 1000  # names that are taken apart
_RAREST = 0.1  # of all names: rarer tails are none
_FEWEST = 0.25  # of all photos: fewer masks beside them are taken for chance
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp")


@dataclasses.dataclass(frozen=True)
class Separated:
    """Photos and masks of one folder.

    Attributes:
        photos: files that are no masks.
        masks: the masks.
        rule: by what they were told apart, in words.
        pairs: number of stems with a photo and a mask.
    """

    photos: list[str]
    masks: list[str]
    rule: str
    pairs: int


def separate(names: Sequence[str]) -> Separated | None:
    """Tells photos from masks.

    Files of one stem differ in a tail (a0.jpg a0_mask.png, a0_sat.jpg a0_mask.png), in a head
    (image_0.jpg mask_0.png) or in the ending alone (a0.jpg a0.png). What the most stems have counts
    for all names.

    Args:
        names: paths with endings.

    Returns:
        None where fewer than a quarter of the photos have a mask by such a rule.
    """
    ways = (
        _by_affix(names, "end in", _tails, str.endswith, str.removesuffix),
        _by_affix(names, "begin with", _heads, _begins, _without_head),
        _by_ending(names),
    )
    best = max(ways, key=lambda way: way.pairs)
    return best if best.pairs and best.pairs >= _FEWEST * len(best.photos) else None


def _by_affix(
    names: Sequence[str],
    what: str,
    affixes: Callable[[str], Iterator[str]],
    has: Callable[[str, str], bool],
    cut: Callable[[str, str], str],
) -> Separated:
    """By tails or heads."""
    stems = {name: os.path.splitext(name)[0] for name in names}
    found: dict[str, set[str]] = collections.defaultdict(set)
    common = _common(list(stems.values()), affixes)
    for stem in stems.values():
        found[stem].add("")
        for affix in common:
            if has(stem, affix):
                found[cut(stem, affix)].add(affix)
    marks, pairs = _commonest(found)
    files = {mark: [n for n, stem in stems.items() if mark and has(stem, mark)] for mark in marks}
    for mark, other in (marks, (marks[1], marks[0])):
        if not mark:  # the names without the other
            taken = set(files[other])
            files[mark] = [name for name in names if name not in taken]
    mask, photo = sorted(marks, key=lambda mark: _unlikeness(mark, files[mark]))
    if affixes is _heads and photo and mask and not is_told(photo, mask):
        pairs = 0  # cam1_007 and cam2_007 are two pictures
    rule = f"masks {what} {mask}" if mask else f"photos {what} {photo}"
    return _split(names, set(files[mask]), rule, pairs)


def _by_ending(names: Sequence[str]) -> Separated:
    found = collections.defaultdict(set)
    for name in names:
        stem, ending = os.path.splitext(name)
        found[stem].add(ending.lower())
    marks, pairs = _commonest(found)
    mask = min(marks, key=lambda ending: (ending in _LOSSY, ending != ".png", ending))
    chosen = {name for name in names if os.path.splitext(name)[1].lower() == mask}
    return _split(names, chosen, f"masks are the {mask} files", pairs)


def _split(names: Sequence[str], masks: set[str], rule: str, pairs: int) -> Separated:
    photos = [name for name in names if name not in masks]
    return Separated(photos, [name for name in names if name in masks], rule, pairs)


def _commonest(marks_of: Mapping[str, set[str]]) -> tuple[tuple[str, str], int]:
    """The two marks that the most stems have, and how many have them.

    Of equals, those with a word for masks count, then those with a separator, then short ones.
    """
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for marks in marks_of.values():
        if 1 < len(marks) <= _MAX_ALIKE:
            counts.update(itertools.combinations(sorted(marks), 2))

    def weight(marks: tuple[str, str]) -> tuple[int, bool, bool, int]:
        told = any(words.plain(mark) in words.MASKS for mark in marks)
        return counts[marks], told, not is_cut_off(marks), -len("".join(marks))

    best = max(counts, key=weight, default=("", ""))
    return best, counts[best]


def _common(stems: Sequence[str], affixes: Callable[[str], Iterator[str]]) -> list[str]:
    """Heads or tails that are frequent enough to be those of masks; they hold a letter."""
    sample = stems[:: len(stems) // _SAMPLE | 1]  # odd: photos and masks may alternate
    counts = collections.Counter(affix for stem in sample for affix in affixes(stem))
    return [
        affix
        for affix, count in counts.items()
        if count >= _RAREST * len(sample) and any(map(str.isalpha, affix))
    ]


def _tails(name: str) -> Iterator[str]:
    """All ends of a name that begin with a separator, a word or a number."""
    for match in _parts(name)[1:][-_MAX_PARTS:]:
        yield name[match.start() :]


def _heads(name: str) -> Iterator[str]:
    """All beginnings of a name, folders aside, that end with a separator, a word or a number."""
    for match in _parts(name)[:-1][:_MAX_PARTS]:
        yield name[name.rfind("/") + 1 : match.end()]


def _without_head(name: str, head: str) -> str:
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.removeprefix(head)}"


def _parts(name: str) -> list[re.Match[str]]:
    return list(_PART.finditer(name, name.rfind("/") + 1))


def _begins(name: str, head: str) -> bool:
    return name.startswith(head, name.rfind("/") + 1)


def _unlikeness(mark: str, files: Sequence[str]) -> tuple[bool, bool, float, bool]:
    """How little a mark is one of masks: by words, by lossy endings, or the empty one is none."""
    lossy = sum(os.path.splitext(name)[1].lower() in _LOSSY for name in files)
    word = words.plain(mark)
    return word not in words.MASKS, word in words.IMAGES, lossy / max(1, len(files)), not mark
