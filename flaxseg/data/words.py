"""The words by which people call splits, folders of photos and folders of masks."""

import re

SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
"""Words for each split, in any case."""

WHOLE = ""
"""Stands for the split where nothing tells one."""

IMAGES = (
    *("images", "image", "imgs", "img", "imagedir", "imgdir", "jpegimages", "pngimages"),
    *("photos", "photo", "pictures", "picture", "pics", "frames", "inputs", "input"),
    *("rgb", "originals", "original", "leftimg8bit", "sat"),
)
"""Words for photos, in lower case without separators; the first is flaxseg's own."""

MASKS = (
    *("masks", "mask", "maskdir", "imagemasks", "segmentationmasks", "labels", "label", "labeldir"),
    *("annotations", "annotation", "annots", "annot", "anns", "ann", "anndir", "labelmaps"),
    *("segmentationclass", "segmentationclasspng", "segmentationclassaug", "segmentations"),
    *("segmentation", "segs", "seg", "semantic", "groundtruths", "groundtruth", "gts", "gt"),
    *("gtfine", "targets", "target", "trimaps"),
)
"""Words for masks, likewise."""

_SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}


def plain(name: str) -> str:
    """A name in lower case without separators, such as "trainmasks" for "Train_masks"."""
    return re.sub(r"[\s_.-]", "", name).casefold()


def split_of(word: str) -> str | None:
    """The split that a name such as "Validation" or "train2017" stands for, if it does."""
    return _SPLIT_OF.get(plain(word).rstrip("0123456789"))
