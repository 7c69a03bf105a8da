"""Pages that need nothing but themselves: no script, no font, no picture from elsewhere."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np

from flaxseg.errors import DataError
from flaxseg.inference.metrics import Scores, percent
from flaxseg.inference.paired import Comparison
from flaxseg.inference.per_image import PerImage
from flaxseg.inference.record import Record, shown
from flaxseg.labels import LabelSet
from flaxseg.report.pictures import confusion_uri, errors_uri, labels_uri, photo_uri

MAX_BYTES = 10_000_000
"""Of a page: what mail programs still take."""

SHOWN = 6
"""Worst and best pictures, or those that gained and lost most: so many of each."""

_SIDES = (480, 320, 200, 100)

FORMULAS = {
    "IoU": "hits / (true + predicted − hits) of a class, in pixels of all pictures together",
    "accuracy": "hits / true",
    "Dice": "2 · hits / (true + predicted), also called F1",
    "mean": "over the classes that have the score, as some occur nowhere; of the IoU it is mIoU",
    "pixel accuracy": "hits of all classes / labelled pixels",
    "share of pixels": "true / labelled pixels",
    "boundary_iou": "IoU of the two borders of a class: its pixels within 2 % of the picture's "
    "diagonal of one that is not of it, or of the picture's edge (Cheng et al. 2021)",
    "accuracy_of_all": "hits of all classes / all pixels, labelled or not",
    "micro_iou": "hits of all classes / unions of all classes; micro_iou:CLASS without the pixels "
    "of that class",
    "soft_iou": "mean over the pictures of the IoU of probabilities and labels",
    "score of a picture": "mean IoU, in that picture alone, of the classes that its labels hold",
}
"""What the scores are, in one line each."""

_ALWAYS = (*list(FORMULAS)[:6], "score of a picture")


class Row(NamedTuple):
    """A picture on a page.

    Attributes:
        name: of its file.
        score: in words.
        classes: (name, colour, score) of some of its classes.
        images: (caption, data URI).
    """

    name: str
    score: str
    classes: list[tuple[str, str, str]]
    images: list[tuple[str, str]]


def report_page(record: Record) -> str:
    """An evaluation as a page of HTML, at most `MAX_BYTES` large.

    Raises:
        DataError: a picture cannot be read any more.
    """
    scores, labels, per_image = record.scores, record.labels, record.per_image
    worst = lowest(per_image.scores)
    best = [place for place in lowest(-per_image.scores) if place not in worst]
    title = f"{record.network} on {labels.name}: mIoU {percent(scores.miou)} %"
    further = [name for name in scores.more if name not in scores.by_class]
    formulas = [*_ALWAYS, *(name.partition(":")[0] for name in scores.more)]

    def rows(places: Sequence[int], side: int) -> Iterator[Row]:
        for place in places:
            yield _evaluated(record, per_image, place, side)

    about, confusion = record.to_json(), confusion_uri(scores, labels, title)
    return small_enough(
        lambda side: render(
            "report.html.j2",
            title=title,
            about=about,
            calibration=record.calibration and str(record.calibration),
            settings={name: shown(value) for name, value in about["settings"].items()},
            columns=_columns(scores),
            classes=named_colors(labels),
            further=[(name, percent(scores.more[name])) for name in further],
            pixel_accuracy=percent(scores.pixel_accuracy),
            labelled=f"{int(scores.matrix.sum()):,}",
            confusion=confusion,
            groups=[("Worst pictures", rows(worst, side)), ("Best pictures", rows(best, side))],
            formulas={name: FORMULAS[name] for name in dict.fromkeys(formulas)},
        )
    )


def comparison_page(
    comparison: Comparison,
    names: Sequence[str],
    labels: LabelSet,
    sides: Sequence[Any],
    records: Sequence[Record] = (),
) -> str:
    """A comparison as a page of HTML, at most `MAX_BYTES` large.

    Args:
        comparison: of two models.
        names: of the pictures.
        labels: the classes.
        sides: of both models what `Record.to_json` gave.
        records: of both models, to show pictures; none shows names alone.

    Raises:
        DataError: a picture cannot be read any more.
    """
    lost, gained = lost_and_gained(comparison)
    scale = np.nanmax(np.abs([comparison.low, comparison.high, comparison.difference]), initial=0)

    def rows(places: Sequence[int], side: int) -> Iterator[Row]:
        for place in places:
            gain = f"{points(comparison.pictures[place])} points"
            yield Row(names[place], gain, [], _both(records, place, side) if records else [])

    return small_enough(
        lambda side: render(
            "compare.html.j2",
            title=f"{labels.name}: mIoU {points(comparison.difference[-1])} points, B − A",
            sides=sides,
            settings={
                name: [shown(each["settings"].get(name)) for each in sides]
                for name in sides[0]["settings"]
            },
            resamples=comparison.resamples,
            shown=bool(records),
            rows=list(_differences(comparison, named_colors(labels), scale or 1)),
            groups=[("Gained most", rows(gained, side)), ("Lost most", rows(lost, side))],
            formulas={name: FORMULAS[name] for name in ("IoU", "mean", "score of a picture")},
        )
    )


def points(value: float) -> str:
    """A difference of shares in percentage points with its sign; a dash for nan."""
    if np.isnan(value):
        return "-"
    return f"{100 * value:+.2f}".replace("-", "−") if value else "0.00"


def lowest(scores: np.ndarray) -> list[int]:
    """The places of the lowest of N scores, lowest first; nan is left out."""
    known = [int(i) for i in np.argsort(scores, kind="stable") if not np.isnan(scores[i])]
    return known[:SHOWN]


def lost_and_gained(comparison: Comparison) -> tuple[list[int], list[int]]:
    """The places of the pictures that lost most, and of those that gained most."""
    gains = comparison.pictures
    lost = lowest(np.where(gains < 0, gains, np.nan))
    return lost, lowest(np.where(gains > 0, -gains, np.nan))


def small_enough(page: Callable[[int], str], sides: Sequence[int] = _SIDES) -> str:
    """A page of at most `MAX_BYTES`.

    Args:
        page: makes it with pictures of at most so many pixels a side.
        sides: these, largest first.

    Raises:
        DataError: it is larger with the smallest pictures.
    """
    for side in sides:
        text = page(side)
        if len(text.encode()) <= MAX_BYTES:
            return text
    raise DataError(f"the page would be larger than {MAX_BYTES} bytes with the smallest pictures")


def render(template: str, **values: Any) -> str:
    """A template of this package, filled in; text stands there as text, whatever it holds."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flaxseg.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def named_colors(labels: LabelSet) -> list[tuple[str, str]]:
    """Name and CSS colour of each class."""
    colors = (f"rgb({r} {g} {b})" for r, g, b in labels.palette)
    return list(zip(labels.classes, colors, strict=True))


