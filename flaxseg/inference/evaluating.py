"""What `flaxseg eval` does: from a model and a data set to scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flaxseg import native
from flaxseg.data import (
    EvalLoader,
    EvalTransform,
    Source,
    check_labels,
    eval_loader,
    open_run_source,
)
from flaxseg.errors import ConfigError
from flaxseg.exported import kind_of, require_logits
from flaxseg.inference import calibration
from flaxseg.inference.evaluate import evaluate
from flaxseg.inference.evaluate_views import evaluate_views
from flaxseg.inference.metrics import Scores, scores_table
from flaxseg.inference.more_metrics import SOFT_IOU
from flaxseg.inference.opening import Pathlike, resolve_model_dir, run_settings
from flaxseg.inference.predict import Predictor
from flaxseg.inference.record import Record
from flaxseg.inference.run_view import run_canvases, run_transform, run_windows
from flaxseg.inference.views import PLAIN, Views
from flaxseg.inference.windows import Windows
from flaxseg.labels import LabelSet
from flaxseg.model_dir import CONFIG_FILE, store_temperature
from flaxseg.ops import Precision
from flaxseg.printed import print_line, tracked

_BATCH_SIZE = 8


def evaluate_dir(
    path: Pathlike,
    *,
    split: str = "val",
    data: str | None = None,
    data_dir: str | None = None,
    batch_size: int | None = None,
    eval_size: tuple[int, int] | None = None,
    eval_base_size: tuple[int, int] | None = None,
    eval_multiple: int | None = None,
    eval_window: tuple[int, int] | None = None,
    eval_stride: tuple[int, int] | None = None,
    eval_scales: Sequence[float] | None = None,
    eval_flip: bool = False,
    eval_canvas: bool | None = None,
    metrics: Sequence[str] | None = None,
    classes_by_number: bool = False,
    missing_mask: str | None = None,
    max_pixels: int | None = None,
    matmul_precision: Precision = "highest",
    calibrate: bool = False,
    record: Record | None = None,
    console: Console | None = None,
) -> Scores:
    """Scores a trained model on one split of a data set and prints the table of its classes.

    What is None is as in the training run, by its config.json. A model directory has none and
    needs `data`; the same goes for data that the run did not train on.

    Args:
        path: work directory of a training run, or model directory.
        split: "train" or "val", or "test" where the data set has one.
        data: name of the data set.
        data_dir: its folder.
        batch_size: images per step; 8 without a training run.
        eval_size: height and width in pixels to stretch to; without a training run, their own.
        eval_base_size: longer and shorter side within which pictures are fitted.
        eval_multiple: sides are then stretched up to multiples of it.
        eval_window: height and width of the windows through which the network looks at a picture.
        eval_stride: rows and columns from one window to the next.
        eval_scales: of the size at which the network sees a picture otherwise; with several, or
            `eval_flip`, it looks at one picture after the other, and probabilities are averaged.
        eval_flip: it looks at the mirrored picture, too, at each scale.
        eval_canvas: whether pictures of all sizes share few programs; scores are the same but for
            rounding, see `flaxseg.inference.make_evaluator`.
        metrics: further scores, see `flaxseg.inference.more_metrics`.
        classes_by_number: the data set's classes are the model's by their numbers, whatever their
            names.
        missing_mask: what becomes of photos without label map, as for
            `flaxseg.data.open_source`; likewise `max_pixels`.
        max_pixels: most pixels that a photo may have; 0 has no limit.
        matmul_precision: of float32 products on accelerators, see `flaxseg.ops.precision`.
        calibrate: finds the temperature that makes probabilities of these pictures most likely,
            see `flaxseg.inference.calibration`, and stores it in the model directory if they gain.
        record: keeps what is found in each picture, and under which settings.
        console: where the table goes; None prints nothing.

    Returns:
        The scores.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: no data set is named, it has other classes than the model, or sizes, windows or
            metrics do not fit.
        DataError: the data set is missing or its labels do not fit.
    """
    views = Views(tuple(eval_scales or PLAIN.scales), eval_flip)
    directory = resolve_model_dir(path)
    settings: dict[str, Any] = run_settings(Path(path))
    dtype = settings.get("dtype", "float32")
    loaded = native.load_with_meta(directory, dtype=dtype, matmul_precision=matmul_precision)
    if data is not None and data != settings.get("data"):
        settings = {"data": data}
    if "data" not in settings:
        raise ConfigError("the model does not say on which data it was trained: give --data NAME")
    settings = _viewed(
        settings,
        eval_size=eval_size,
        eval_base_size=eval_base_size,
        eval_multiple=eval_multiple,
        eval_window=eval_window,
        eval_stride=eval_stride,
        eval_canvas=eval_canvas,
        metrics=metrics,
        missing_mask=missing_mask,
        max_pixels=max_pixels,
    )
    if calibrate and kind_of(directory):
        raise ConfigError(
            f"--calibrate writes into a model directory, and {directory} is an exported file: "
            "calibrate the model that it was made from, and export it again"
        )
    if views != PLAIN:
        if calibrate:
            raise ConfigError(
                "--calibrate is about single looks: leave out the scales and the flip"
            )
        require_logits(loaded.model, "--eval-scales, or --eval-flip,")
    if SOFT_IOU in settings.get("metrics", ()):
        require_logits(loaded.model, f"--metrics {SOFT_IOU}")
    options: dict[str, Any] = {name: settings[name] for name in _READING if name in settings}
    options["data_dir"] = data_dir or options.get("data_dir")
    source = open_run_source(settings["data"], split, **options)
    _check_classes(loaded.labels, source, classes_by_number)
    check_labels(source)
    usual = settings.get("eval_batch_size", settings.get("batch_size", _BATCH_SIZE))
    size: int = usual if batch_size is None else batch_size
    transform = run_transform(settings)
    canvases, windows = run_canvases(settings), run_windows(settings)
    some = canvases if settings.get("eval_canvas") else None
    shared = some is not None or windows is not None
    batches = eval_loader(source, transform, batch_size=size, few_programs=shared)
    if views != PLAIN:
        settings |= {"eval_scales": views.scales, "eval_flip": views.flip or None}
    if record is not None:
        made = {"split": split, "dtype": dtype, "matmul_precision": matmul_precision}
        record.begin(str(path), loaded.model.config, source, transform, settings | options | made)
    log = None if record is None else record.log
    if views == PLAIN:
        scores = evaluate(
            loaded.model,
            tracked(batches, "evaluating", console),
            labels=loaded.labels,
            preprocess=loaded.preprocess,
            windows=windows,
            metrics=settings.get("metrics", ()),
            canvases=some,
            watch=log,
        )
    else:
        scores = evaluate_views(
            Predictor(*loaded, windows=windows, canvases=canvases, views=views),
            tracked(eval_loader(source, EvalTransform(), batch_size=1), "evaluating", console),
            transform,
            labels=loaded.labels,
            metrics=settings.get("metrics", ()),
            watch=log,
        )
    if console is not None:
        console.print(scores_table(scores, loaded.labels, split=split))
    temperature = loaded.temperature
    if calibrate:
        found = _calibrate(directory, loaded, batches, windows, console)
        temperature = found.temperature if found.better else temperature
        if record is not None:
            record.calibration = found
    if record is not None:
        record.scores, record.temperature = scores, temperature
    return scores


def _calibrate(
    directory: Path,
    loaded: native.LoadedModel,
    batches: EvalLoader,
    windows: Windows | None,
    console: Console | None,
) -> calibration.Calibration:
    """Finds the best temperature, and stores it unless it is no better than the one before."""
    found = calibration.calibrate(
        loaded.model,
        lambda: tracked(batches, "calibrating", console),
        labels=loaded.labels,
        preprocess=loaded.preprocess,
        windows=windows,
        start=loaded.temperature,
    )
    if found.better:
        store_temperature(directory, found.temperature)
    if console is not None:
        end = f"stored in {directory / CONFIG_FILE}" if found.better else "no better: not stored"
        print_line(console, f"{found}; {end}")
    return found


def _viewed(settings: dict[str, Any], **given: Any) -> dict[str, Any]:
    """The settings of a training run, with what was given in their place.

    Who names one size wants none of the others, and who names windows not the run's strides.
    """
    given = {name: value for name, value in given.items() if value is not None}
    dropped = set().union(*(_TOGETHER.get(name, ()) for name in given))
    return {name: value for name, value in settings.items() if name not in dropped} | given


_READING = ("data_dir", "image_size", "limit", "on_bad_sample", "missing_mask", "max_pixels")
"""Settings of a training run that say how its data are opened."""

_TOGETHER = {
    "eval_size": ("eval_base_size", "eval_multiple", "eval_window", "eval_stride"),
    "eval_base_size": ("eval_size", "eval_multiple"),
    "eval_multiple": ("eval_size",),
    "eval_window": ("eval_stride",),
}
"""Settings of evaluation that another one replaces."""


def _check_classes(labels: LabelSet, source: Source, by_number: bool) -> None:
    """The data set must have the model's classes; numbered classes stand for any names."""
    theirs = source.labels
    if labels.num_classes != theirs.num_classes:
        raise ConfigError(
            f"the model knows {labels.num_classes} classes ({_names(labels)}), data set "
            f"{theirs.name!r} has {theirs.num_classes} ({_names(theirs)}): "
            "give the --data and --data-dir that it was trained on"
        )
    named = labels.classes != LabelSet.generic(labels.num_classes).classes
    if not named or by_number or not (different := labels.differences(theirs)):
        return
    shown = ", ".join(
        f"{n} is {labels.classes[n]!r} and {theirs.classes[n]!r}" for n in different[:3]
    )
    more = ", …" * (len(different) > 3)
    raise ConfigError(
        f"{len(different)} of {labels.num_classes} classes have other names in the model than in "
        f"data set {theirs.name!r}: {shown}{more}; give the --data and --data-dir that it was "
        "trained on, or --classes-by-number if they mean the same"
    )


def _names(labels: LabelSet) -> str:
    return ", ".join(labels.classes[:4]) + ", …" * (labels.num_classes > 4)
