"""`flaxseg data prepare | check | show NAME`."""

import dataclasses
import pathlib
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console

from flaxseg.data import FILE_DATASETS, count_labels, open_source
from flaxseg.data.report import print_report, understood
from flaxseg.data.shapes import SPLITS
from flaxseg.data.skipped import skipped_samples
from flaxseg.data.source import Source
from flaxseg.errors import ConfigError, DataError
from flaxseg.pictures.open import MAX_PIXELS


@dataclasses.dataclass(frozen=True)
class _DataArgs:
    """Which data set."""

    name: tyro.conf.Positional[str]
    """Data set: ade20k, camvid, cityscapes, folder, pets or shapes."""

    data_dir: str | None = None
    """Folder of the data set's files, as archives or extracted. None: downloads them, where the
    data set has a public address."""

    missing_mask: str = "error"
    """What becomes of photos without label map: an "error", left out ("skip"), or pictures of the
    class of this name alone."""

    max_pixels: int = MAX_PIXELS
    """Most pixels that a photo may have; 0 has no limit."""

    def splits(self, on_bad_sample: Literal["error", "skip"]) -> dict[str, Source]:
        """All splits, prepared if that is due."""
        names = list(SPLITS)
        if self.name in FILE_DATASETS:
            from flaxseg.data.prepared import prepare, prepared_splits

            options = {"missing_mask": self.missing_mask, "max_pixels": self.max_pixels}
            dataset = FILE_DATASETS[self.name]
            directory = prepare(dataset, self.data_dir, on_bad=on_bad_sample, **options)
            names = prepared_splits(directory)
        return {split: self.open(split, on_bad_sample) for split in names}

    def open(self, split: str, on_bad_sample: Literal["error", "skip"]) -> Source:
        """One split, prepared if that is due."""
        return open_source(
            self.name,
            split,
            data_dir=self.data_dir,
            on_bad_sample=on_bad_sample,
            missing_mask=self.missing_mask,
            max_pixels=self.max_pixels,
        )


@dataclasses.dataclass(frozen=True)
class Prepare(_DataArgs):
    """Download if need be, check and prepare a data set, as the first training run would."""

    on_bad_sample: Literal["error", "skip"] = "error"
    """What becomes of damaged or unfitting files."""

    def __call__(self) -> None:
        """Prepares, and prints what there is."""
        if self.name == "shapes":
            raise ConfigError("shapes are drawn on the fly: there is nothing to prepare")
        sources = self.splits(self.on_bad_sample)
        counts = ", ".join(f"{len(source)} {split}" for split, source in sources.items())
        labels = next(iter(sources.values())).labels
        for line in understood(sources.values()):
            print(line)
        print(f"{self.name} is ready: {counts} images, {labels.num_classes} classes")
        skipped = skipped_samples(sources.values())
        for sample in skipped:
            print(f"left out: {sample.reason}")


@dataclasses.dataclass(frozen=True)
class Check(_DataArgs):
    """Tell what a data set holds and what is wrong with it."""

    def __call__(self) -> None:
        """Prints the report.

        Raises:
            DataError: files cannot be used; the report has listed them.
        """
        sources = self.splits("skip")
        skipped = skipped_samples(sources.values())
        statistics = {split: count_labels(source) for split, source in sources.items()}
        print_report(Console(), sources, statistics, skipped)
        if skipped:
            total = len(skipped) + sum(map(len, sources.values()))
            raise DataError(
                f"{len(skipped)} of {total} samples cannot be used, see above: mend them, or train "
                f"with --on-bad-sample skip; the first: {skipped[0].reason}"
            )


@dataclasses.dataclass(frozen=True)
class Show(_DataArgs):
    """Draw a contact sheet: photos beside their label maps."""

    split: str = "train"
    """Split to draw from."""

    count: int = 12
    """Number of examples, spread over the split."""

    out: pathlib.Path | None = None
    """Picture to write, PNG. None: NAME-SPLIT.png."""

    def __call__(self) -> None:
        """Writes the picture and prints its name."""
        from flaxseg.pictures import example_sheet, write_image

        if self.count < 1:
            raise ConfigError(f"--count {self.count}: give at least 1")
        source = self.open(self.split, "skip")
        count = min(self.count, len(source))
        chosen = np.linspace(0, len(source) - 1, count).astype(int).tolist()
        path = self.out or pathlib.Path(f"{self.name}-{self.split}.png")
        images, truths = zip(*(source[index] for index in chosen), strict=True)
        names = [source.name(index) for index in chosen]
        write_image(path, example_sheet(images, truths, source.labels, captions=names))
        print(f"{count} of {len(source)} {self.split} images drawn to {path}")


Command: Any = Prepare | Check | Show
"""What `flaxseg data` does."""
