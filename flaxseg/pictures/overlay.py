"""Label maps as pictures: colours, overlays, legends and contact sheets."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flaxseg.errors import ConfigError, DataError
from flaxseg.labels import IGNORE, Color, LabelSet

_PAPER = (255, 255, 255)
_INK = (24, 24, 24)
_FRAME = (128, 128, 128)
_IGNORED_COLOR = (0, 0, 0)

_MIN_FONT, _MAX_FONT = 13, 96
_MIN_TILE, _MAX_TILE = 160, 480


def colorize(label: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Paints every pixel in the colour of its class, ignored ones black.

    Args:
        label: (H, W) class ids, `IGNORE` where unknown.
        palette: one RGB colour per class, 0 to 255.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the label map is not (H, W) whole numbers, or an id has no colour.
    """
    ids = _checked_label(label, len(palette))
    table = np.full((IGNORE + 1, 3), _IGNORED_COLOR, np.uint8)
    table[: len(palette)] = palette
    return table[ids]


def overlay(
    image: np.ndarray, label: np.ndarray, labels: LabelSet, alpha: float = 0.5
) -> np.ndarray:
    """Blends the colours of the classes into a photo; ignored pixels keep the photo.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) class ids, `IGNORE` where unknown.
        labels: colours of the classes.
        alpha: share of the colour, 0 (the photo alone) to 1 (the colour alone).

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: photo and label map differ in size, or an id is no class.
        ConfigError: `alpha` is outside 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha}, it must be from 0 to 1")
    _check_pair(image, label)
    colors = colorize(label, labels.palette)
    blend = cv2.addWeighted(image, 1 - alpha, colors, alpha, 0)
    return np.where((label == IGNORE)[..., None], image, blend)


def stretched(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 at another height and width, such as those of its label map."""
    return image if image.shape[:2] == size else cv2.resize(image, size[::-1])


