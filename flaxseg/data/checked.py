"""Looks at every pair of a folder once: how its masks are read, and which pairs can be used."""

import collections
import concurrent.futures
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from flaxseg.data.masks import MaskFacts, Reading, choose, look_at_mask
from flaxseg.data.pairs import Pair, PairFolder
from flaxseg.data.problems import BadSample
from flaxseg.errors import DataError
from flaxseg.labels import LabelSet
from flaxseg.pictures.open import MAX_PIXELS
from flaxseg.pictures.photos import PhotoFacts, look_at_photo

_NUM_THREADS = 4
_AHEAD = 16
_FIRST_LYING = 5  # EXIF orientations from this on swap height and width

Stamp = list[int]
"""Size of a file in bytes and time of its last change in ns; nothing where there is none."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Sample:
    """A pair that can be used.

    Attributes:
        pair: its files.
        size: height and width of the example in pixels.
        pixels: number of pixels of every label value, (256,).
        plain: the photo's file is decoded as it is, without any rule.
        turned: the photo is turned as its EXIF data say, since its label map is.
        stamps: of photo and mask, by which it is seen whether they change later.
    """

    pair: Pair
    size: tuple[int, int]
    pixels: np.ndarray
    plain: bool
    turned: bool
    stamps: tuple[Stamp, Stamp]


class Checked(NamedTuple):
    """What was found in a folder.

    Attributes:
        folder: the folder.
        labels: its classes.
        reading: how label files become class ids.
        samples: the pairs of each split that can be used, in the order of their names.
        bad: the pairs of each split that cannot.
        lines: how the files were understood, for the user to read.
    """

    folder: PairFolder
    labels: LabelSet
    reading: Reading
    samples: dict[str, list[Sample]]
    bad: dict[str, list[BadSample]]
    lines: tuple[str, ...]


class _Looked(NamedTuple):
    photo: PhotoFacts
    mask: MaskFacts | None
    stamps: tuple[Stamp, Stamp]


def check_folder(
    folder: PairFolder, *, missing: int | None = None, max_pixels: int = MAX_PIXELS
) -> Checked:
    """Reads every file of a folder, and decides how its masks are to be read.

    Args:
        folder: its pairs.
        missing: class of every pixel of a photo without label map; None: it cannot be used.
        max_pixels: most pixels that a photo may have; 0 has no limit.
    """
    pairs = folder.pairs()

    def look(pair: Pair) -> _Looked:
        # The stamps first: a file that changes while it is read must not be taken for unchanged.
        stamps = stamp_of(pair.image), stamp_of(pair.label) if pair.label else []
        photo = look_at_photo(pair.image, published=folder.published, max_pixels=max_pixels).facts
        return _Looked(photo, look_at_mask(pair.label) if pair.label else None, stamps)

    shown = _tracked(_threaded(look, pairs), f"reading {folder.root.name}", len(pairs))
    looked = dict(zip(pairs, shown, strict=True))
    read = [(pair, found) for pair, found in looked.items() if isinstance(found, _Looked)]
    masks = [(str(pair.label), found.mask) for pair, found in read if found.mask is not None]
    reading = choose(masks, folder.classes)
    samples: dict[str, list[Sample]] = {}
    bad: dict[str, list[BadSample]] = {}
    for split, members in folder.splits.items():
        samples[split], bad[split] = [], []
        for pair in members:
            sample = _sample(folder, reading, pair, looked[pair], missing)
            if isinstance(sample, Sample):
                samples[split].append(sample)
            else:
                bad[split].append(sample)
    lines = (*folder.lines, *reading.lines, *_remarks(found.photo for _, found in read))
    if missing is not None and (bare := sum(pair.label is None for pair in pairs)):
        name = folder.classes.labels.classes[missing]
        lines += (f"{_photos(bare)} without mask: every pixel is {name}",)
    return Checked(folder, _labels(folder, samples), reading, samples, bad, lines)


def _sample(
    folder: PairFolder,
    reading: Reading,
    pair: Pair,
    looked: _Looked | DataError,
    missing: int | None,
) -> Sample | BadSample:
    """What a pair gives, or why it gives nothing."""
    if isinstance(looked, DataError):
        return BadSample(pair.name, str(looked))
    photo, mask, stamps = looked
    if mask is not None:
        if problem := reading.problem(str(pair.label), mask):
            return BadSample(pair.name, problem, tuple(reading.unknown(mask).items()))
        try:
            turned = _is_turned(pair, photo, mask.size)
        except DataError as error:
            return BadSample(pair.name, str(error))
        size, pixels = mask.size, reading.counts(mask)
    elif missing is not None:
        turned, size = photo.orientation > 1, _shown_size(photo)
        pixels = np.bincount([missing], [size[0] * size[1]], minlength=256).astype(np.int64)
    else:
        mend = "--missing-mask CLASS makes every pixel of it that class"
        return BadSample(pair.name, f"{pair.image}: has no mask; {mend}")
    plain = photo.plain and not turned and pair.image.stem not in folder.flawed
    return Sample(pair, size, pixels, plain, turned, stamps)


def _is_turned(pair: Pair, photo: PhotoFacts, size: tuple[int, int]) -> bool:
    """Whether a label map of this size belongs to the photo as it is shown, not as it is stored.

    Raises:
        DataError: to neither, or it may belong to both.
    """
    stored, shown = photo.size == size, _shown_size(photo) == size
    if photo.orientation > 1 and stored and shown:
        raise DataError(
            f"{pair.image}: its EXIF orientation {photo.orientation} turns or mirrors it, and its "
            "label map fits either way; save it as it is shown, without the orientation"
        )
    if not stored and not shown:
        raise DataError(
            f"{pair.label}: is {_in_words(size)}, but its image {pair.image} is "
            f"{_in_words(_shown_size(photo))} (width x height); save both at one size"
        )
    return not stored


def _shown_size(photo: PhotoFacts) -> tuple[int, int]:
    """Height and width as a viewer shows it."""
    height, width = photo.size
    return (width, height) if photo.orientation >= _FIRST_LYING else (height, width)


def _in_words(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def _labels(folder: PairFolder, samples: Mapping[str, list[Sample]]) -> LabelSet:
    """The classes, without those at their end that a data set may have and no mask shows."""
    labels, fewer = folder.classes.labels, folder.narrower
    if fewer is None or any(
        s.pixels[fewer.num_classes : labels.num_classes].any() for m in samples.values() for s in m
    ):
        return labels
    return fewer


def _remarks(photos: Iterable[PhotoFacts]) -> list[str]:
    """What was done to photos that are no plain colour pictures, each thing once."""
    counts = collections.Counter(remark for photo in photos for remark in photo.remarks)
    return [f"{_photos(count)}: {text}" for text, count in counts.items()]


def _photos(count: int) -> str:
    return f"{count} photo" if count == 1 else f"{count} photos"


def _threaded(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result | DataError]:
    """Results, or the error that was raised, in order; a few items are in work at a time."""

    def attempt(item: Item) -> Result | DataError:
        try:
            return function(item)
        except DataError as error:
            return error

    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
        for item in items:
            waiting.append(pool.submit(attempt, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _tracked(items: Iterable[Item], title: str, total: int) -> Iterable[Item]:
    """Shows a bar where somebody watches."""
    console = Console(stderr=True)
    return track(
        items, title, total=total, console=console, transient=True, disable=not sys.stderr.isatty()
    )


def stamp_of(path: pathlib.Path) -> Stamp:
    """The stamp of a file."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
