"""Writes a paired folder as ArrayRecord files with TFDS, reading every file once.

TFDS encodes no arrays without TensorFlow: its features get the bytes of encoded pictures.
"""

import collections
import concurrent.futures
import contextlib
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import track

from flaxseg.data.files import read_pair
from flaxseg.data.pairs import Pair, PairFolder
from flaxseg.data.problems import BadSample, RangeError
from flaxseg.errors import DataError

VERSION = "2.0.0"
FEATURES = ("image", "label")

_NUM_THREADS = 4
_AHEAD = 16

Item = TypeVar("Item")
Result = TypeVar("Result")

# Without a filter a label map decodes three times as fast as with OpenCV's default, and is smaller.
_LABEL_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


class Count(NamedTuple):
    """What one label map holds.

    Attributes:
        size: height and width of the picture.
        pixels: number of pixels of every label value, (256,).
    """

    size: tuple[int, int]
    pixels: np.ndarray


class SegmentationPairs(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of any paired folder; pairs that cannot be used are left out and listed.

    Features: name (image file below the folder), image (encoded RGB), label (PNG of class ids, 255
    where unlabelled).

    Attributes:
        counts: what the label map of each name in each split holds.
        bad: the pairs that were left out, by split.
    """

    VERSION = tfds.core.Version(VERSION)
    # TFDS would look for download checksums beside this file, and needs a package that it does not
    # declare (importlib_resources) to find the file.
    code_path = None

    def __init__(self, folder: PairFolder, target: pathlib.Path):
        """Takes the folder to read and the one to write to."""
        self.folder = folder
        self.counts: dict[str, dict[str, Count]] = {}
        self.bad: dict[str, list[BadSample]] = {}
        super().__init__(data_dir=os.fspath(target), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "name": tfds.features.Text(),
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.Image(shape=(None, None, 1)),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in self.folder.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for pair, read in self.read(split):
            _, label = cv2.imencode(".png", read.label, _LABEL_PNG)
            record = {"name": pair.name, "image": read.image, "label": label.tobytes()}
            yield pair.name, record
        if not self.counts[split]:
            raise _NothingLeft(split)

    def read(self, split: str) -> Iterator[tuple[Pair, "_Read"]]:
        """Reads the pairs of a split; fills `counts` and `bad`."""
        counts = self.counts[split] = {}
        bad = self.bad[split] = []
        pairs = self.folder.splits[split]
        shown = _tracked(_threaded(self._read, pairs), f"reading {split}", len(pairs))
        for pair, outcome in zip(pairs, shown, strict=True):
            if isinstance(outcome, DataError):
                values = outcome.values if isinstance(outcome, RangeError) else {}
                bad.append(BadSample(pair.name, str(outcome), tuple(values.items())))
                continue
            size = outcome.label.shape
            pixels = np.bincount(outcome.label.ravel(), minlength=256)
            counts[pair.name] = Count((size[0], size[1]), pixels)
            yield pair, outcome

    def _read(self, pair: Pair) -> "_Read":
        data, _, label = read_pair(
            pair.image,
            pair.label,
            self.folder.coding,
            published=self.folder.published,
            recode=pair.image.stem in self.folder.flawed,
        )
        return _Read(data, label)


class _Read(NamedTuple):
    image: bytes
    label: np.ndarray


class _NothingLeft(Exception):
    """No pair of a split can be used: TFDS writes no empty split."""


def write_records(folder: PairFolder, target: pathlib.Path) -> SegmentationPairs:
    """Writes a folder's records, all splits.

    Args:
        folder: what to read.
        target: the folder to write to.

    Returns:
        The builder with what it has counted and left out. If no pair of a split can be used, the
        records are incomplete, but all files have been read.
    """
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints what it is about to do
        builder = SegmentationPairs(folder, target)
        try:
            builder.download_and_prepare(download_dir=os.fspath(target / "downloads"))
        except _NothingLeft:
            for split in folder.splits:
                if split not in builder.bad:
                    collections.deque(builder.read(split), maxlen=0)
    shutil.rmtree(target / "downloads", ignore_errors=True)
    return builder


def open_records(directory: pathlib.Path, split: str) -> Any:
    """The records of a split, in the order that TFDS's shuffling gave them, pictures encoded."""
    folder = directory / SegmentationPairs.name / VERSION
    builder: Any = tfds.builder_from_directory(os.fspath(folder))
    skip = {feature: tfds.decode.SkipDecoding() for feature in FEATURES}
    return builder.as_data_source(split, decoders=skip)


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
