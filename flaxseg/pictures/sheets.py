"""Many photos with what they show, as one picture."""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from flaxseg.errors import DataError
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.pictures.legend import INK, PAPER, entries, legend, stack
from flaxseg.pictures.overlay import IGNORED_COLOR, check_pair, checked_label, colorize, overlay
from flaxseg.pictures.text import Line, caption_line

_FONT = 16
_GAP, _LINE = _FONT // 2, round(1.5 * _FONT)
_MIN_TILE, _MAX_TILE = 160, 480  # longest side of the largest picture of a contact sheet
_EXAMPLE = 240  # longest side of every picture of an example sheet
_BATCHED = 256  # most pixels of a side of a batch sheet's pictures
_ALPHA = 0.65
_PERIOD = 8  # pixels from one line of a hatching to the next
_WIDE = 0.75  # examples per row of a square number of examples


@dataclasses.dataclass(frozen=True)
class _Cell:
    """Pictures beside each other, (H, W, 3) uint8 of one height, and the line above them."""

    pictures: list[np.ndarray]
    caption: str


def contact_sheet(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    labels: LabelSet,
    *,
    captions: Sequence[str] | None = None,
) -> np.ndarray:
    """Photos, what they show and what was predicted, one row each, with a legend below.

    Small pictures are enlarged pixel by pixel and large ones reduced, so that titles can be read
    beside them. Pixels without truth are hatched.

    Args:
        images: N photos, (H, W, 3) uint8.
        truths: N label maps, (H, W), `IGNORE` where unknown.
        predictions: N label maps, (H, W).
        labels: names and colours of the classes.
        captions: N texts written above the rows, such as file names.

    Returns:
        (H', W', 3) uint8.

    Raises:
        DataError: the lists differ in length or are empty, or a label map does not fit its photo.
    """
    _check_counts([images, truths, predictions, *([] if captions is None else [captions])])
    side = max(max(np.shape(image)[:2]) for image in images)
    scale = -(-_MIN_TILE // side) if side < _MIN_TILE else min(1.0, _MAX_TILE / side)
    cells = []
    for i, (image, truth, prediction) in enumerate(zip(images, truths, predictions, strict=True)):
        check_pair(image, truth)
        check_pair(image, prediction)
        known, guessed = (_scaled_label(label, labels, scale) for label in (truth, prediction))
        painted = [colorize(label, labels.palette) for label in (known, guessed)]
        pictures = [_scaled(image, scale), _hatched(painted[0], known == IGNORE), painted[1]]
        cells.append(_Cell(pictures, captions[i] if captions else ""))
    grid = _grid(cells, columns=1, titles=("photo", "truth", "prediction"))
    return _explained(grid, truths, labels, predictions)


def example_sheet(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    labels: LabelSet,
    *,
    captions: Sequence[str],
) -> np.ndarray:
    """Photos, each beside its overlay and below its name, with the classes that occur below.

    Pixels without truth are hatched.

    Args:
        images: N photos, (H, W, 3) uint8.
        truths: N label maps, (H, W), `IGNORE` where unknown.
        labels: names and colours of the classes.
        captions: N texts, such as file names.

    Returns:
        (H', W', 3) uint8.

    Raises:
        DataError: the lists differ in length or are empty, or a label map does not fit its photo.
    """
    _check_counts([images, truths, captions])
    cells = []
    for image, truth, caption in zip(images, truths, captions, strict=True):
        cells.append(_overlaid(image, truth, labels, _EXAMPLE / max(image.shape[:2]), caption))
    return _explained(_square(cells), truths, labels)


def batch_sheet(
    images: np.ndarray,
    truths: np.ndarray,
    labels: LabelSet,
    *,
    captions: Sequence[str],
    title: str,
) -> np.ndarray:
    """The pictures of a batch, each beside its overlay, as an `example_sheet` but pixel by pixel.

    Small pictures are enlarged by whole numbers, so that every pixel of them can be seen.

    Args:
        images: N photos, (N, H, W, 3) uint8.
        truths: N label maps, (N, H, W), `IGNORE` where unknown.
        labels: names and colours of the classes.
        captions: N texts, such as file names.
        title: a line above all.

    Returns:
        (H', W', 3) uint8.

    Raises:
        DataError: the lists differ in length or are empty, or a label map does not fit its photo.
    """
    _check_counts([images, truths, captions])
    side = max(images.shape[1:3])
    scale = _BATCHED // side if side <= _BATCHED else _BATCHED / side
    trios = zip(images, truths, captions, strict=True)
    cells = [_overlaid(image, truth, labels, scale, caption) for image, truth, caption in trios]
    heading = caption_line(title)
    line = _strip([heading], 0, heading.width(_FONT) + _GAP)
    return stack([line, _explained(_square(cells), truths, labels)])


def _check_counts(lists: Sequence[Sequence | np.ndarray]) -> None:
    counts = list(map(len, lists))
    if len(set(counts)) > 1 or not counts[0]:
        raise DataError(f"a contact sheet needs as many photos as label maps, found {counts}")


def _scaled(picture: np.ndarray, scale: float, reduction: int = cv2.INTER_AREA) -> np.ndarray:
    """A picture at another scale; `reduction` is cv2's way to make it smaller."""
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    how = cv2.INTER_NEAREST if scale > 1 else reduction
    return cv2.resize(picture, (width, height), interpolation=how)


def _scaled_label(label: np.ndarray, labels: LabelSet, scale: float) -> np.ndarray:
    ids = checked_label(label, labels.num_classes).astype(np.uint8)
    return _scaled(ids, scale, cv2.INTER_NEAREST)


def _overlaid(
    image: np.ndarray, truth: np.ndarray, labels: LabelSet, scale: float, caption: str
) -> _Cell:
    """A photo and, over it, what it shows."""
    check_pair(image, truth)
    photo, label = _scaled(image, scale), _scaled_label(truth, labels, scale)
    return _Cell([photo, _hatched(overlay(photo, label, labels, _ALPHA), label == IGNORE)], caption)


def _hatched(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A picture with slanting lines, black and white: a class may have either colour."""
    y, x = np.indices(where.shape)
    phase = (x + y) % _PERIOD
    picture = np.where((where & (phase < _PERIOD // 4))[..., None], IGNORED_COLOR, picture)
    between = where & (phase >= _PERIOD // 4) & (phase < _PERIOD // 2)
    return np.where(between[..., None], PAPER, picture).astype(np.uint8)


def _explained(
    grid: np.ndarray,
    truths: Sequence[np.ndarray] | np.ndarray,
    labels: LabelSet,
    predictions: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """A sheet with the classes that occur in it below."""
    named = entries([*truths, *predictions], labels)
    if any((np.asarray(truth) == IGNORE).any() for truth in truths):
        paper = np.full((_PERIOD, _PERIOD, 3), PAPER, np.uint8)
        named.append((caption_line("ignored"), _hatched(paper, np.ones(paper.shape[:2], bool))))
    return stack([grid, legend(named, grid.shape[1], _FONT)] if named else [grid])


def _square(cells: Sequence[_Cell]) -> np.ndarray:
    """Pairs of pictures in about as many rows as fill a square."""
    return _grid(cells, columns=max(1, round(math.sqrt(_WIDE * len(cells)))))


def _grid(cells: Sequence[_Cell], columns: int, titles: Sequence[str] = ()) -> np.ndarray:
    """Cells in rows of `columns`, each as wide as the widest needs."""
    heads = [caption_line(title) for title in titles]
    captions = [caption_line(cell.caption) for cell in cells]
    tile = _GAP + max(picture.shape[1] for cell in cells for picture in cell.pictures)
    tile = max([tile, *(_GAP + head.width(_FONT) for head in heads)])
    width = len(cells[0].pictures) * tile
    width = max([width, *(_GAP + caption.width(_FONT) for caption in captions)])
    parts = [_strip(heads, tile, columns * width)] if heads else []
    for start in range(0, len(cells), columns):
        beside = slice(start, start + columns)
        if any(caption.text for caption in captions[beside]):
            parts.append(_strip(captions[beside], width, columns * width))
        parts.append(_pictures(cells[beside], tile, width, columns * width))
    return stack(parts)


def _pictures(cells: Sequence[_Cell], tile: int, step: int, width: int) -> np.ndarray:
    """The pictures of cells every `step` pixels, within a cell every `tile`."""
    height = max(cell.pictures[0].shape[0] for cell in cells)
    row = np.full((height + _GAP, _GAP + width, 3), PAPER, np.uint8)
    for i, cell in enumerate(cells):
        for j, picture in enumerate(cell.pictures):
            left = _GAP + i * step + j * tile
            row[: picture.shape[0], left : left + picture.shape[1]] = picture
    return row


def _strip(lines: Sequence[Line], step: int, width: int) -> np.ndarray:
    """Texts beside each other, every `step` pixels."""
    picture = Image.new("RGB", (_GAP + width, _LINE), PAPER)
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        line.draw(draw, _GAP + i * step, _LINE // 2, _FONT, INK)
    return np.asarray(picture)
