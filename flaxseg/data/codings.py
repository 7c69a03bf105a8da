"""How label files become class ids: by index, by table or by colour."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from flaxseg.data.files import read_mask
from flaxseg.data.problems import bad_ids
from flaxseg.errors import DataError
from flaxseg.labels import IGNORE, Color
from flaxseg.pictures.open import count_pixels


@dataclasses.dataclass(frozen=True)
class IndexCoding:
    """Label maps that hold class ids.

    Attributes:
        num_classes: ids 0 to num_classes - 1 are classes.
        unlabelled: other values that are allowed and become 255.
        first_channel: RGB files are accepted where the red channel alone tells the id: all
            channels equal, or green and blue zero.
    """

    num_classes: int
    unlabelled: tuple[int, ...] = (IGNORE,)
    first_channel: bool = False

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        extra = " or ".join(str(value) for value in self.unlabelled)
        return f"0 to {self.num_classes - 1}, and {extra} for unlabelled pixels"

    def read(self, path: pathlib.Path) -> np.ndarray:
        """The class ids of a file, (H, W) uint8; `DataError` if it holds something else."""
        mask = read_mask(path)
        if mask.ndim == 3:
            mask = self._red_channel(path, mask)
        outside = (mask < 0) | (mask >= self.num_classes)
        ignored = np.isin(mask, self.unlabelled)
        if np.any(outside & ~ignored):
            raise bad_ids(str(path), mask, outside & ~ignored, self.allowed)
        return np.where(ignored, IGNORE, mask).astype(np.uint8)

    def _red_channel(self, path: pathlib.Path, mask: np.ndarray) -> np.ndarray:
        red, rest = mask[..., :1], mask[..., 1:]
        if self.first_channel and (np.all(rest == red) or not rest.any()):
            return red[..., 0]
        raise _rgb_instead_of_ids(path, mask, f"class ids are expected: {self.allowed}")


class TableCoding:
    """Label maps that hold other numbers than class ids."""

    def __init__(self, ids: Mapping[int, int]):
        """Takes the table.

        Args:
            ids: class id, or 255, of every number that may occur, 0 to 65535.
        """
        self._known = np.zeros(2**16, bool)
        self._known[list(ids)] = True
        self._ids = np.full(2**16, IGNORE, np.uint8)
        self._ids[list(ids)] = list(ids.values())
        self._allowed = _ranges(sorted(ids))

    def read(self, path: pathlib.Path) -> np.ndarray:
        """The class ids of a file, (H, W) uint8; `DataError` if it holds something else."""
        mask = read_mask(path)
        if mask.ndim == 3:
            raise _rgb_instead_of_ids(path, mask, f"numbers {self._allowed} are expected")
        numbers = np.clip(mask.astype(np.int64), 0, 2**16 - 1)
        wrong = (mask != numbers) | ~self._known[numbers]
        if wrong.any():
            raise bad_ids(str(path), mask, wrong, self._allowed)
        return self._ids[numbers]


class ColorCoding:
    """Label maps that hold one colour per class."""

    def __init__(self, ids: Mapping[Color, int], source: str):
        """Takes the colours.

        Args:
            ids: class id of every colour.
            source: where the colours come from, for messages.
        """
        self._source = source
        keys = np.array([_pack(np.array(color)) for color in ids])
        order = np.argsort(keys)
        self._keys = keys[order]
        self._ids = np.array(list(ids.values()), np.uint8)[order]

    def read(self, path: pathlib.Path) -> np.ndarray:
        """The class ids of a file, (H, W) uint8; `DataError` if it holds something else."""
        mask = read_mask(path, palette_colors=True)
        if mask.ndim == 2:
            raise DataError(
                f"{path}: has a single channel (values {mask.min()} to {mask.max()}), but an RGB "
                f"mask in the {len(self._keys)} colours of {self._source} is expected"
            )
        packed = _pack(mask)
        place = np.minimum(np.searchsorted(self._keys, packed), len(self._keys) - 1)
        unknown = self._keys[place] != packed
        if unknown.any():
            row, column = np.argwhere(unknown)[0]
            pixels = count_pixels(unknown.sum())
            raise DataError(
                f"{path}: colour {_color(mask[row, column])} at row {row}, column {column} "
                f"({pixels} of unknown colour) is none of the {len(self._keys)} colours of "
                f"{self._source}; mend the mask or add the colour there"
            )
        return self._ids[place]


def _rgb_instead_of_ids(path: pathlib.Path, mask: np.ndarray, expected: str) -> DataError:
    odd = np.argmax((mask[..., 1:] != mask[..., :1]).any(axis=-1))
    row, column = np.unravel_index(odd, mask.shape[:2])
    return DataError(
        f"{path}: is an RGB mask (colour {_color(mask[row, column])} at row {row}, column "
        f"{column}), but {expected}; save the ids as an 8-bit single-channel PNG"
    )


def _ranges(numbers: list[int]) -> str:
    """Sorted whole numbers in words, such as "0 to 33, 255"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join(" to ".join(str(end) for end in run) for run in runs)


def _pack(colors: np.ndarray) -> np.ndarray:
    """One number per colour, (..., 3) to (...)."""
    wide = colors.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def _color(values: np.ndarray) -> str:
    return "(" + ", ".join(str(value) for value in values) + ")"
