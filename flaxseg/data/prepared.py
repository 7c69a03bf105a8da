"""Data sets of files: found, downloaded or unpacked, checked and prepared once, then read by index.

A data set is checked and written as ArrayRecord files in a cache directory, with what its label
maps hold; TensorFlow is not needed for it. The data folder itself is never written to.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import cv2
import numpy as np

from flaxseg.data.archives import Archive, find_archives, unpack
from flaxseg.data.builder import VERSION, SegmentationPairs, open_records, write_records
from flaxseg.data.cache import cache_root, fingerprint, prepare_once
from flaxseg.data.dataset import FileDataset
from flaxseg.data.download import download
from flaxseg.data.pairs import PairFolder, inside
from flaxseg.data.problems import BadSample, raise_problems
from flaxseg.data.source import Example
from flaxseg.data.statistics import Statistics
from flaxseg.errors import DataError
from flaxseg.labels import LabelSet

OnBad = Literal["error", "skip"]
"""What becomes of image and label pairs that cannot be used."""

_INDEX, _COUNTS = "index.json", "counts.npz"
_EXTRACTED = "extracted"
_HINT = " (--on-bad-sample skip leaves them out)"

PathLike = str | os.PathLike


def prepared_splits(directory: pathlib.Path) -> list[str]:
    """The splits that `prepare` wrote, without aliases."""
    return list(_read_index(directory)["splits"])


class PreparedSource:
    """One split of prepared data, in the order of the file names."""

    def __init__(self, directory: pathlib.Path, split: str):
        """Opens what `prepare` wrote.

        Args:
            directory: the prepared data.
            split: "train", "val" or, if the data set has one, "test".

        Raises:
            DataError: unknown split, or damaged cache.
        """
        self._directory = directory
        with self._explain_damage():
            index = _read_index(directory)
            self.labels = LabelSet.from_json(index["labels"])
            splits, aliases = index["splits"], index["aliases"]
        if split not in splits and split not in aliases:
            known = ", ".join([*splits, *aliases])
            raise DataError(f"{index['name']} has no split {split!r} here: use one of {known}")
        stored = aliases.get(split, split)
        self._names: list[str] = splits[stored]["names"]
        self._positions: list[int] = splits[stored]["positions"]
        skipped = [*splits[stored]["skipped"], *index["orphans"]]
        self.skipped = tuple(BadSample(n, why, tuple(map(tuple, v))) for n, why, v in skipped)
        """What was left out of the split, and files without partner."""
        with self._explain_damage():
            self._check_files(index["files"])
            self._records = open_records(directory, stored)
            if len(self._records) != len(self._names):
                raise ValueError(f"{len(self._records)} records, not {len(self._names)}")
            with np.load(directory / _COUNTS) as counts:
                sizes, pixels = counts[f"{stored}_sizes"], counts[f"{stored}_pixels"]
        self.statistics = Statistics(sizes, pixels, self.labels.num_classes)
        """What the label maps hold, as counted when they were prepared."""

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

    def _check_files(self, sizes: Mapping[str, int]) -> None:
        for name, size in sizes.items():
            if (self._directory / name).stat().st_size != size:
                raise ValueError(f"{name} has changed in size")

    @contextlib.contextmanager
    def _explain_damage(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # what damaged files raise differs from library to library
            raise DataError(
                f"{self._directory}: the prepared data is damaged ({error}); remove this folder, "
                "the next run prepares it again"
            ) from error


def prepare(
    dataset: FileDataset,
    data_dir: PathLike | None,
    *,
    cache_dir: PathLike | None = None,
    on_bad: OnBad = "error",
) -> pathlib.Path:
    """Checks a data set and writes its records, unless that has been done.

    Args:
        dataset: what to prepare.
        data_dir: folder with its archives or with what they extract to; only read. None: the
            archives are downloaded, if they have a public address.
        cache_dir: where prepared data lies, by default $FLAXSEG_CACHE or ~/.cache/flaxseg. The data
            set is found there again as long as no source file changes in name, size or time.
        on_bad: whether pairs that cannot be used are an error or left out.

    Returns:
        The prepared directory.

    Raises:
        DataError: nothing of the data set is there, or its files do not fit.
    """
    cache = cache_root(cache_dir)
    found = _locate(dataset, data_dir, cache)
    if isinstance(found, PairFolder):
        root, files, layout = found.root, found.files(), found.layout
        orphans = [orphan.name for orphan in found.orphans]
    else:
        files, layout, orphans = list(found.values()), "archives", []
        root = files[0].parent
    key = fingerprint(root, files, " ".join((VERSION, layout, *orphans)))
    directory = cache / dataset.name / f"{layout}-{key}"
    if on_bad == "skip" and not directory.is_dir():
        # What was prepared without any complaint serves either way.
        directory = directory.with_name(f"{directory.name}-skip")
    return prepare_once(directory, lambda target: _prepare(dataset, found, root, target, on_bad))


def _locate(
    dataset: FileDataset, data_dir: PathLike | None, cache: pathlib.Path
) -> PairFolder | dict[Archive, pathlib.Path]:
    if data_dir is None:
        if not dataset.downloadable:
            source = f", from {dataset.source}" if dataset.source else ""
            raise DataError(
                f"{dataset.name} needs its folder: give --data-dir. {dataset.expected}{source}"
            )
        return download(dataset.name, dataset.archives, cache / "downloads")
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; give --data-dir a {dataset.name} folder. {dataset.expected}"
        )
    packed = find_archives(root, dataset.archives)
    if not packed or any((root / folder).is_dir() for folder in dataset.folders):
        return dataset.find(root)
    for archive in dataset.archives:
        if archive not in packed:
            raise DataError(
                f"{root}: has no {archive.file}, it holds {inside(root)}. {dataset.expected}"
            )
    return packed


def _prepare(
    dataset: FileDataset,
    found: PairFolder | dict[Archive, pathlib.Path],
    root: pathlib.Path,
    target: pathlib.Path,
    on_bad: OnBad,
) -> None:
    if isinstance(found, PairFolder):
        return _write(dataset, found, target, on_bad)
    extracted = target / _EXTRACTED

    def shown(text: str) -> str:
        """Names the archives' folder, not one that is about to go."""
        return text.replace(str(extracted), str(root))

    try:
        unpack(found, extracted)
        return _write(dataset, dataset.find(extracted), target, on_bad, shown)
    except DataError as error:
        raise DataError(shown(str(error))) from error
    finally:
        shutil.rmtree(extracted, ignore_errors=True)


