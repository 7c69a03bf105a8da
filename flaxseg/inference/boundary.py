"""Where true and predicted borders of classes meet, for the boundary IoU.

Cheng et al. 2021, https://arxiv.org/abs/2103.16562
"""

import math

import cv2
import numpy as np

from flaxseg.labels import IGNORE

_SHARE = 0.02


def boundary_width(height: int, width: int) -> int:
    """Pixels of a border's width: 2 % of the picture's diagonal, as in the paper; at least 1."""
    return max(1, round(_SHARE * math.hypot(height, width)))


def boundary_counts(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Where true and predicted borders of each class meet in a picture.

    The border of a class is made of its pixels that lie within `boundary_width` of one that is not
    of it, or of the picture's edge. Pixels labelled `IGNORE` are of no class in either map.

    Args:
        label: true class ids, (H, W) uint8.
        prediction: predicted class ids, (H, W) uint8.
        num_classes: number of classes K.

    Returns:
        (2, K) int64: pixels of both borders, and of one or both.
    """
    prediction = np.where(label == IGNORE, np.uint8(IGNORE), prediction)
    counts = np.zeros((2, num_classes), np.int64)
    for name in np.union1d(label, prediction):
        if name < num_classes:
            true, predicted = (_border(ids == name) for ids in (label, prediction))
            counts[:, name] = (true & predicted).sum(), (true | predicted).sum()
    return counts


def _border(mask: np.ndarray) -> np.ndarray:
    width = boundary_width(*mask.shape)
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    # By default OpenCV leaves the edge of a picture out of account.
    inner = cv2.erode(mask.view(np.uint8), square, None, (-1, -1), 1, cv2.BORDER_CONSTANT, 0)
    return mask & (inner == 0)
