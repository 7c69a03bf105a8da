"""Any folder with images and masks of the same names, and a file that names the classes.

::

    images/NAME.jpg  masks/NAME.png  classes.txt

Instead of classes.txt there may be a classes.json, which can give colours, or a label_colors.txt.
Masks hold class ids in the order of the classes, as grey or palette PNG, and 255 where unlabelled;
or, as RGB, the colours that the class file gives.

The splits are folders (`images/train`, `masks/train`, `images/val`, ..., or `train/images`,
`train/masks`, `val/images`, ...), else lists (`train.txt`, `val.txt`, `test.txt`, one image name
per line), else every fifth image in alphabetical order validates.
"""

import contextlib
import pathlib
from collections.abc import Sequence

from flaxseg.data.classes import CLASS_FILES, JSON_FORM, Classes, read_classes
from flaxseg.data.codings import ColorCoding, IndexCoding
from flaxseg.data.dataset import FileDataset
from flaxseg.data.files import is_rgb_mask
from flaxseg.data.pairs import (
    SPLIT_FILES,
    BadSample,
    Coding,
    Pair,
    PairFolder,
    every_fifth,
    has_folders,
    inside,
    listed_splits,
    match,
    split_lists,
)
from flaxseg.errors import DataError

_IMAGES, _MASKS = "images", "masks"
_EXPECTED = (
    "Expected are images/ and masks/ with files of the same names (masks as PNG), and classes.txt "
    f"with one class name per line or classes.json ({JSON_FORM}); splits by folders images/train "
    "masks/train images/val masks/val, by train.txt and val.txt, or else every fifth image "
    "validates"
)


def find_folder(root: pathlib.Path) -> PairFolder:
    """Pairs images and masks and reads the class file and one mask's header.

    Args:
        root: the folder.

    Raises:
        DataError: no images, masks or class file, or a split is empty.
    """
    class_file = next((root / name for name in CLASS_FILES if (root / name).is_file()), None)
    if class_file is None:
        raise DataError(
            f"{root}: names no classes, it holds {inside(root)}; add one of "
            f"{', '.join(CLASS_FILES)}. {_EXPECTED}"
        )
    classes = read_classes(class_file, "folder")
    layout, splits, orphans, lists = _find_splits(root)
    coding = _coding(classes, class_file, [pair for pairs in splits.values() for pair in pairs])
    folder = PairFolder(
        root, layout, classes.labels, coding, splits, (class_file, *lists), tuple(orphans)
    )
    return folder.require(("train", "val"), _EXPECTED)


def _find_splits(
    root: pathlib.Path,
) -> tuple[str, dict[str, tuple[Pair, ...]], list[BadSample], list[pathlib.Path]]:
    """Layout, pairs of each split, orphans and list files."""
    for layout, form in (("kind-split", "{kind}/{split}"), ("split-kind", "{split}/{kind}")):
        folders = {
            split: (form.format(kind=_IMAGES, split=split), form.format(kind=_MASKS, split=split))
            for split in SPLIT_FILES
        }
        present = {split: pair for split, pair in folders.items() if has_folders(root, *pair)}
        if present:
            found = {split: match(root, *pair, nested=True) for split, pair in present.items()}
            orphans = [orphan for matched in found.values() for orphan in matched.orphans]
            return layout, {split: m.pairs for split, m in found.items()}, orphans, []
    if not has_folders(root, _IMAGES, _MASKS):
        raise DataError(f"{root}: has no images/ and masks/, it holds {inside(root)}. {_EXPECTED}")
    pairs, orphans = match(root, _IMAGES, _MASKS, nested=True)
    lists = split_lists(root)
    splits = listed_splits(pairs, lists) if lists else every_fifth(pairs)
    return "listed" if lists else "plain", splits, list(orphans), [*lists.values()]


def _coding(classes: Classes, class_file: pathlib.Path, pairs: Sequence[Pair]) -> Coding:
    """By colour if the masks are in colour, which the first one that can be read tells."""
    painted = _first_painted(pairs)
    if painted is None:
        return IndexCoding(classes.labels.num_classes, classes.ignore)
    if classes.colors is not None:
        return ColorCoding(classes.colors, str(class_file))
    raise DataError(
        f"{painted.label}: is an RGB mask, but {class_file} gives no colours; give each class its "
        f"colour there (lines R G B Name, or JSON {JSON_FORM}) or save the masks as class ids"
    )


def _first_painted(pairs: Sequence[Pair]) -> Pair | None:
    for pair in pairs:
        with contextlib.suppress(DataError):  # damaged files are told of later, all at once
            return pair if is_rgb_mask(pair.label) else None
    return None


FOLDER = FileDataset("folder", find_folder, _EXPECTED)
"""A data set of one's own."""
