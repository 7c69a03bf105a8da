"""The ways in which folders of one's own are arranged: one table, tried in order.

A layout says in which folders the photos of each split lie, and in which its masks. It is told from
the names of folders alone, in any of the words of `flaxseg.data.words`.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping

from flaxseg.data import words
from flaxseg.data.beside import separate
from flaxseg.data.survey import Survey, is_below
from flaxseg.errors import DataError


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where photos and masks lie, below the data folder.

    Attributes:
        name: what it is called.
        images: the folders of the photos; {images}, {masks} and {split} stand for any word.
        masks: the folders of the masks. The same as `images`: both lie beside each other.
    """

    name: str
    images: str
    masks: str

    @property
    def beside(self) -> bool:
        """Whether photos and masks lie in one folder."""
        return self.images == self.masks


LAYOUTS = (
    Layout("kind-split", "{images}/{split}", "{masks}/{split}"),
    Layout("split-kind", "{split}/{images}", "{split}/{masks}"),
    Layout("split_kind", "{split}{images}", "{split}{masks}"),
    Layout("kind_split", "{images}{split}", "{masks}{split}"),
    Layout("split-split_kind", "{split}", "{split}{masks}"),
    Layout("split-kind-split", "{split}", "{masks}/{split}"),
    Layout("kind-split-kind", "{images}/{split}", "{masks}"),
    Layout("split-masks", "{split}", "{masks}"),
    Layout("plain", "{images}", "{masks}"),
    Layout("split-inner", "{split}", "{split}/{masks}"),
    Layout("inner", "", "{masks}"),
    Layout("split-beside", "{split}", "{split}"),
    Layout("beside", "", ""),
)
"""Of layouts that fit the same photos the first counts; those that fit other photos are an error.

Pascal VOC's `JPEGImages SegmentationClass`, mmsegmentation's `img_dir/SPLIT ann_dir/SPLIT` and
Roboflow's `SPLIT/NAME.jpg SPLIT/NAME_mask.png` are among them.
"""


@dataclasses.dataclass(frozen=True)
class Found:
    """A layout in a folder: photos and masks of each split, by their paths below the data folder.

    Attributes:
        image_folders: the folder of each split's photos; `words.WHOLE` where folders tell no split.
        mask_folders: likewise for masks.
        images: the photos in those folders.
        masks: the masks in those folders.
        rule: how they were told apart where they lie beside each other, in words; else "".
    """

    layout: Layout
    image_folders: Mapping[str, str]
    mask_folders: Mapping[str, str]
    images: Mapping[str, list[str]]
    masks: Mapping[str, list[str]]
    rule: str = ""

    def shown(self) -> str:
        """The folders in words, such as "train/images with train/masks"."""
        pairs = []
        for split, folder in self.image_folders.items():
            masks = self.mask_folders.get(split, self.mask_folders.get(words.WHOLE))
            if masks is None:
                beside = "no masks"
            else:
                beside = "masks beside them" if masks == folder else f"masks in {masks}/"
            pairs.append(f"photos in {folder or '.'}/, {beside}")
        return "; ".join(pairs)


def find_layout(files: Survey, base: str) -> Found | None:
    """The layout of a folder.

    Args:
        files: what the data folder holds.
        base: the folder in it that holds the data, "" for itself.

    Raises:
        DataError: two layouts fit with different photos, or two folders have the same meaning.
    """
    found: list[Found] = []
    for layout in LAYOUTS:
        fit = _fit_beside if layout.beside else _fit
        fits = fit(files, base, layout, found)
        if fits and not _overlaps(fits.image_folders, found):
            found.append(fits)
    if len(found) > 1:
        raise DataError(
            f"{files.root / base}: two layouts fit: {found[0].shown()} | {found[1].shown()}; move "
            "the one that is not meant out of the folder"
        )
    return found[0] if found else None


