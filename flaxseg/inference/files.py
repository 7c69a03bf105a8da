"""What the commands `flaxseg predict` and `flaxseg eval` do: from files to files and scores."""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import track

from flaxseg import distributed, native
from flaxseg.data import (
    EvalLoader,
    EvalTransform,
    Source,
    check_labels,
    eval_loader,
    open_run_source,
)
from flaxseg.data.problems import raise_problems
from flaxseg.errors import CheckpointError, ConfigError, DataError
from flaxseg.exported import files_of, kind_of, require_logits
from flaxseg.inference import calibration
from flaxseg.inference.canvas import USUAL_SIDE, Canvases
from flaxseg.inference.evaluate import evaluate
from flaxseg.inference.evaluate_views import evaluate_views
from flaxseg.inference.inputs import find_inputs, output_files
from flaxseg.inference.journal import Journal, fingerprint
from flaxseg.inference.metrics import Scores, scores_table
from flaxseg.inference.more_metrics import SOFT_IOU
from flaxseg.inference.outputs import OUTPUTS, check_kinds, make_folder, needed_detail
from flaxseg.inference.photos import Job, OutSize, PhotoTask
from flaxseg.inference.pipeline import pipeline
from flaxseg.inference.predict import Predictor
from flaxseg.inference.record import Record
from flaxseg.inference.remarks import Remarks
from flaxseg.inference.segmenter import Segmenter
from flaxseg.inference.summaries import (
    COCO_FILE,
    SUMMARY_FILE,
    Facts,
    write_coco,
    write_summary,
)
from flaxseg.inference.views import PLAIN, Views
from flaxseg.inference.windows import Size, Windows, make_windows
from flaxseg.labels import LabelSet
from flaxseg.model_dir import CONFIG_FILE, WEIGHTS_FILE, store_temperature
from flaxseg.ops import Precision
from flaxseg.pictures.kinds import USUAL
from flaxseg.pictures.open import MAX_PIXELS, check_max_pixels
from flaxseg.printed import print_line
from flaxseg.sharding import make_mesh

Pathlike = str | os.PathLike[str]
T = TypeVar("T")

MODEL_FOLDER = "model"
"""Where a training work directory keeps its model directory."""

_MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE)
_VIEW = (
    *("eval_size", "eval_base_size", "eval_multiple", "eval_window", "eval_stride"),
    "interpolation",
)
_BATCH_SIZE = 8


def resolve_model_dir(path: Pathlike) -> Path:
    """The model directory that a user's path means.

    Args:
        path: a model directory (config.json and model.safetensors), or the work directory of a
            training run, whose model directory is `model`; a file of `flaxseg export` is returned
            as it is.

    Raises:
        CheckpointError: there is neither, with what was found instead.
    """
    path = Path(path)
    if kind_of(path):
        return path
    for candidate in (path / MODEL_FOLDER, path):
        if all((candidate / name).is_file() for name in _MODEL_FILES):
            return candidate
    raise CheckpointError(
        f"{path} is neither a model directory, which holds {' and '.join(_MODEL_FILES)}, nor the "
        f"work directory of a training run, which holds {MODEL_FOLDER}/ with them, nor a file of "
        f"flaxseg export: found {_found(path)}"
    )


def _files_of(model: Path) -> list[Path]:
    """The files of a model that `resolve_model_dir` found."""
    return files_of(model) if kind_of(model) else [model / name for name in _MODEL_FILES]


def _found(path: Path) -> str:
    if path.is_file():
        return "a file"
    if not path.exists():
        return "nothing of that name"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    return ", ".join(names[:8]) + ", …" * (len(names) > 8) if names else "an empty folder"


