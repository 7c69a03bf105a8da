"""Tiny data folders in every layout that CamVid comes in."""

import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from flaxseg.data.camvid import FULL_LABELS
from flaxseg.data.source import Example
from flaxseg.labels import LabelSet


def _save(path: pathlib.Path, array: np.ndarray) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path)
    return path


def _picture(rng: np.random.Generator, height=6, width=8) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def save():
    """Writes an array as an image file, folders included, and returns its path."""
    return _save


@pytest.fixture
def segnet_dir(tmp_path, rng):
    """Five training and two validation pairs; images are PNG and JPEG; one name has spaces."""
    root = tmp_path / "segnet"
    for split, names in {"train": ("a", "b b", "c", "d", "e"), "val": ("v", "w")}.items():
        for position, name in enumerate(names):
            suffix = ".jpg" if position == 1 else ".png"
            _save(root / split / f"{name}{suffix}", _picture(rng))
            ids = rng.integers(0, 12, (6, 8), np.uint8)
            _save(root / f"{split}annot" / f"{name}.png", ids)
    return root


@pytest.fixture
def original_dir(tmp_path, rng):
    """Ten pairs in colour under the original's folder names, without any list."""
    root = tmp_path / "original"
    palette = np.array(FULL_LABELS.palette, np.uint8)
    for position in range(10):
        _save(root / "701_StillsRaw_full" / f"frame_{position}.png", _picture(rng))
        colors = palette[rng.integers(0, 32, (6, 8))]
        _save(root / "LabeledApproved_full" / f"frame_{position}_L.png", colors)
    return root


@pytest.fixture
def tutorial_dir(tmp_path, rng):
    """Three training and two validation pairs, the ids in the first channel of RGB masks."""
    root = tmp_path / "tutorial"
    for split, count in {"train": 3, "valid": 2}.items():
        for position in range(count):
            _save(root / f"{split}_images" / f"{position}.png", _picture(rng))
            ids = rng.integers(0, 32, (6, 8), np.uint8)
            _save(root / f"{split}_labels" / f"{position}.png", np.dstack((ids, ids, ids)))
    return root


class ArraySource:
    """Examples held in memory."""

    def __init__(self, examples: list[Example], num_classes: int = 256 - 1):
        self.labels = LabelSet.generic(num_classes)
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]

    def name(self, index):
        return f"images/{index}.png"


@pytest.fixture
def array_source():
    """Makes a source of the given examples."""
    return ArraySource


@pytest.fixture
def numbered(array_source):
    """Makes a source whose example i is filled with the value i; sizes may be given."""

    def make(count, sizes=((4, 5),)):
        examples = []
        for i in range(count):
            size = sizes[i % len(sizes)]
            image = np.full((*size, 3), i, np.uint8)
            examples.append(Example(image, np.full(size, i, np.uint8)))
        return array_source(examples)

    return make


@pytest.fixture
def pack():
    """Packs a folder, as tar or zip by the name of the archive, and returns the archive."""

    def make(folder: pathlib.Path, archive: pathlib.Path) -> pathlib.Path:
        archive.parent.mkdir(parents=True, exist_ok=True)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive, "w") as opened:
                for path in files:
                    opened.write(path, path.relative_to(folder))
        else:
            with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as opened:
                for path in files:
                    opened.add(path, path.relative_to(folder))
        return archive

    return make


@pytest.fixture
def cache(tmp_path):
    """Where prepared data goes."""
    return tmp_path / "cache"


@pytest.fixture
def plain_dir(tmp_path, rng):
    """Ten pairs below images/ and masks/ with two named classes."""
    root = tmp_path / "plain"
    for position in range(10):
        _save(root / "images" / f"p{position}.png", _picture(rng))
        _save(root / "masks" / f"p{position}.png", rng.integers(0, 2, (6, 8), np.uint8))
    (root / "classes.txt").write_text("ground\nsky\n")
    return root
