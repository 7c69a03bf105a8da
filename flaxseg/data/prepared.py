"""Data sets of files: found, downloaded or unpacked, checked once, then read by index.

A folder is read where it lies, and what its check found is remembered in a cache directory.
Archives are written as ArrayRecord files there. TensorFlow is not needed.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, Literal

from flaxseg.caches import DOWNLOADS
from flaxseg.data.archives import Archive, find_archives, unpack
from flaxseg.data.cache import cache_root, derived, fingerprint, forget_older, prepare_once
from flaxseg.data.checked import Checked, check_folder
from flaxseg.data.dataset import FileDataset
from flaxseg.data.download import download
from flaxseg.data.in_place import Files, describe, place_of
from flaxseg.data.index import explained_damage, read_counts, read_index, write_index
from flaxseg.data.needs import need_array_record
from flaxseg.data.pairs import PairFolder, inside
from flaxseg.data.problems import BadSample, raise_problems
from flaxseg.data.source import Example
from flaxseg.errors import ConfigError, DataError, did_you_mean
from flaxseg.labels import LabelSet
from flaxseg.pictures.open import MAX_PIXELS

OnBad = Literal["error", "skip"]
"""What becomes of image and label pairs that cannot be used."""

VERSION = "3"
_EXTRACTED = "extracted"
_HINT = " (--on-bad-sample skip leaves them out)"

PathLike = str | os.PathLike


def prepared_splits(directory: pathlib.Path) -> list[str]:
    """The splits that `prepare` found, without aliases."""
    return list(read_index(directory)["splits"])


class PreparedSource:
    """One split of a data set that was checked, in the order of the file names.

    Attributes:
        labels: the classes.
        lines: how the files were understood, for the user to read.
        skipped: what was left out of the split, and files without partner.
        statistics: what the label maps hold, as counted when they were checked.
    """

    def __init__(self, directory: pathlib.Path, split: str):
        """Opens what `prepare` wrote.

        Args:
            directory: the prepared data.
            split: "train", "val" or, if the data set has one, "test".

        Raises:
            DataError: unknown split, or damaged cache.
        """
        index = read_index(directory)
        self._directory, self._in_place = directory, "files" not in index
        with explained_damage(directory):
            splits, aliases = index["splits"], index["aliases"]
        if split not in splits and split not in aliases:
            known = ", ".join([*splits, *aliases])
            raise DataError(f"{index['name']} has no split {split!r} here: use one of {known}")
        stored = aliases.get(split, split)
        with explained_damage(directory):
            self.labels = LabelSet.from_json(index["labels"])
            self.lines = tuple(index["lines"])
            self._names: list[str] = splits[stored]["names"]
            skipped = [*splits[stored]["skipped"], *index["orphans"]]
            self.skipped = tuple(BadSample(n, why, tuple(map(tuple, v))) for n, why, v in skipped)
            self.statistics = read_counts(directory, stored, self.labels.num_classes)
            self._examples: Any = self._open(index, stored, splits[stored]["places"])

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The image file below the data folder, such as "train/0001TP_006690.png"."""
        return self._names[index]

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"the split has {len(self)} images, index {index} is out of range")
        if self._in_place:
            return self._examples[index]
        with explained_damage(self._directory):
            return self._examples[index]

    def _open(self, index: dict[str, Any], split: str, places: list[Any]) -> Any:
        if self._in_place:
            return Files(index["folder"], places)
        from flaxseg.data.records import Records  # TFDS takes half a second to import

        for name, size in index["files"].items():
            if (self._directory / name).stat().st_size != size:
                raise ValueError(f"{name} has changed in size")
        return Records(self._directory, split, places)