def predict_files(
    model_dir: Pathlike,
    images: Sequence[Pathlike],
    out: Pathlike,
    *,
    write: Sequence[str] = USUAL,
    min_confidence: float = 0.0,
    out_size: OutSize = "own",
    overwrite: bool = False,
    alpha: float = 0.5,
    multiple: int | None = None,
    size: tuple[int, int] | None = None,
    max_side: int | None = 2048,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    scales: Sequence[float] = PLAIN.scales,
    flip: bool = False,
    batch_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    matmul_precision: Precision = "highest",
    console: Console | None = None,
) -> list[Path]:
    """Segments photos and writes pictures of each, and files about all.

    `NAME_mask.png` holds the class ids as a palette picture, `NAME_color.png` the colours of the
    classes, `NAME_overlay.png` the photo with the colours over it and a legend below,
    `NAME_confidence.png` the highest probability of each pixel, 255 for 1, and
    `NAME_probabilities.npz` those of all classes, `probabilities` (H, W, K) float16 with their
    names, `classes`. NAME is the photo's file name without its suffix, below the subfolders of a
    folder that was given; if two photos share it, the names of all start with their folder, and if
    need be keep the suffix. `summary.csv` has a row, and `coco.json` the regions, of each photo.

    Photos are read ahead of the network and written behind it, a few at a time, so that their
    number takes no memory; those of like size go through it together, on all devices of this
    process. Several processes that `flaxseg.distributed.joined` has brought together deal the
    photos out among themselves; the first one writes the files about all. Photos that cannot be
    read are told of, and the others are written nevertheless. What an earlier run with the same
    model and settings wrote is not done again.

    Args:
        model_dir: model directory or work directory of a training run.
        images: photos that `read_photo` reads, folders of them, with subfolders, patterns such
            as `photos/*.jpg`, `-` for standard input or `@FILE` for a list, see
            `flaxseg.inference.inputs.find_inputs`.
        out: folder to write to; it is made if it does not exist. Inside one of the folders of
            photos it is passed over there.
        write: which of "mask", "color", "overlay", "confidence", "probabilities" and "coco".
        min_confidence: pixels whose highest probability is lower get no class but 255, 0 to 1.
        out_size: height and width of what is written, or "own" for the photo's own, or "model" for
            those at which it is segmented.
        overwrite: does all photos anew, whatever the folder holds.
        alpha: share of the colours in the overlay, 0 to 1.
        multiple: pixels to which height and width are filled up inside, see `Predictor`. None: few
            programs serve photos of all sizes.
        size: height and width in pixels to which a photo is stretched before it is segmented.
            None: as the validation pictures of the training run, if `model_dir` is one.
        max_side: longest side in pixels of a photo that is neither stretched nor looked at through
            windows; a larger one is shrunk. None has no limit.
        window: height and width in pixels of the windows through which the network looks at a
            photo. None: as in the evaluations of the training run, if `model_dir` is one.
        stride: rows and columns from one window to the next; None: two thirds of the window.
        scales: of the size at which the network sees a photo otherwise; with several, or `flip`,
            probabilities are averaged.
        flip: the network looks at the mirrored photo, too.
        batch_size: photos, or windows, that the network sees at a time. None: what makes two
            million pixels on each device, as eight of 512 x 512.
        max_pixels: the largest area of a photo that is read; 0 has no limit.
        matmul_precision: of float32 products on accelerators, see `flaxseg.ops.precision`.
        console: where to show the progress, what is assumed about photos, what is shrunk and what
            cannot be read; None is silent.

    Returns:
        The files of all photos, those that were there before included, and then those about all.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: `write`, `min_confidence`, `out_size`, `alpha`, `multiple`, `size`, `max_side`,
            `window`, `stride`, `scales`, `batch_size` or `max_pixels` does not fit.
        DataError: no photo is given or found, or `out` cannot be written to, or holds predictions
            of another model or with other settings; or, when all others are written, photos cannot
            be read.
    """
    out, kinds = Path(out), check_kinds(write)
    _check_share("alpha", alpha)
    _check_share("min_confidence", min_confidence)
    _check_out_size(out_size)
    check_max_pixels(max_pixels)
    model_folder, views = resolve_model_dir(model_dir), Views(tuple(scales), flip)
    inputs = find_inputs(images, out)
    segmenter = open_segmenter(
        model_dir,
        multiple=multiple,
        size=size,
        max_side=max_side,
        window=window,
        stride=stride,
        views=views,
        batch_size=batch_size,
        photos=-(-len(inputs.photos) // distributed.count()),
        matmul_precision=matmul_precision,
    )
    if needed_detail(kinds, min_confidence) != "label" or not views.plain:
        asks = "a confidence or probability (--write, --min-confidence, --scales, --flip)"
        require_logits(segmenter, asks)
    labels, settings = segmenter.predictor.label_set, _settings(Path(model_dir))
    endings = [OUTPUTS[kind].ending for kind in kinds if kind in OUTPUTS]
    targets = output_files(inputs.photos, out, endings)
    make_folder(out)
    made_with = {
        "--min-confidence": min_confidence,
        "--out-size": out_size,
        "--alpha": alpha,
        "--multiple": multiple,
        "--size": size,
        "--max-side": max_side,
        "--window": window,
        "--stride": stride,
        **({} if views == PLAIN else {"--scales": views.scales, "--flip": flip}),
        "--matmul-precision": matmul_precision,
        "the training run's view": {name: settings.get(name) for name in _VIEW},
    }
    model = fingerprint(_files_of(model_folder))
    journal = Journal(out, model, made_with, distributed.index())
    if distributed.is_first():
        journal.open(overwrite)
    distributed.wait_for_all("the journal is open")
    if not distributed.is_first():
        journal.look()
    remarks = Remarks(console)
    pairs = list(zip(inputs.photos, targets, strict=True))
    jobs = [pair for pair in pairs if not journal.done(*pair, kinds)]
    if distributed.is_first():
        remarks.say(inputs.passed_over)
        if len(jobs) < len(pairs):
            remarks.say(f"{len(pairs) - len(jobs)} of {len(pairs)} photos were done before")
    jobs = _own_share(jobs)
    task = PhotoTask(
        segmenter,
        kinds,
        out_size,
        min_confidence,
        alpha,
        max_pixels,
        remarks,
    )
    problems = _run(task, jobs, journal, console)
    remarks.finish()
    names = [target.name for target in targets]
    distributed.wait_for_all("all photos are done")
    about = _files_about(out, kinds)
    if distributed.is_first():
        journal.join()
        _write_about(about, functools.partial(journal.records, names), labels)
    distributed.wait_for_all("the files about all photos are written")
    rest = f", the others are in {out}" if len(problems) < len(pairs) else ""
    _raise_of_any(lambda: raise_problems(problems, f"of {len(pairs)} photos cannot be used{rest}"))
    return [file for target in targets for file in target.files] + about


def open_segmenter(
    model_dir: Pathlike,
    *,
    multiple: int | None = None,
    size: tuple[int, int] | None = None,
    max_side: int | None = 2048,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    views: Views = PLAIN,
    batch_size: int | None = None,
    photos: int = 1,
    matmul_precision: Precision = "highest",
) -> Segmenter:
    """A model that looks at photos as `predict_files` does, whose arguments these are.

    Args:
        views: the `scales`, and whether to `flip`.
        photos: how many there are; they are spread over the devices of this process.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: `multiple`, `size`, `max_side`, `window`, `stride` or `batch_size` does not
            fit.
    """
    loaded = native.load_with_meta(resolve_model_dir(model_dir), matmul_precision=matmul_precision)
    settings = _settings(Path(model_dir))
    windows = _windows(settings, window, stride)
    predictor = Predictor(
        loaded.model,
        loaded.labels,
        loaded.preprocess,
        loaded.temperature,
        multiple=multiple,
        windows=windows,
        canvases=_canvases(settings, size, max_side),
        views=views,
        batch_size=batch_size,
        photos=photos,
        mesh=_own_devices(None if windows else photos),
    )
    predictor.inner_size((1, 1), size, max_side)  # refuses senseless ones before any work
    return Segmenter(
        predictor,
        _sizes_of(settings, size),
        max_side,
        settings.get("interpolation", "bilinear"),
        getattr(loaded.model, "labels_only", False),
    )


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}, it must be from 0 to 1")