def _write(
    dataset: FileDataset,
    folder: PairFolder,
    target: pathlib.Path,
    on_bad: OnBad,
    shown: Callable[[str], str] = str,
) -> None:
    if on_bad == "error":
        folder.refuse_orphans()
    builder = write_records(folder, target)
    bad = [sample for samples in builder.bad.values() for sample in samples]
    empty = [split for split, counts in builder.counts.items() if not counts]
    if bad and (on_bad == "error" or empty):
        summary = f"of {len(folder.pairs())} image and label pairs of {folder.root} cannot be used"
        hint = f", the {empty[0]} split is empty" if empty else _HINT
        raise_problems([sample.reason for sample in bad], summary + hint)
    index = _index(dataset, folder, builder, target)
    for samples in (index["orphans"], *(split["skipped"] for split in index["splits"].values())):
        samples[:] = [(name, shown(reason), values) for name, reason, values in samples]
    (target / _INDEX).write_text(json.dumps(index), "utf-8")


def _index(
    dataset: FileDataset, folder: PairFolder, builder: SegmentationPairs, target: pathlib.Path
) -> dict[str, Any]:
    """What a source needs to know of the records in `target`; writes the counts beside them."""
    splits, arrays, labels = {}, {}, folder.labels
    for split, counts in builder.counts.items():
        splits[split] = {**_order(target, split), "skipped": builder.bad[split]}
        chosen = [counts[name] for name in splits[split]["names"]]
        arrays[f"{split}_sizes"] = np.array([count.size for count in chosen], np.uint32)
        arrays[f"{split}_pixels"] = pixels = np.array([c.pixels for c in chosen], np.uint32)
        if folder.wider and pixels[:, folder.labels.num_classes].any():
            labels = folder.wider
    np.savez_compressed(target / _COUNTS, **arrays)
    records = [path for path in target.rglob("*.array_record*") if path.is_file()]
    return {
        "name": dataset.name,
        "labels": labels.to_json(),
        "splits": splits,
        "aliases": dict(folder.aliases),
        "orphans": list(folder.orphans),
        "files": {path.relative_to(target).as_posix(): path.stat().st_size for path in records},
    }


def _order(directory: pathlib.Path, split: str) -> dict[str, list]:
    """The names of a split, sorted, and where TFDS's shuffling put their records."""
    names = [record["name"].decode() for record in open_records(directory, split)]
    positions = sorted(range(len(names)), key=names.__getitem__)
    return {"names": [names[position] for position in positions], "positions": positions}


def _read_index(directory: pathlib.Path) -> dict[str, Any]:
    return json.loads((directory / _INDEX).read_text("utf-8"))


def _decode(data: bytes, flags: int) -> np.ndarray:
    array = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if array is None:
        raise ValueError("a record holds no picture")
    return array
