"""What mask files hold, without any idea of the classes: their distinct values, and how often.

A mask is mostly flat, so it is read as runs of equal values; everything else is done once per
run or once per distinct value.
"""

import dataclasses
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.labels import Color
from flaxseg.pictures.open import JPEGS, drop_alpha, open_header, open_picture, png_depth

KINDS = ("grey", "palette", "colour")
"""Kinds of files: a single channel, indices into a table of colours, three channels."""

EVEN = 0x010101
"""A grey, 0 to 255, times this is its colour as one number."""

_SUBFILE_TYPE, _BITS_PER_SAMPLE = 254, 258  # tags of TIFF
_REDUCED = 1  # bit of the subfile type: a copy in another resolution
_GREYS = ("1", "L", "I", "I;16", "I;16B", "I;16L", "F")


@dataclasses.dataclass(frozen=True, eq=False)
class MaskFacts:
    """The N distinct values of a mask file.

    Attributes:
        size: height and width in pixels.
        kind: one of `KINDS`. A palette of which a file uses nothing but entries i of the grey
            (i, i, i) is a grey file.
        numbers: (N,) int32, the values as numbers, of a palette the indices; of three channels
            the one where all are equal or green and blue are 0, else None.
        colors: (N,) int32, the values as colours, by `pack_color`; -1 where a number has none.
        pixels: (N,) int32, how many pixels hold each value.
        first: (N,) int32, the first pixel of each value, counted row by row.
        lossy: the file's compression changes values, as that of JPEG does.
        transparent: number of transparent pixels of a palette file; others have none.
    """

    size: tuple[int, int]
    kind: str
    numbers: np.ndarray | None
    colors: np.ndarray
    pixels: np.ndarray
    first: np.ndarray
    lossy: bool = False
    transparent: int = 0

    @property
    def total(self) -> int:
        """Number of pixels."""
        return int(self.pixels.sum())


class Scan(NamedTuple):
    """A mask file read whole.

    Attributes:
        facts: its distinct values.
        values: (R,) the place among them of every run of equal pixels.
        lengths: (R,) the number of pixels of every run.
    """

    facts: MaskFacts
    values: np.ndarray
    lengths: np.ndarray

    def paint(self, ids: np.ndarray) -> np.ndarray:
        """The mask with its values replaced, (H, W), by one id per distinct value, (N,)."""
        return np.repeat(ids[self.values], self.lengths).reshape(self.facts.size)


def pack_color(color: Color) -> int:
    """A colour as one number."""
    red, green, blue = color
    return red | green << 8 | blue << 16


def unpack_color(packed: int) -> Color:
    """The colour of a number that `pack_color` gave."""
    return packed & 255, packed >> 8 & 255, packed >> 16 & 255


def look_at_mask(path: pathlib.Path) -> MaskFacts:
    """Reads a mask and tells what it holds.

    Args:
        path: a picture of one channel of 1 to 32 bits (floats, if they are whole numbers), of
            indices into a palette, or of three channels of 8 bits.

    Raises:
        DataError: a missing or damaged file, transparent pixels, pixels of another kind, or
            several pictures in one file.
    """
    return scan_mask(path).facts


def scan_mask(path: pathlib.Path) -> Scan:
    """Reads a mask; as `look_at_mask`, with the place of every value."""
    data, picture = open_picture(path)
    pages = _pages(data, picture)
    if pages > 1:
        raise DataError(
            f"{path}: holds {pages} pictures, but a mask is one; save the right one alone, as an "
            "8-bit PNG"
        )
    depth, lossy = _depth(data, picture), _is_lossy(data, picture)
    if picture.mode == "LA":
        picture = drop_alpha(path, picture)
    if picture.mode in _GREYS:
        runs = _Runs.of(_grey(path, picture, depth))
        return runs.scan("grey", runs.distinct, _shown(runs.distinct, depth), lossy=lossy)
    if picture.mode == "P":
        return _palette(picture)
    if picture.mode in ("RGB", "RGBA", "PA") and depth <= 8:
        pixels = np.asarray(drop_alpha(path, picture).convert("RGBA"))
        runs = _Runs.of(pixels.view("<u4")[..., 0] & 0xFFFFFF)
        return runs.scan("colour", _channel(runs.distinct), runs.distinct, lossy=lossy)
    raise DataError(
        f"{path}: pixel format {picture.mode} of {depth} bits holds no classes; save it as an "
        "8-bit PNG"
    )