def _check_out_size(out_size: Any) -> None:
    if out_size not in ("own", "model") and not (len(out_size) == 2 and min(out_size) >= 1):
        raise ConfigError(
            f"out_size is {out_size!r}, it must be own, model, or a height and a width of at least "
            "1 pixel each"
        )


def _run(
    task: PhotoTask, jobs: Sequence[Job], journal: Journal, console: Console | None
) -> list[str]:
    """Takes all photos through; returns what is wrong with those that cannot be used."""
    problems: list[str] = []
    shown = console if distributed.is_first() else None
    steps = pipeline(jobs, task.read, task.start, task.write, task.batching)
    with contextlib.closing(steps) as outcomes:
        for _, outcome in _tracked(outcomes, "predicting", shown, len(jobs)):
            if isinstance(outcome, DataError):
                problems.append(" ".join(str(outcome).split()))
                task.remarks.say(f"left out: {problems[-1]}")
            else:
                journal.add(outcome)
    return problems


def _own_share(jobs: Sequence[Job]) -> Sequence[Job]:
    """Every n-th photo that is left, in each of n processes; all must have found the same ones."""
    names = "\n".join(target.name for _, target in jobs)
    found = f"{len(jobs)} photos ({hashlib.sha256(names.encode()).hexdigest()[:8]}…)"

    def difference(theirs: str) -> str:
        return f"process 0 has found {theirs} to do, this one {found}: all must see the same files"

    distributed.check_equal("photos to do", found, difference)
    # All must know what is left before anyone does something of it.
    distributed.wait_for_all("the photos are dealt out")
    return jobs[distributed.index() :: distributed.count()]


