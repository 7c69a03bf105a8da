"""Finds out by their names alone which mask belongs to which picture.

Names are told apart into a stem, which a picture and its mask share, and what surrounds it: a tail
such as `_mask`, or a head such as `mask_`. Tails and heads are found by comparing the names with
each other; none is known beforehand.
"""

import collections
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from flaxseg.data import words

_MAX_AFFIX = 40  # characters of a tail or head
_SAMPLE = 16  # masks that a pair of tails is tried on before all


@dataclasses.dataclass(frozen=True)
class Partners:
    """Which mask belongs to which picture.

    Attributes:
        masks: a mask for every picture that has one; where several fit, all of them.
        rule: how names were compared, in words; "" if picture and mask have the same name.
    """

    masks: Mapping[str, tuple[str, ...]]
    rule: str = ""


def partners(images: Sequence[str], masks: Sequence[str]) -> Partners:
    """Pairs two lists of names, without endings, perhaps with folders.

    Equal names belong together; else those that differ in case alone; else those that are equal
    without a tail, or a head, that all masks or all pictures share (heads on both sides must be
    words for photos or masks); else the same without folders. The rule that finds the most pairs
    counts for all names, of equals the first.

    Args:
        images: names of pictures.
        masks: names of masks.
    """
    best, paired = Partners({}), -1
    for rule, image_key, mask_key in _all_rules(images, masks):
        found = _join(images, masks, image_key, mask_key)
        count = len({mask for group in found.values() for mask in group})
        if count > paired:
            best, paired = Partners(found, rule), count
        if paired == len(masks):
            break
    return best


_Key = Callable[[str], str]


def _all_rules(images: Sequence[str], masks: Sequence[str]) -> Iterator[tuple[str, _Key, _Key]]:
    """The rules for names with their folders, then, where that is unique, without."""
    yield from _rules(images, masks)
    bare = [[_last(name) for name in names] for names in (images, masks)]
    if all(len(set(names)) == len(names) for names in bare):
        for rule, image_key, mask_key in _rules(*bare):
            said = f"folders aside, {rule}" if rule else "folders aside"
            yield said, _after_last(image_key), _after_last(mask_key)


def _after_last(key: _Key) -> _Key:
    return lambda name: key(_last(name))


def _rules(images: Sequence[str], masks: Sequence[str]) -> Iterator[tuple[str, _Key, _Key]]:
    """Ways of comparing, the strictest first: in words, and what must be equal on both sides."""
    yield "", str, str
    yield "upper and lower case aside", str.casefold, str.casefold
    for what, turn in (("end in", str), ("begin with", _turned)):
        for fold, also in ((str, ""), (str.casefold, ", upper and lower case aside")):
            ours, theirs = ([fold(turn(name)) for name in names] for names in (images, masks))
            for tail, mask_tail in _tails(ours, theirs):
                if turn is _turned and tail and not is_told(turn(tail), turn(mask_tail)):
                    continue  # cam1_007 and cam2_007 are two pictures
                sides = (("masks", mask_tail), ("pictures", tail))
                said = " and ".join(f"{kind} {what} {turn(cut)}" for kind, cut in sides if cut)
                yield said + also, _cutting(turn, fold, tail), _cutting(turn, fold, mask_tail)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def is_told(head: str, mask_head: str) -> bool:
    """Whether heads on both sides are words for photos or masks."""
    return words.plain(head) in words.IMAGES or words.plain(mask_head) in words.MASKS


def _cutting(turn: _Key, fold: _Key, tail: str) -> _Key:
    return lambda name: fold(turn(name)).removesuffix(tail)


def _join(
    images: Sequence[str], masks: Sequence[str], image_key: _Key, mask_key: _Key
) -> dict[str, tuple[str, ...]]:
    by_key = collections.defaultdict(list)
    for mask in masks:
        by_key[mask_key(mask)].append(mask)
    return {name: tuple(by_key[key]) for name in images if (key := image_key(name)) in by_key}


def _turned(name: str) -> str:
    """The name with its last part backwards, so that its head becomes its tail."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last[::-1]}"


def _tails(images: Sequence[str], masks: Sequence[str]) -> list[tuple[str, str]]:
    """Tails of the pictures and of the masks that leave equal stems in some names.

    Those that begin with a separator come first, then short ones.
    """
    if not images or not masks:
        return []
    known = set(images)
    sample = masks[:: max(1, len(masks) // _SAMPLE)]
    found = []
    for tail, mask_tail in itertools.product(_common_tails(images), _common_tails(masks)):
        if (tail or mask_tail) and any(_fits(mask, tail, mask_tail, known) for mask in sample):
            found.append((tail, mask_tail))
    return sorted(found, key=lambda pair: (is_cut_off(pair), len("".join(pair))))


def is_cut_off(tails: Iterable[str]) -> bool:
    """Whether a tail or head has no separator at its ends."""
    return any(tail[:1].isalnum() and tail[-1:].isalnum() for tail in tails)


def _common_tails(names: Sequence[str]) -> list[str]:
    """The ends that all names share, "" among them; each leaves something of every name."""
    backwards = os.path.commonprefix([name.rpartition("/")[2][::-1] for name in names])
    shortest = min(len(name.rpartition("/")[2]) for name in names)
    longest = backwards[: min(_MAX_AFFIX, shortest - 1)][::-1]
    return [longest[start:] for start in range(len(longest), -1, -1)]


def _fits(mask: str, tail: str, mask_tail: str, images: set[str]) -> bool:
    stem = mask.removesuffix(mask_tail)
    if stem + tail not in images:
        return False
    alone = not tail or not mask_tail
    return not any(cut and _cuts(stem, cut, alone) for cut in (tail, mask_tail))


def _cuts(stem: str, tail: str, alone: bool) -> bool:
    """Whether a tail begins within a number, or, unless the stem is a whole name, in a word."""
    before, after = stem[-1:], tail[0]
    if before.isdigit() and after.isdigit():
        return True
    return (
        not alone and before.isalpha() and after.isalpha() and before.islower() == after.islower()
    )
