"""CamVid: road scenes of the Cambridge-driving Labeled Video Database, read with TFDS.

Brostow, Fauqueur, Cipolla: Semantic object classes in video (2009),
http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/. The three layouts that people have, and
how their splits come about, are described in `flaxseg.data.camvid_folder`.

A folder is checked and prepared once, as ArrayRecord files in a cache directory; TensorFlow is not
needed for it. The data folder itself is never written to.
"""

import contextlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from flaxseg.data.cache import cache_root, fingerprint, prepare_once
from flaxseg.data.camvid_folder import CamVidFolder, find_folder
from flaxseg.data.files import read_training_image
from flaxseg.data.source import Example
from flaxseg.errors import DataError
from flaxseg.labels import LabelSet

VERSION = "1.0.0"
_INDEX = "index.json"
_ENCODED = ("image", "label")


class CamVid(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the folder that is given as `manual_dir`.

    Features: name (image file below the folder), image (encoded RGB), label (PNG of class ids, 255
    where unlabelled).
    """

    VERSION = tfds.core.Version(VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder with CamVid in one of the layouts flaxseg knows."
    # TFDS would look for download checksums beside this file, and needs a package that it does not
    # declare (importlib_resources) to find the file.
    code_path = None

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
        self.folder = find_folder(dl_manager.manual_dir).check()
        return {split: self._generate_examples(split) for split in self.folder.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for pair in self.folder.splits[split]:
            image, _ = read_training_image(pair.image)
            _, label = cv2.imencode(".png", self.folder.coding.read(pair.label))
            yield pair.name, {"name": pair.name, "image": image, "label": label.tobytes()}


class CamVidSource:
    """One split of a prepared CamVid folder, in the order of the file names."""

    def __init__(self, directory: pathlib.Path, split: str):
        """Opens what `prepare_camvid` wrote.

        Args:
            directory: the prepared data.
            split: "train", "val" or, if the folder has one, "test".

        Raises:
            DataError: unknown split, or damaged cache.
        """
        self._directory = directory
        with self._explain_damage():
            index = json.loads((directory / _INDEX).read_text())
            self.labels = LabelSet.from_json(index["labels"])
            splits = index["splits"]
        if split not in splits:
            raise DataError(f"camvid has no split {split!r} here: use one of {', '.join(splits)}")
        self._names: list[str] = splits[split]["names"]
        self._positions: list[int] = splits[split]["positions"]
        with self._explain_damage():
            self._records = _open_records(directory, split)
            if len(self._records) != len(self._names):
                raise ValueError(f"{len(self._records)} records, not {len(self._names)}")

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The image file below the data folder, such as "train/0001TP_006690.png"."""
        return self._names[index]

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"the split has {len(self)} images, index {index} is out of range")
        with self._explain_damage():
            record = self._records[self._positions[index]]
            image = _decode(record["image"], cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
            return Example(image, _decode(record["label"], cv2.IMREAD_GRAYSCALE))

    @contextlib.contextmanager
    def _explain_damage(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # what damaged files raise differs from library to library
            raise DataError(
                f"{self._directory}: the prepared data is damaged ({error}); remove this folder, "
                "the next run prepares it again"
            ) from error


def open_camvid(
    data_dir: str | os.PathLike, split: str, *, cache_dir: str | os.PathLike | None = None
) -> CamVidSource:
    """Opens a split of a CamVid folder, preparing the folder first if that is due."""
    return CamVidSource(prepare_camvid(data_dir, cache_dir=cache_dir), split)


def prepare_camvid(
    data_dir: str | os.PathLike, *, cache_dir: str | os.PathLike | None = None
) -> pathlib.Path:
    """Checks a CamVid folder and writes its ArrayRecord files, unless that has been done.

    Args:
        data_dir: the folder; only read.
        cache_dir: where prepared data lies, by default $FLAXSEG_CACHE or ~/.cache/flaxseg. The data
            set is found there again as long as no source file changes in name, size or time.

    Returns:
        The prepared directory.

    Raises:
        DataError: the folder has no known layout, or its files do not fit.
    """
    folder = find_folder(pathlib.Path(data_dir))
    key = fingerprint(folder.root, folder.files(), f"{VERSION} {folder.layout}")
    directory = cache_root(cache_dir) / "camvid" / f"{folder.layout}-{key}"
    return prepare_once(directory, lambda target: _prepare(folder, target))


def _prepare(folder: CamVidFolder, target: pathlib.Path) -> None:
    config = tfds.download.DownloadConfig(manual_dir=os.fspath(folder.root))
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints what it is about to do
        builder = CamVid(data_dir=os.fspath(target), file_format="array_record")
        builder.download_and_prepare(
            download_dir=os.fspath(target / "downloads"), download_config=config
        )
    shutil.rmtree(target / "downloads", ignore_errors=True)
    splits = {split: _order(target, split) for split in builder.folder.splits}
    index = {"labels": builder.folder.labels.to_json(), "splits": splits}
    (target / _INDEX).write_text(json.dumps(index))


def _order(directory: pathlib.Path, split: str) -> dict[str, list]:
    """The names of a split, sorted, and where TFDS's shuffling put their records."""
    names = [record["name"].decode() for record in _open_records(directory, split)]
    positions = sorted(range(len(names)), key=names.__getitem__)
    return {"names": [names[position] for position in positions], "positions": positions}


def _open_records(directory: pathlib.Path, split: str) -> Any:
    builder: Any = tfds.builder_from_directory(os.fspath(directory / CamVid.name / VERSION))
    skip = {feature: tfds.decode.SkipDecoding() for feature in _ENCODED}
    return builder.as_data_source(split, decoders=skip)


def _decode(data: bytes, flags: int) -> np.ndarray:
    array = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if array is None:
        raise ValueError("a record holds no picture")
    return array