def prepare(
    dataset: FileDataset,
    data_dir: PathLike | None,
    *,
    cache_dir: PathLike | None = None,
    on_bad: OnBad = "error",
    missing_mask: str = "error",
    max_pixels: int = MAX_PIXELS,
) -> pathlib.Path:
    """Checks a data set and remembers what was found, unless that has been done.

    Args:
        dataset: what to prepare.
        data_dir: folder with its archives or with what they extract to; only read. None: the
            archives are downloaded, if they have a public address.
        cache_dir: where prepared data lies, by default $FLAXSEG_CACHE or ~/.cache/flaxseg. The data
            set is found there again as long as no source file changes in name, size or time.
        on_bad: whether pairs that cannot be used are an error or left out.
        missing_mask: whether photos without label map are an "error", left out ("skip"), or
            pictures of the class of this name alone.
        max_pixels: most pixels that a photo may have; 0 has no limit.

    Returns:
        The prepared directory.

    Raises:
        DataError: nothing of the data set is there, its files do not fit, or array_record is not
            installed.
    """
    cache = cache_root(cache_dir)
    found = _locate(dataset, data_dir, cache)
    if isinstance(found, PairFolder):
        root, files, layout = found.root, found.files(), found.layout
        orphans = [orphan.name for orphan in found.orphans]
    else:
        need_array_record(dataset.name)
        files, layout, orphans = list(found.values()), "archives", []
        root = files[0].parent
    settings = (VERSION, layout, str(root.absolute()), missing_mask, str(max_pixels), *orphans)
    key = fingerprint(root, files, " ".join(settings))
    directory = derived(cache, dataset.name, root, key)
    if on_bad == "skip" and not directory.is_dir():
        # What was prepared without any complaint serves either way.
        directory = directory.with_name(f"{directory.name}-skip")
    preparation = _Preparation(dataset, on_bad, missing_mask, max_pixels)
    prepare_once(directory, lambda target: preparation(found, root, target))
    forget_older(directory, root)
    return directory


def _locate(
    dataset: FileDataset, data_dir: PathLike | None, cache: pathlib.Path
) -> PairFolder | dict[Archive, pathlib.Path]:
    if data_dir is None:
        if not dataset.downloadable:
            source = f", from {dataset.source}" if dataset.source else ""
            raise DataError(
                f"{dataset.name} needs its folder: give --data-dir. {dataset.expected}{source}"
            )
        return download(dataset.name, dataset.archives, cache / DOWNLOADS)
    root = pathlib.Path(data_dir).expanduser()
    if dataset.own and root.exists():
        return dataset.find(root, cache=cache)
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


@dataclasses.dataclass(frozen=True)
class _Preparation:
    """Fills a folder of the cache with what was asked for."""

    dataset: FileDataset
    on_bad: OnBad
    missing_mask: str
    max_pixels: int

    def __call__(
        self,
        found: PairFolder | dict[Archive, pathlib.Path],
        root: pathlib.Path,
        target: pathlib.Path,
    ) -> None:
        if isinstance(found, PairFolder):
            checked, missing = self._check(found)
            places = {
                split: [place_of(sample, found.root) for sample in samples]
                for split, samples in checked.samples.items()
            }
            write_index(
                target, self.dataset.name, checked, places, folder=describe(checked, missing)
            )
            return
        extracted = target / _EXTRACTED
        try:
            unpack(found, extracted)
            self._record(self.dataset.find(extracted), target, {str(extracted): str(root)})
        except DataError as error:  # names the archives' folder, not one that is about to go
            raise DataError(str(error).replace(str(extracted), str(root))) from error
        finally:
            shutil.rmtree(extracted, ignore_errors=True)

    def _record(self, folder: PairFolder, target: pathlib.Path, renamed: Mapping[str, str]) -> None:
        from flaxseg.data.records import write_records  # TFDS takes half a second to import

        checked, missing = self._check(folder)
        places = write_records(checked, missing, target)
        records = [path for path in target.rglob("*.array_record*") if path.is_file()]
        sizes = {path.relative_to(target).as_posix(): path.stat().st_size for path in records}
        write_index(target, self.dataset.name, checked, places, renamed=renamed, files=sizes)

    def _check(self, folder: PairFolder) -> tuple[Checked, int | None]:
        """What the folder holds, and the class of photos without label map, if they have one."""
        missing = None
        if self.missing_mask not in ("error", "skip"):
            names = folder.classes.labels.classes
            if self.missing_mask not in names:
                close = did_you_mean(self.missing_mask, names)
                raise ConfigError(f"--missing-mask {self.missing_mask} is no class{close}")
            missing = names.index(self.missing_mask)
        if self.missing_mask == "skip":
            folder = folder.without_bare()
        if self.on_bad == "error":
            folder.refuse_orphans(bare=missing is None)
        checked = check_folder(folder, missing=missing, max_pixels=self.max_pixels)
        bad = [sample for samples in checked.bad.values() for sample in samples]
        empty = [split for split, samples in checked.samples.items() if not samples]
        if bad and (self.on_bad == "error" or empty):
            summary = f"of {len(folder.pairs())} image and label pairs of {folder.root}"
            hint = f", the {empty[0]} split is empty" if empty else _HINT
            raise_problems([s.reason for s in bad], f"{summary} cannot be used{hint}")
        return checked, missing
