"""COCO's JSON files, whose regions are the blocks of label maps.

A region covers the pixels whose centres it holds: [2, 3, 6, 3, 6, 8, 2, 8] has 4 x 5 of them.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from folder_maker import BLOCK

Shape = Callable[[np.ndarray], dict[str, Any]]


def polygon(region: np.ndarray) -> dict[str, Any]:
    """A corner after the other around each block of a region, (H, W) bool."""
    corners = []
    for y, x in np.argwhere(region[::BLOCK, ::BLOCK]) * BLOCK:
        right, bottom = x + BLOCK, y + BLOCK
        corners.append([float(v) for v in (x, y, right, y, right, bottom, x, bottom)])
    return {"segmentation": corners, "iscrowd": 0}


def runs(region: np.ndarray) -> dict[str, Any]:
    """Lengths of runs down the columns, outside and inside in turn, as a crowd has them."""
    counts = [
        len(list(run)) for _, run in itertools.groupby(region.ravel("F").tolist())
    ]  # a region that begins inside has no pixel outside before
    counts = [0, *counts] if region[0, 0] else counts
    return {"segmentation": {"counts": counts, "size": list(region.shape)}, "iscrowd": 1}


def packed_runs(region: np.ndarray) -> dict[str, Any]:
    """The same in letters: differences to the run before the last, five bits a letter."""
    counts, text = runs(region)["segmentation"]["counts"], ""
    for place, count in enumerate(counts):
        value = count - (counts[place - 2] if place > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return {"segmentation": {"counts": text, "size": list(region.shape)}, "iscrowd": 0}


def coco(
    labels: Mapping[str, np.ndarray],
    categories: Sequence[tuple[int, str]],
    shape: Shape = polygon,
    strip: str = "",
) -> dict[str, Any]:
    """The content of a file.

    Args:
        labels: photo -> its label map, in which a class's id is its place among the categories
            counted from 1.
        categories: numbers and names.
        shape: how regions are written.
        strip: what of the photos' names the file leaves out.
    """
    images, annotations = [], []
    for number, (photo, ids) in enumerate(labels.items(), start=10):
        height, width = ids.shape
        name = photo.removeprefix(strip)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for place, (category, _) in enumerate(categories, start=1):
            if (region := ids == place).any():
                note = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
                annotations.append({**note, **shape(region), "area": int(region.sum())})
    named = [{"id": number, "name": name, "supercategory": ""} for number, name in categories]
    return {"info": {}, "images": images, "categories": named, "annotations": annotations}