def _fit(files: Survey, base: str, layout: Layout, earlier: list[Found]) -> Found | None:
    image_folders = _resolve(files, base, layout.images)
    mask_folders = _resolve(files, base, layout.masks)
    split_masks = "{split}" in layout.masks
    named = {"train", "val", words.WHOLE} & set(image_folders)
    if not named or not mask_folders or (split_masks and not named & set(mask_folders)):
        return None
    if _overlaps(_firsts(image_folders), earlier):
        return None
    images = _only(files, image_folders, words.IMAGES[0], "photos")
    masks = _only(files, mask_folders, words.MASKS[0], "masks")
    of_masks = {split: files.below(folder) for split, folder in masks.items()}
    taken = set(itertools.chain(*of_masks.values()))
    of_images = {
        split: [name for name in files.below(folder) if name not in taken]
        for split, folder in images.items()
    }
    if not any(of_images.values()):
        return None
    return Found(layout, images, masks, of_images, of_masks)


def _fit_beside(files: Survey, base: str, layout: Layout, earlier: list[Found]) -> Found | None:
    resolved = _resolve(files, base, layout.images)
    if not {"train", "val", words.WHOLE} & set(resolved) or _overlaps(_firsts(resolved), earlier):
        return None
    folders = _only(files, resolved, "", "photos")
    apart = separate([name for folder in folders.values() for name in files.below(folder)])
    if apart is None:
        return None
    images, masks = (
        {
            split: [name for name in names if is_below(name, place)]
            for split, place in folders.items()
        }
        for names in (apart.photos, apart.masks)
    )
    return Found(layout, folders, folders, images, masks, apart.rule)


def _firsts(folders: Mapping[str, list[str]]) -> dict[str, str]:
    return {split: candidates[0] for split, candidates in folders.items()}


def _overlaps(folders: Mapping[str, str], earlier: list[Found]) -> bool:
    """Whether folders hold photos of an earlier layout, or lie below its folders."""
    return any(
        is_below(mine, yours) or is_below(yours, mine)
        for found in earlier
        for mine in folders.values()
        for yours in found.image_folders.values()
    )


def _resolve(files: Survey, base: str, pattern: str) -> dict[str, list[str]]:
    """The folders with pictures that a pattern fits, by split."""
    expression = re.compile(_expression(pattern))
    found: dict[str, list[str]] = {}
    for folder in files.folders:
        if not is_below(folder, base):
            continue
        parts = folder[len(base) :].lstrip("/").split("/")
        match = expression.fullmatch("/".join(map(words.plain, parts)))
        if match:
            split = match.groupdict().get("split")
            split = words.split_of(split) if split else None
            found.setdefault(split or words.WHOLE, []).append(folder)
    return {split: found[split] for split in (*words.SPLITS, words.WHOLE) if split in found}


def _expression(pattern: str) -> str:
    any_of: Callable[[tuple[str, ...]], str] = "|".join
    splits = any_of(tuple(word for split in words.SPLITS.values() for word in split))
    return (
        pattern.replace("{images}", f"(?:{any_of(words.IMAGES)})")
        .replace("{masks}", f"(?:{any_of(words.MASKS)})")
        .replace("{split}", rf"(?P<split>(?:{splits})\d*)")
    )


def _only(
    files: Survey, folders: Mapping[str, list[str]], own_word: str, kind: str
) -> dict[str, str]:
    """The folder of each split; of several the one that is called by flaxseg's own word."""
    chosen = {}
    for split, candidates in folders.items():
        own = [folder for folder in candidates if own_word and own_word in folder.split("/")]
        if len(candidates) > 1 and len(own) != 1:
            both = " and ".join(f"{folder}/" for folder in candidates[:2])
            what = f"the {kind} of the {split} split" if split else f"the {kind}"
            hint = f", or name the right one {own_word}" if own_word else ""
            raise DataError(
                f"{files.root}: {both} may both hold {what}; move one of them out of the "
                f"folder{hint}"
            )
        chosen[split] = own[0] if len(candidates) > 1 else candidates[0]
    return chosen
