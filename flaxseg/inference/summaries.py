"""Files about all photos of a run: a table of shares, and COCO's list of regions."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from flaxseg.labels import LabelSet
from flaxseg.pictures.write import written

SUMMARY_FILE = "summary.csv"
COCO_FILE = "coco.json"

Facts = dict[str, Any]
"""What `flaxseg.inference.outputs.facts_of` says of a photo, and its `file`."""


def write_summary(path: Path, records: Iterable[Facts], labels: LabelSet) -> None:
    """Writes one row for each photo: file, height, width, shares of pixels, mean confidence.

    Args:
        path: file to write.
        records: the photos, gone through once.
        labels: the classes, each a column.

    Raises:
        DataError: the file cannot be written.
    """
    head = ("file", "height", "width", *_shares_head(labels))
    _write(path, map(_csv_line, itertools.chain([head], map(_row, records))))


def frames_head(labels: LabelSet) -> bytes:
    """The first line of the table of a video's frames."""
    return _csv_line(("frame", "seconds", *_shares_head(labels))).encode()


def frames_line(number: int, seconds: Fraction, record: Facts) -> bytes:
    """The line of a frame, the first of which is number 1, in the table of a video's frames."""
    return _csv_line([number, f"{float(seconds):.6f}", *_shares(record)]).encode()


def _shares_head(labels: LabelSet) -> tuple[str, ...]:
    return (*labels.classes, "below_min_confidence", "mean_confidence")


def _row(record: Facts) -> list[Any]:
    return [record["file"], *record["photo"], *_shares(record)]


def _shares(record: Facts) -> list[str]:
    counts = [*record["counts"], record["unsure"]]
    mean = record["confidence"]
    shares = [f"{count / sum(counts):.6f}" for count in counts]
    return [*shares, "" if mean is None else f"{mean:.6f}"]


def _csv_line(row: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()


def write_coco(path: Path, records: Callable[[], Iterable[Facts]], labels: LabelSet) -> None:
    """Writes the region of each class in each photo as an annotation that pycocotools reads.

    The categories have the numbers of the classes; heights and widths are those of the masks.

    Args:
        path: file to write.
        records: gives the photos, whose `regions` are known; called twice.
        labels: the classes.

    Raises:
        DataError: the file cannot be written.
    """
    categories = [
        {"id": index, "name": name, "supercategory": labels.name}
        for index, name in enumerate(labels.classes)
    ]
    parts = [
        *('{"categories": ', json.dumps(categories)),
        *(', "images": [\n', _joined(map(_image, itertools.count(1), records()))),
        *('\n], "annotations": [\n', _joined(_annotations(records()))),
        "\n]}\n",
    ]
    _write(path, itertools.chain.from_iterable([p] if isinstance(p, str) else p for p in parts))


def _image(number: int, record: Facts) -> Facts:
    height, width = record["mask"]
    return {"id": number, "file_name": record["file"], "height": height, "width": width}


def _annotations(records: Iterable[Facts]) -> Iterator[Facts]:
    number = itertools.count(1)
    for image, record in enumerate(records, 1):
        for region in record["regions"]:
            yield {"id": next(number), "image_id": image, **region}


def _joined(values: Iterable[Facts]) -> Iterator[str]:
    """JSON of values, one a line, without holding them all."""
    for index, value in enumerate(values):
        yield ",\n" * (index > 0) + json.dumps(value)


def _write(path: Path, parts: Iterable[str]) -> None:
    with written(path) as file:
        for part in parts:
            file.write(part.encode("utf-8", "surrogateescape"))  # file names may be any bytes
