"""Pairs the photos and masks that a layout has found."""

import pathlib
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from flaxseg.data import words
from flaxseg.data.layouts import Found
from flaxseg.data.names import partners
from flaxseg.data.pairs import Pair, some
from flaxseg.data.problems import BadSample
from flaxseg.data.survey import without_ending
from flaxseg.errors import DataError


class PairedLayout(NamedTuple):
    """The photos of a layout with their masks.

    Attributes:
        pairs: all photos, sorted by name, those without mask among them.
        folders: the split of each photo by name, where folders tell it; else empty.
        orphans: masks without photo.
        rule: how names were compared, in words; "" if they are equal.
    """

    pairs: list[Pair]
    folders: dict[str, str]
    orphans: list[BadSample]
    rule: str


def pair_layout(root: pathlib.Path, found: Found) -> PairedLayout:
    """Pairs by name: the path below the folder of photos or masks, without ending.

    Args:
        root: the data folder.
        found: its photos and masks.

    Raises:
        DataError: no photo has a mask, or it is not clear which mask belongs to which.
    """
    per_split = words.WHOLE not in found.mask_folders
    images = _keyed(root, found.images, found.image_folders, per_split)
    masks = _keyed(root, found.masks, found.mask_folders, per_split)
    matched = partners(list(images), list(masks))
    if not matched.masks:
        raise DataError(
            f"{root}: no picture has a mask of its name: "
            f"{some(list(images.values()), 'picture')}, {some(list(masks.values()), 'mask')}; a "
            "mask is called like its picture, with a tail or head that all masks share if need be"
        )
    owner: dict[str, str] = {}
    pairs = []
    for key, image in images.items():
        candidates = [masks[mask] for mask in matched.masks.get(key, ())]
        if len(candidates) > 1:
            both = " and ".join(candidates[:2])
            raise DataError(f"{root}: {both} may both be the mask of {image}; remove one")
        label = root / candidates[0] if candidates else None
        if candidates and owner.setdefault(candidates[0], image) != image:
            raise DataError(
                f"{root}: {candidates[0]} may be the mask of {owner[candidates[0]]} and of "
                f"{image}; rename one"
            )
        pairs.append(Pair(image, root / image, label))
    lost = [name for name in masks.values() if name not in owner]
    orphans = [BadSample(name, f"{root / name}: is a mask without picture") for name in lost]
    folders = {name: split for split, names in found.images.items() if split for name in names}
    pairs.sort(key=lambda pair: pair.name)
    return PairedLayout(pairs, folders, orphans, matched.rule)


def _keyed(
    root: pathlib.Path,
    names: Mapping[str, list[str]],
    folders: Mapping[str, str],
    per_split: bool,
) -> dict[str, str]:
    """Files by what is compared: the path below their folder without ending, after the split."""
    keyed: dict[str, str] = {}
    for split, members in names.items():
        for name in members:
            below = name[len(folders[split]) :].lstrip("/")
            key = unicodedata.normalize("NFC", without_ending(below))
            key = f"{split}/{key}" if per_split and split else key
            if key in keyed:
                raise DataError(
                    f"{root / name}: {_unlike(keyed[key], name)} has the same name; remove one of "
                    "them"
                )
            keyed[key] = name
    return keyed


def _unlike(other: str, name: str) -> str:
    """Another file's name, with its folder if that is another one."""
    folder, _, last = other.rpartition("/")
    return last if folder == name.rpartition("/")[0] else other