class _Runs(NamedTuple):
    """Runs of equal pixels, and their N distinct values, sorted."""

    size: tuple[int, int]
    distinct: np.ndarray
    first: np.ndarray
    values: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray) -> "_Runs":
        flat = pixels.ravel()
        starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
        distinct, first, values = np.unique(flat[starts], return_index=True, return_inverse=True)
        lengths = np.diff(starts, append=flat.size)
        size = (pixels.shape[0], pixels.shape[1])
        return cls(size, distinct.astype(np.int64), starts[first], values, lengths)

    def scan(
        self,
        kind: str,
        numbers: np.ndarray | None,
        colors: np.ndarray,
        *,
        lossy: bool = False,
        transparent: int = 0,
    ) -> Scan:
        facts = MaskFacts(
            self.size,
            kind,
            None if numbers is None else numbers.astype(np.int32),
            colors.astype(np.int32),
            self.count(),
            self.first.astype(np.int32),
            lossy,
            transparent,
        )
        return Scan(facts, self.values, self.lengths)

    def count(self) -> np.ndarray:
        """Pixels of each distinct value, (N,)."""
        pixels = np.bincount(self.values, self.lengths, minlength=len(self.distinct))
        return pixels.astype(np.int32)


def _shown(numbers: np.ndarray, depth: int) -> np.ndarray:
    """The colours of grey numbers: with few bits the largest is white; beyond 8 there are two."""
    white = 2**depth - 1 if depth < 8 else 255
    colors = np.where((numbers >= 0) & (numbers <= white), numbers * (255 // white) * EVEN, -1)
    return np.where((numbers == 2**16 - 1) & (depth == 16), 255 * EVEN, colors)


def _channel(colors: np.ndarray) -> np.ndarray | None:
    """The numbers that three channels hold, if they are equal or all but red are 0.

    Full red alone is a colour that somebody painted with.
    """
    if not (colors % EVEN).any():
        return colors // EVEN
    red_alone = colors.max() <= 255 and ((colors > 0) & (colors < 255)).any()
    return colors if red_alone else None


def _palette(picture: Image.Image) -> Scan:
    runs = _Runs.of(np.asarray(picture))
    picture.apply_transparency()
    table = np.full((256, 4), -1, np.int64)
    entries = np.reshape(picture.getpalette("RGBA") or [], (-1, 4))
    table[: len(entries)] = entries
    colors = table[runs.distinct, :3] @ (1, 1 << 8, 1 << 16)
    colors = np.where(runs.distinct < len(entries), colors, -1)
    grey = np.array_equal(colors, runs.distinct * EVEN)
    clear = (table[runs.distinct, 3] < 255) & (runs.distinct < len(entries))
    return runs.scan(
        "grey" if grey else "palette",
        runs.distinct,
        colors,
        transparent=0 if grey else int(runs.count()[clear].sum()),
    )


def _pages(data: bytes, picture: Image.Image) -> int:
    """Number of pictures in a file, without the small copies that map makers put beside them."""
    frames = 1 if picture.format in JPEGS else getattr(picture, "n_frames", 1)
    if frames == 1 or picture.format != "TIFF":
        return frames
    header: Any = open_header(data, "", 0)
    copies = 0
    for frame in range(1, frames):
        header.seek(frame)
        copies += header.tag_v2.get(_SUBFILE_TYPE, 0) & _REDUCED
    return frames - copies


def _depth(data: bytes, picture: Image.Image) -> int:
    """Bits per channel as stored, which Pillow hides."""
    if picture.mode == "1":
        return 1
    if picture.format == "TIFF":
        return max(getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,)))
    return png_depth(data)


def _is_lossy(data: bytes, picture: Image.Image) -> bool:
    if picture.format == "WEBP":  # the first chunk of pixels is called VP8 or VP8L, for lossless
        chunk = re.search(rb"VP8[ L]", data)
        return chunk is not None and chunk[0] == b"VP8 "
    return picture.format in JPEGS or "jpeg" in str(picture.info.get("compression", ""))


def _grey(path: pathlib.Path, picture: Image.Image, depth: int) -> np.ndarray:
    """The numbers of a single channel; black and white of one bit are 0 and 1."""
    numbers = np.asarray(picture)
    if picture.mode == "1":
        return numbers.astype(np.uint8)
    if picture.mode == "L" and depth in (2, 4):  # Pillow stretches these to 8 bits
        return numbers // (255 // (2**depth - 1))
    if picture.mode == "F":
        whole = np.rint(numbers)
        if not np.array_equal(whole, numbers) or np.abs(whole).max() >= 2**31:
            odd = numbers[numbers != whole]
            found = f"such as {odd[0]}" if odd.size else "too large"
            raise DataError(
                f"{path}: holds floats that are no whole numbers ({found}), but the number of a "
                "class is one; save it as an 8-bit PNG"
            )
        return whole.astype(np.int64)
    return numbers
