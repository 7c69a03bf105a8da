"""What is drawn before the first step: the first batch as it is learnt from, and the labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from flaxseg.data import Source, count_labels
from flaxseg.data.statistics import Statistics
from flaxseg.errors import FlaxsegError
from flaxseg.labels import LabelSet
from flaxseg.pictures import batch_sheet, write_image
from flaxseg.pictures.bars import Column, bar_sheet
from flaxseg.sharding import own_part
from flaxseg.training.config import TrainConfig
from flaxseg.training.feed import Fed, Feed
from flaxseg.training.setup import Datasets
from flaxseg.training.workdir import LABELS_FILE, TRAIN_BATCH_FILE

SHOWN = 16
"""Pictures of a batch that are drawn at most."""

COUNTED = 256
"""Label maps that are read at most where nobody has counted them: a start must not wait long."""


def draw_beginning(
    config: TrainConfig, datasets: Datasets, feed: Feed, step: int, notify: Callable[[str], None]
) -> None:
    """Draws what a run learns from, once: a run that goes on finds the pictures.

    Args:
        config: settings.
        datasets: the pictures and label maps.
        feed: batches; the next one is drawn, and stays the next one.
        step: number of updates made.
        notify: takes a line for the user if something cannot be drawn.
    """
    folder, source = config.directory, datasets.train
    if step == 0 or not (folder / TRAIN_BATCH_FILE).exists():
        following = {"step": step + 1, "batch_size": config.images_per_step}
        draw_batch(folder, feed.peek(), source, **following)
    if step == 0 or not (folder / LABELS_FILE).exists():
        draw_labels(folder, source, datasets.train_labels, notify)


def draw_batch(folder: Path, fed: Fed, source: Source, *, step: int, batch_size: int) -> None:
    """Draws the pictures and label maps of a step as they are handed to it.

    Args:
        folder: work directory, which gets `train_batch.png`.
        fed: the batch; of several processes each has a part of it, and draws that.
        source: names of pictures and classes.
        step: the step that is about to be made, from 1.
        batch_size: pictures of all processes together.
    """
    images, truths = (own_part(array)[:SHOWN] for array in (fed.image, fed.label))
    names = [source.name(int(index)) for index in fed.index[:SHOWN]]
    height, width = images.shape[1:3]
    title = (
        f"what step {step} learns from: {len(images)} of {batch_size} pictures, {height} x {width}"
    )
    sheet = batch_sheet(images, truths, source.labels, captions=names, title=title)
    write_image(folder / TRAIN_BATCH_FILE, sheet)


def draw_labels(
    folder: Path, source: Source, counted: Statistics | None, notify: Callable[[str], None]
) -> None:
    """Draws how many pixels and pictures of the training split each class has.

    Args:
        folder: work directory, which gets `labels.png`.
        source: the training split.
        counted: what its label maps hold, if that is known; else up to `COUNTED` are read.
        notify: takes a line for the user if they cannot be.
    """
    try:
        counted = counted or count_labels(source, most=COUNTED)
    except FlaxsegError as error:  # Not to check the labels was asked for.
        notify(f"{LABELS_FILE} is left out: {error}")
        return
    write_image(folder / LABELS_FILE, labels_sheet(source.labels, counted, len(source)))


def labels_sheet(labels: LabelSet, counted: Statistics, of: int) -> np.ndarray:
    """Bars of the pixels and pictures of each class, (H, W, 3) uint8.

    Args:
        labels: the classes.
        counted: of so many pictures.
        of: pictures of the whole split.
    """
    pictures, shares = len(counted.counts), counted.shares
    pixels = int(counted.counts.sum(dtype=np.int64))
    title = [
        f"{labels.name}, training split: {pictures} pictures"
        + (f", counted of {of}" if pictures < of else ""),
        f"{100 * counted.ignored / max(pixels, 1):.3g} % of {pixels:,} pixels are ignored",
    ]
    columns = [
        Column(
            f"share of the labelled pixels, bars to {100 * shares.max():.3g} %",
            shares / max(shares.max(), 1e-9),
            [f"{100 * share:.3g} %" if share else "none" for share in shares],
        ),
        Column(
            "pictures with the class",
            counted.images / max(pictures, 1),
            [f"{count:,} ({100 * count / max(pictures, 1):.3g} %)" for count in counted.images],
        ),
    ]
    return bar_sheet(labels, columns, title)
