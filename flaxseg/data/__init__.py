"""Data sets, augmentation and loading: file -> Source[i] -> Example -> transform -> Batch."""

import os
from typing import Any, Literal

from flaxseg.data.catalogue import FILE_DATASETS
from flaxseg.data.checks import LabelReport as LabelReport
from flaxseg.data.checks import check_labels as check_labels
from flaxseg.data.checks import count_labels as count_labels
from flaxseg.data.content import content_fingerprint as content_fingerprint
from flaxseg.data.kept import KeptExamples as KeptExamples
from flaxseg.data.loader import EvalLoader as EvalLoader
from flaxseg.data.loader import eval_loader as eval_loader
from flaxseg.data.loader import steps_per_epoch as steps_per_epoch
from flaxseg.data.loader import train_loader as train_loader
from flaxseg.data.shapes import DEFAULT_SIZE
from flaxseg.data.shapes import Shapes as Shapes
from flaxseg.data.skipped import list_skipped as list_skipped
from flaxseg.data.source import Batch as Batch
from flaxseg.data.source import Example as Example
from flaxseg.data.source import FirstExamples
from flaxseg.data.source import Source as Source
from flaxseg.data.source import pad_batch as pad_batch
from flaxseg.data.transforms import MEAN_PIXEL as MEAN_PIXEL
from flaxseg.data.transforms import EvalTransform as EvalTransform
from flaxseg.data.transforms import PhotometricDistortion as PhotometricDistortion
from flaxseg.data.transforms import RareClasses as RareClasses
from flaxseg.data.transforms import TrainTransform as TrainTransform
from flaxseg.data.transforms import Transform as Transform
from flaxseg.errors import DataError, did_you_mean
from flaxseg.labels import LabelSet
from flaxseg.pictures.open import MAX_PIXELS

PathLike = str | os.PathLike


def open_source(
    name: str,
    split: str,
    *,
    data_dir: PathLike | None = None,
    image_size: tuple[int, int] | None = None,
    cache_dir: PathLike | None = None,
    on_bad_sample: Literal["error", "skip"] = "error",
    missing_mask: str = "error",
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens a split of a data set, preparing it first if that is due.

    Args:
        name: "shapes" (drawn, needs no files), "camvid" or another of `list_datasets`.
        split: "train" or "val", or "test" where the data set has one.
        data_dir: folder of the data set, for those that have files. None: those whose archives
            have a public address are downloaded.
        image_size: height and width of the drawn images of shapes; without effect for files.
        cache_dir: where prepared data lies, by default $FLAXSEG_CACHE or ~/.cache/flaxseg.
        on_bad_sample: whether image and label pairs that cannot be used are an error or left out;
            the source's `skipped` lists them.
        missing_mask: whether photos without label map are an "error", left out ("skip"), or
            pictures of the class of this name alone.
        max_pixels: most pixels that a photo may have; 0 has no limit.

    Raises:
        DataError: unknown name or split, or a folder or file that does not fit.
    """
    if name == "shapes":
        return _open_shapes(split, data_dir, image_size)
    if name not in FILE_DATASETS:
        raise _unknown(name)
    from flaxseg.data.prepared import PreparedSource, prepare

    dataset = FILE_DATASETS[name]
    directory = prepare(
        dataset,
        data_dir,
        cache_dir=cache_dir,
        on_bad=on_bad_sample,
        missing_mask=missing_mask,
        max_pixels=max_pixels,
    )
    return PreparedSource(directory, split)


def open_run_source(
    name: str,
    split: str,
    *,
    data_dir: PathLike | None = None,
    image_size: tuple[int, int] | None = None,
    limit: int | None = None,
    **options: Any,
) -> Source:
    """Opens a split as a training run does.

    Args:
        name: as for `open_source`.
        split: likewise.
        data_dir: likewise.
        image_size: height and width of the training images; drawn images are at least as large,
            so that they fill a crop.
        limit: use only the first `limit` examples.
        options: further arguments of `open_source`.

    Raises:
        DataError: as `open_source`.
    """
    if image_size is not None:
        image_size = max(image_size[0], DEFAULT_SIZE[0]), max(image_size[1], DEFAULT_SIZE[1])
    source = open_source(name, split, data_dir=data_dir, image_size=image_size, **options)
    return source if limit is None else FirstExamples(source, limit)


def known_labels(name: str) -> LabelSet | None:
    """The classes of a data set, where they do not depend on its files.

    Raises:
        DataError: unknown name.
    """
    if name == "shapes":
        return Shapes.labels
    if name not in FILE_DATASETS:
        raise _unknown(name)
    return FILE_DATASETS[name].labels


def list_datasets() -> list[str]:
    """Names that `open_source` knows."""
    return sorted(["shapes", *FILE_DATASETS])


def _unknown(name: str) -> DataError:
    return DataError(f"no data set is called {name!r}{did_you_mean(name, list_datasets())}")


def _open_shapes(
    split: str, data_dir: PathLike | None, image_size: tuple[int, int] | None
) -> Source:
    if data_dir is not None:
        raise DataError(f"shapes has no files: drop --data-dir {data_dir} or name another --data")
    return Shapes(split) if image_size is None else Shapes(split, image_size=image_size)
