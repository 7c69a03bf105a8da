"""Reads the pairs of a folder where they lie, as they were when the folder was checked."""

import os
import pathlib
from typing import Any

import numpy as np

from flaxseg.data.checked import Checked, Sample, Stamp, stamp_of
from flaxseg.data.mask_tables import MaskTables
from flaxseg.data.masks import Reading
from flaxseg.data.source import Example
from flaxseg.errors import DataError
from flaxseg.pictures.photos import decode_plain, read_photo

Place = tuple[str, str | None, bool, bool, Stamp, Stamp]
"""Photo, mask, whether the photo is plain, whether it is turned, and the stamps of both files."""


class Files:
    """Examples of one split by position.

    A file that is as it was when it was checked is read by the shortest way, one that has changed
    since then as carefully as at the check.
    """

    def __init__(self, values: dict[str, Any], places: list[Place]):
        """Takes what `describe` gave, and the places of the split's examples."""
        self._root = pathlib.Path(values["root"])
        self._published: bool = values["published"]
        self._missing: int | None = values["missing"]
        self._reading = Reading.from_json(values["reading"])
        self._tables = MaskTables(self._reading)
        self._places = places

    def __getitem__(self, index: int) -> Example:
        image_name, label_name, plain, turned, image_stamp, label_stamp = self._places[index]
        image = self._photo(self._root / image_name, plain, turned, image_stamp)
        if label_name is None:
            return Example(image, np.full(image.shape[:2], self._missing, np.uint8))
        path = self._root / label_name
        label = self._mask(path, label_stamp)
        if image.shape[:2] != label.shape:
            raise DataError(
                f"{path}: no longer has the size of its photo {self._root / image_name}; one of "
                "them has changed since they were checked: run the command again"
            )
        return Example(image, label)

    def _photo(self, path: pathlib.Path, plain: bool, turned: bool, stamp: Stamp) -> np.ndarray:
        if plain and stamp_of(path) == stamp:
            return decode_plain(path.read_bytes())
        # It has passed the limit on its area when it was checked.
        return read_photo(path, orientation=turned, published=self._published, max_pixels=0)

    def _mask(self, path: pathlib.Path, stamp: Stamp) -> np.ndarray:
        quick = self._tables.read(path.read_bytes()) if stamp_of(path) == stamp else None
        return self._reading.read(path) if quick is None else quick


def place_of(sample: Sample, root: pathlib.Path) -> Place:
    """Where an example lies; files below the folder by their path in it."""
    image, label = sample.pair.image, sample.pair.label
    return (
        os.path.relpath(image, root),
        None if label is None else os.path.relpath(label, root),
        sample.plain,
        sample.turned,
        *sample.stamps,
    )


def describe(checked: Checked, missing: int | None) -> dict[str, Any]:
    """What `Files` needs to know of a folder, as JSON values."""
    return {
        "root": str(checked.folder.root.absolute()),
        "published": checked.folder.published,
        "missing": missing,
        "reading": checked.reading.to_json(),
    }
