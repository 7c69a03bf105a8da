"""Label maps as run lengths, in COCO's compressed form, which pycocotools reads.

Pixels are gone through column by column. A region is the lengths of its runs of pixels outside and
inside, in turns, the first one outside. From the fourth one on the difference to the last but one
is stored, as groups of five bits, the lowest first, each in a letter.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from flaxseg.labels import IGNORE


class Region(NamedTuple):
    """The pixels of one class.

    Attributes:
        category: number of the class.
        counts: the run lengths as pycocotools stores them.
        area: number of pixels.
        box: left, top, width and height in pixels.
    """

    category: int
    counts: str
    area: int
    box: tuple[int, int, int, int]

    def annotation(self, size: tuple[int, int]) -> dict[str, Any]:
        """It as COCO's annotation of a picture of a height and width, but for the ids."""
        return {
            "category_id": self.category,
            "segmentation": {"size": list(size), "counts": self.counts},
            "area": self.area,
            "bbox": list(self.box),
            "iscrowd": 0,
        }


def regions(label: np.ndarray) -> Iterator[Region]:
    """The region of each class that occurs in a label map (H, W) uint8, in order; not `IGNORE`."""
    height = label.shape[0]
    pixels = label.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
    ends = np.append(starts[1:], pixels.size)
    of_run = pixels[starts]
    for category in (int(c) for c in np.unique(of_run) if c != IGNORE):
        mine = of_run == category
        start, end = starts[mine], ends[mine]
        edges = np.concatenate([[0], np.stack([start, end], -1).ravel(), [pixels.size]])
        counts = np.diff(edges)
        counts = counts if counts[-1] else counts[:-1]
        yield Region(category, _letters(counts), int((end - start).sum()), _box(start, end, height))


def _box(start: np.ndarray, end: np.ndarray, height: int) -> tuple[int, int, int, int]:
    (left, top), (right, bottom) = divmod(start, height), divmod(end - 1, height)
    over = left != right  # a run over the edge of a column takes the last row and the first one
    first = int(np.where(over, 0, top).min())
    last = int(np.where(over, height - 1, bottom).max())
    return int(left.min()), first, int(right.max() - left.min()) + 1, last - first + 1


def _letters(counts: np.ndarray) -> str:
    left = counts.copy()
    left[3:] -= counts[1:-2]
    letters, going = [], np.ones(left.shape, bool)
    while going.any():
        bits = left & 31
        left = left >> 5
        more = np.where(bits & 16, left != -1, left != 0)  # the highest of five is the sign
        letters.append(np.where(going, bits + 32 * more + 48, 0))
        going &= more
    text = np.stack(letters, -1)
    return bytes(text[text > 0].astype(np.uint8)).decode("ascii")
