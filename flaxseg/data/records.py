"""Checked pairs as ArrayRecord files, written and read with TFDS: for archives.

TFDS encodes no arrays without TensorFlow: its features get the bytes of encoded pictures.
"""

import contextlib
import io
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from flaxseg.data.checked import Checked, Sample
from flaxseg.data.in_place import Files, describe, place_of
from flaxseg.data.source import Example
from flaxseg.pictures.photos import encode_png

VERSION = "2.0.0"
FEATURES = ("image", "label")

# Without a filter a label map decodes three times as fast as with OpenCV's default, and is smaller.
_LABEL_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


class SegmentationPairs(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of any checked folder.

    Features: name (image file below the folder), image (encoded RGB), label (PNG of class ids, 255
    where unlabelled).
    """

    VERSION = tfds.core.Version(VERSION)
    # TFDS would look for download checksums beside this file, and needs a package that it does not
    # declare (importlib_resources) to find the file.
    code_path = None

    def __init__(self, checked: Checked, missing: int | None, target: pathlib.Path):
        """Takes what to write, the class of photos without label map, and the place."""
        self._checked, self._values = checked, describe(checked, missing)
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
        return {split: self._generate_examples(split) for split in self._checked.samples}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        samples = self._checked.samples[split]
        files = Files(self._values, [place_of(s, self._checked.folder.root) for s in samples])
        for index, sample in enumerate(samples):
            image, label = files[index]
            _, png = cv2.imencode(".png", label, _LABEL_PNG)
            record = {"name": sample.pair.name, "image": _encoded(sample, image)}
            yield sample.pair.name, record | {"label": png.tobytes()}


def _encoded(sample: Sample, image: np.ndarray) -> bytes:
    """The photo's own file where it is plain, or else a PNG."""
    return sample.pair.image.read_bytes() if sample.plain else encode_png(Image.fromarray(image))


def write_records(checked: Checked, missing: int | None, target: pathlib.Path) -> dict[str, list]:
    """Writes a folder's records, all splits.

    Args:
        checked: what to write.
        missing: class of every pixel of a photo without label map.
        target: the folder to write to.

    Returns:
        For each split the positions of its samples among its records, which TFDS shuffles.
    """
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints what it is about to do
        builder = SegmentationPairs(checked, missing, target)
        builder.download_and_prepare(download_dir=os.fspath(target / "downloads"))
    shutil.rmtree(target / "downloads", ignore_errors=True)
    return {split: _positions(target, split, samples) for split, samples in checked.samples.items()}


def _positions(target: pathlib.Path, split: str, samples: list[Sample]) -> list[int]:
    names = [record["name"].decode() for record in _open_records(target, split)]
    position = {name: place for place, name in enumerate(names)}
    return [position[sample.pair.name] for sample in samples]


class Records:
    """Examples of one split by position."""

    def __init__(self, directory: pathlib.Path, split: str, positions: list[int]):
        """Opens what `write_records` wrote."""
        self._records, self._positions = _open_records(directory, split), positions
        if len(self._records) != len(positions):
            raise ValueError(f"{len(self._records)} records, not {len(positions)}")

    def __getitem__(self, index: int) -> Example:
        record = self._records[self._positions[index]]
        image = _decode(record["image"], cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        return Example(image, _decode(record["label"], cv2.IMREAD_GRAYSCALE))


def _open_records(directory: pathlib.Path, split: str) -> Any:
    """The records of a split, in the order that TFDS's shuffling gave them, pictures encoded."""
    folder = directory / SegmentationPairs.name / VERSION
    builder: Any = tfds.builder_from_directory(os.fspath(folder))
    skip = {feature: tfds.decode.SkipDecoding() for feature in FEATURES}
    return builder.as_data_source(split, decoders=skip)


def _decode(data: bytes, flags: int) -> np.ndarray:
    array = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if array is None:
        raise ValueError("a record holds no picture")
    return array