def _raise_of_any(check: Callable[[], None]) -> None:
    """Raises the `DataError` of a check in this process, or that of another one."""
    error = None
    try:
        check()
    except DataError as own:
        error = own
    said = distributed.said_by_any(None if error is None else str(error))
    if said is not None:
        raise error or DataError(said)


def _files_about(out: Path, kinds: Sequence[str]) -> list[Path]:
    """The files about all photos."""
    return [out / SUMMARY_FILE] + [out / COCO_FILE] * ("coco" in kinds)


def _write_about(
    files: Sequence[Path], records: Callable[[], Iterable[Facts]], labels: LabelSet
) -> None:
    """Writes them."""
    write_summary(files[0], records(), labels)
    for file in files[1:]:
        write_coco(file, records, labels)


def _sizes_of(settings: dict[str, Any], size: Size | None) -> Callable[[Size, float], Size] | None:
    """From a photo's size and a scale to the size at which it is to be seen, if that is another."""
    transform = _eval_transform(settings)
    if size is not None:
        return EvalTransform(size).seen_size
    if transform == EvalTransform(interpolation=transform.interpolation):
        return None
    return transform.seen_size


def _own_devices(most: int | None) -> Mesh | None:
    """A mesh of the devices of this process, or of some; None for a single one."""
    devices = jax.local_devices()[:most]
    return make_mesh(devices) if len(devices) > 1 else None


def _canvases(
    settings: dict[str, Any], size: Size | None = None, max_side: int | None = None
) -> Canvases:
    """Sizes on which pictures fit, whatever theirs."""
    size = size or settings.get("eval_size")
    if size is not None:
        return Canvases((size,))
    base, multiple = settings.get("eval_base_size"), settings.get("eval_multiple", 1)
    return Canvases.seen(base, multiple, max_side or USUAL_SIDE)


def _eval_transform(settings: dict[str, Any]) -> EvalTransform:
    """What the validation pictures of a training run went through."""
    return EvalTransform(
        settings.get("eval_size"),
        settings.get("interpolation", "bilinear"),
        settings.get("eval_base_size"),
        settings.get("eval_multiple", 1),
    )


def _windows(settings: dict[str, Any], window: Any = None, stride: Any = None) -> Windows | None:
    """The windows that are asked for, or those of the training run."""
    if window is None:
        window, stride = settings.get("eval_window"), stride or settings.get("eval_stride")
    return make_windows(window, stride)


def _tracked(
    items: Iterable[T], text: str, console: Console | None, total: int | None = None
) -> Iterable[T]:
    """The items, with a progress bar that goes when they are through."""
    if console is None:
        return items
    return track(items, text, total=total, console=console, transient=True)


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
    settings: dict[str, Any] = _settings(Path(path))
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
    transform = _eval_transform(settings)
    canvases, windows = _canvases(settings), _windows(settings)
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
            _tracked(batches, "evaluating", console),
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
            _tracked(eval_loader(source, EvalTransform(), batch_size=1), "evaluating", console),
            transform,
            labels=loaded.labels,
            metrics=settings.get("metrics", ()),
            watch=log,
        )
    if console is not None:
        console.print(scores_table(scores, loaded.labels))
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
        lambda: _tracked(batches, "calibrating", console),
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


def _settings(path: Path) -> dict[str, Any]:
    """The training configuration beside a model directory; empty if there is none."""
    file = path / CONFIG_FILE
    if not (path / MODEL_FOLDER).is_dir() or not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is not readable JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} is not a training configuration: it must hold a JSON object")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if v is not None}


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