def _columns(scores: Scores) -> list[dict[str, Any]]:
    """The columns of the table of classes: heading, a value for each class, and their mean."""
    columns = {
        "IoU": (scores.iou, scores.miou),
        "accuracy": (scores.accuracy, scores.mean_accuracy),
        "Dice": (scores.dice, scores.mean_dice),
        **{name: (values, scores.more[name]) for name, values in scores.by_class.items()},
        "share of pixels": (scores.frequency, np.nan),
    }
    return [
        {
            "heading": heading,
            "cells": [(percent(value), bar_width(value)) for value in values],
            "mean": "" if heading == "share of pixels" else percent(mean),
        }
        for heading, (values, mean) in columns.items()
    ]


def bar_width(share: float) -> str:
    """A share as CSS has lengths; nan is none."""
    return f"{100 * np.nan_to_num(share):.2f}%"


def _evaluated(record: Record, per_image: PerImage, place: int, side: int) -> Row:
    (image, label), prediction = record.example(place), record.prediction(place)
    one = PerImage(per_image.names[place : place + 1], per_image.matrices[place : place + 1])
    iou, present = one.iou[0], one.areas[0, 1] > 0
    named = named_colors(record.labels)
    hardest = sorted(np.flatnonzero(present), key=lambda k: iou[k])
    images = [
        ("photo", photo_uri(image, side)),
        ("truth", labels_uri(label, record.labels, side)),
        ("prediction", labels_uri(prediction, record.labels, side)),
        ("errors", errors_uri(image, label, prediction, side)),
    ]
    classes = [(*named[k], percent(iou[k])) for k in hardest]
    return Row(one.names[0], f"{percent(one.scores[0])} %", classes, images)


def _both(records: Sequence[Record], place: int, side: int) -> list[tuple[str, str]]:
    a, b = records
    image, label = a.example(place)
    return [
        ("photo", photo_uri(image, side)),
        ("truth", labels_uri(label, a.labels, side)),
        ("A", labels_uri(a.prediction(place), a.labels, side)),
        ("B", labels_uri(b.prediction(place), b.labels, side)),
    ]


def _differences(
    comparison: Comparison, classes: list[tuple[str, str]], scale: float
) -> Iterator[dict[str, Any]]:
    """The rows of a comparison, the mean first: numbers in words, and places along an axis."""
    order = [-1, *range(len(classes))]
    for k, (name, color) in zip(order, [("mIoU", ""), *classes], strict=True):
        low, value, high = (
            float(each[k]) for each in (comparison.low, comparison.difference, comparison.high)
        )
        yield {
            "name": name,
            "color": color,
            "iou": [percent(iou) for iou in comparison.iou[:, k]],
            "difference": points(value),
            "interval": f"{points(low)} to {points(high)}" if not np.isnan(low) else "-",
            "better": percent(comparison.better[k]),
            "kind": "up" if low > 0 else "down" if high < 0 else "unsure",
            "known": not np.isnan(low),
            "low": f"{50 + 50 * np.nan_to_num(low) / scale:.2f}%",
            "at": f"{50 + 50 * np.nan_to_num(value) / scale:.2f}%",
            "width": f"{50 * np.nan_to_num(high - low) / scale:.2f}%",
        }
