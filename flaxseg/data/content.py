"""What a data set holds in one number that is the same on every machine."""

import hashlib
import json

import numpy as np

from flaxseg.data.source import Source
from flaxseg.data.statistics import Statistics


def content_fingerprint(source: Source, statistics: Statistics) -> str:
    """SHA-256 of the classes and, of each example in order, name, size and pixels of each class.

    Where a folder lies does not count, nor how its files are packed. No picture is read: pictures
    that were changed behind the same names and label maps are not told apart.

    Args:
        source: the examples.
        statistics: what `count_labels` gives for them.

    Returns:
        64 hexadecimal digits.
    """
    names = [source.name(index) for index in range(len(source))]
    total = hashlib.sha256(json.dumps([source.labels.classes, names]).encode())
    for array in (statistics.sizes, statistics.counts):
        total.update(np.ascontiguousarray(array, "<i8").data)
    return total.hexdigest()