def with_legend(picture: np.ndarray, label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """A picture, pixel for pixel, with the names and colours of the classes that occur below it.

    Args:
        picture: (H, W, 3) uint8, such as `overlay` gives.
        label: class ids of any shape; the classes that occur in it are named.
        labels: names and colours of the classes.

    Returns:
        (H', W', 3) uint8 with the picture in its upper left corner. It is wider than the picture
        only where a class name would not fit.
    """
    entries = _entries([label], labels)
    if not entries:
        return picture
    height, width = picture.shape[:2]
    return _stack([picture, np.asarray(_legend(entries, width, _font_size(height, width)))])


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
    counts = [len(images), len(truths), len(predictions)]
    counts += [] if captions is None else [len(captions)]
    if len(set(counts)) > 1 or not counts[0]:
        raise DataError(f"a contact sheet needs as many photos as label maps, found {counts}")
    sizes = [np.shape(image)[:2] for image in images]
    style = _SheetStyle.of(max(max(size) for size in sizes))
    rows = []
    for image, truth, prediction in zip(images, truths, predictions, strict=True):
        _check_pair(image, truth)
        _check_pair(image, prediction)
        rows.append(
            [
                style.resized(image, cv2.INTER_AREA),
                _hatched(style.resized(truth, cv2.INTER_NEAREST), labels),
                colorize(style.resized(prediction, cv2.INTER_NEAREST), labels.palette),
            ]
        )
    entries = _entries([*truths, *predictions], labels)
    if any((np.asarray(truth) == IGNORE).any() for truth in truths):
        entries.append(("ignored", _IGNORED_COLOR))
    return _draw_sheet(rows, entries, captions or [""] * len(rows), style)


def _checked_label(label: np.ndarray, num_classes: int) -> np.ndarray:
    label = np.asarray(label)
    if label.ndim != 2 or label.dtype.kind not in "iu":
        raise DataError(f"a label map is (H, W) whole numbers, found {label.shape} {label.dtype}")
    wrong = ((label < 0) | (label >= num_classes)) & (label != IGNORE)
    if wrong.any():
        raise DataError(
            f"label {label[wrong][0]} is outside 0 to {num_classes - 1} and is not {IGNORE} "
            "(ignored)"
        )
    return label


def _check_pair(image: np.ndarray, label: np.ndarray) -> None:
    if np.ndim(image) != 3 or np.shape(image)[:2] != np.shape(label):
        raise DataError(
            f"photo {np.shape(image)} and label map {np.shape(label)} do not fit: they must be "
            "(H, W, 3) and (H, W)"
        )


def _entries(maps: Iterable[np.ndarray], labels: LabelSet) -> list[tuple[str, Color]]:
    """Name and colour of every class that occurs, in class order."""
    found = {int(i) for label in maps for i in np.unique(label)} - {IGNORE}
    return [(labels.classes[i], labels.palette[i]) for i in sorted(found)]


def _font_size(height: int, width: int) -> int:
    """Readable when the picture is shown at its own size, and when it is shrunk to a screen."""
    return min(max(round(math.sqrt(height * width) / 40), _MIN_FONT), _MAX_FONT)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text_width(text: str, size: int) -> int:
    return math.ceil(_font(size).getlength(text))


def _legend(entries: list[tuple[str, Color]], width: int, size: int) -> Image.Image:
    """Swatches with names in columns, at least `width` wide; `size` of the font in pixels."""
    gap = size // 2
    cell = max(_text_width(name, size) for name, _ in entries) + size + 3 * gap
    columns = min(max((width - gap) // cell, 1), len(entries))
    rows, row_height = -(-len(entries) // columns), round(1.6 * size)
    strip = Image.new("RGB", (max(width, cell + gap), rows * row_height + gap), _PAPER)
    draw = ImageDraw.Draw(strip)
    for i, (name, color) in enumerate(entries):
        left, top = gap + i % columns * cell, gap // 2 + i // columns * row_height
        middle = top + row_height // 2
        box = (left, middle - size // 2, left + size, middle + size // 2)
        draw.rectangle(box, fill=color, outline=_FRAME)
        draw.text((left + size + gap, middle), name, _INK, _font(size), anchor="lm")
    return strip


def _hatched(label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """`colorize`, with ignored pixels striped: a class may be black as well."""
    picture = colorize(label, labels.palette)
    y, x = np.indices(label.shape)
    picture[(label == IGNORE) & ((x + y) % 8 < 2)] = _FRAME
    return picture


def _stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below each other, filled up at the right to the widest."""
    width = max(part.shape[1] for part in parts)
    sheet = np.full((sum(part.shape[0] for part in parts), width, 3), _PAPER, np.uint8)
    top = 0
    for part in parts:
        sheet[top : top + part.shape[0], : part.shape[1]] = part
        top += part.shape[0]
    return sheet


@dataclasses.dataclass(frozen=True)
class _SheetStyle:
    """Scale of the pictures on a contact sheet and its font size in pixels."""

    scale: float
    font: int = 16

    @classmethod
    def of(cls, side: int) -> "_SheetStyle":
        """The scale that brings the longest side of all pictures between the two limits."""
        if side < _MIN_TILE:
            return cls(-(-_MIN_TILE // side))
        return cls(min(1.0, _MAX_TILE / side))

    def resized(self, picture: np.ndarray, reduction: int) -> np.ndarray:
        """A photo or label map at this scale; `reduction` is cv2's way to make it smaller."""
        if self.scale >= 1:
            factor = int(self.scale)
            return picture.repeat(factor, axis=0).repeat(factor, axis=1)
        height, width = (max(1, round(side * self.scale)) for side in picture.shape[:2])
        return cv2.resize(picture, (width, height), interpolation=reduction)


def _draw_sheet(
    rows: list[list[np.ndarray]],
    entries: list[tuple[str, Color]],
    captions: Sequence[str],
    style: _SheetStyle,
) -> np.ndarray:
    titles, gap, line = ("photo", "truth", "prediction"), style.font // 2, round(1.5 * style.font)
    widest = max(tile.shape[1] for row in rows for tile in row)
    column = max(widest, *(_text_width(title, style.font) for title in titles)) + gap
    width = max(3 * column, *(_text_width(text, style.font) for text in captions)) + gap
    lefts = [gap + i * column for i in range(3)]

    def strip(texts: Iterable[tuple[int, str]]) -> np.ndarray:
        picture = Image.new("RGB", (width, line), _PAPER)
        draw = ImageDraw.Draw(picture)
        for left, text in texts:
            draw.text((left, line // 2), text, _INK, _font(style.font), anchor="lm")
        return np.asarray(picture)

    parts = [strip(zip(lefts, titles, strict=True))]
    for tiles, caption in zip(rows, captions, strict=True):
        parts += [strip([(gap, caption)])] if caption else []
        row = np.full((tiles[0].shape[0] + gap, width, 3), _PAPER, np.uint8)
        for left, tile in zip(lefts, tiles, strict=True):
            row[: tile.shape[0], left : left + tile.shape[1]] = tile
        parts.append(row)
    return _stack([*parts, np.asarray(_legend(entries, width, style.font))])
