"""What the commands `flaxseg predict` and `flaxseg eval` do: from files to files and scores."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from flaxseg import native
from flaxseg.data import EvalTransform, Source, check_labels, eval_loader, open_run_source
from flaxseg.data.problems import gather
from flaxseg.errors import CheckpointError, ConfigError, DataError
from flaxseg.inference.evaluate import evaluate
from flaxseg.inference.metrics import Scores, scores_table
from flaxseg.inference.predict import Predictor, inner_size
from flaxseg.inference.windows import Windows, make_windows
from flaxseg.labels import LabelSet
from flaxseg.model_dir import CONFIG_FILE, WEIGHTS_FILE
from flaxseg.pictures.overlay import colorize, overlay, with_legend
from flaxseg.pictures.photos import read_photo
from flaxseg.pictures.write import write_image, write_mask

Pathlike = str | os.PathLike[str]
T = TypeVar("T")

MODEL_FOLDER = "model"
"""Where a training work directory keeps its model directory."""

_MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE)
_BATCH_SIZE = 8
_OUTPUTS = ("mask", "color", "overlay")


def resolve_model_dir(path: Pathlike) -> Path:
    """The model directory that a user's path means.

    Args:
        path: a model directory (config.json and model.safetensors), or the work directory of a
            training run, whose model directory is `model`.

    Raises:
        CheckpointError: there is neither, with what was found instead.
    """
    path = Path(path)
    for candidate in (path / MODEL_FOLDER, path):
        if all((candidate / name).is_file() for name in _MODEL_FILES):
            return candidate
    raise CheckpointError(
        f"{path} is neither a model directory, which holds {' and '.join(_MODEL_FILES)}, nor the "
        f"work directory of a training run, which holds {MODEL_FOLDER}/ with them: "
        f"found {_found(path)}"
    )


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
    alpha: float = 0.5,
    multiple: int = 32,
    size: tuple[int, int] | None = None,
    max_side: int | None = 2048,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    console: Console | None = None,
) -> list[Path]:
    """Segments photos and writes three pictures for each, at the photo's own size.

    `NAME_mask.png` holds the class ids as a palette picture, `NAME_color.png` the colours of the
    classes, `NAME_overlay.png` the photo with the colours over it and a legend below. NAME is the
    photo's file name without its suffix; if two photos share it, the names of all start with
    their folder, and if need be keep the suffix.

    Args:
        model_dir: model directory or work directory of a training run.
        images: photos in any format that `read_photo` reads.
        out: folder to write to; it is made if it does not exist.
        alpha: share of the colours in the overlay, 0 to 1.
        multiple: pixels to which height and width are rounded up inside, see `Predictor`.
        size: height and width in pixels to which a photo is stretched before it is segmented.
            None: as the validation pictures of the training run, if `model_dir` is one.
        max_side: longest side in pixels of a photo that is not stretched; a larger one is shrunk.
            None has no limit.
        window: height and width in pixels of the windows through which the network looks at a
            photo. None: as in the evaluations of the training run, if `model_dir` is one.
        stride: rows and columns from one window to the next; None: two thirds of the window.
        console: where to show the progress and what is shrunk; None is silent.

    Returns:
        The files written, three per photo.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: `alpha`, `multiple`, `size`, `max_side`, `window` or `stride` does not fit.
        DataError: no photo is given, one cannot be read, or `out` cannot be written to. All
            photos are read before the first file is written.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha}, it must be from 0 to 1")
    loaded = native.load_with_meta(resolve_model_dir(model_dir))
    settings = _settings(Path(model_dir))
    predictor = Predictor(
        loaded.model,
        loaded.labels,
        loaded.preprocess,
        multiple=multiple,
        windows=_windows(settings, window, stride),
    )
    seen_size = _sizes_of(settings, size)
    paths = list({os.path.abspath(path): Path(path) for path in images}.values())
    targets = _targets(paths, Path(out))
    shapes = gather(lambda path: read_photo(path).shape, paths, "images")
    for path, shape in zip(paths, shapes, strict=True):
        _check_size(path, shape[:2], seen_size(shape[:2]), max_side, console)
    _make_folder(Path(out))
    pairs = list(zip(paths, targets, strict=True))
    for path, files in _tracked(pairs, "predicting", console):
        image = read_photo(path)
        own = (image.shape[0], image.shape[1])
        label = predictor.labels(
            image,
            size=seen_size(own),
            max_side=max_side,
            interpolation=settings.get("interpolation", "bilinear"),
        )
        _write(image, label, loaded.labels, alpha, files)
    return [file for files in targets for file in files]


def _sizes_of(
    settings: dict[str, Any], size: tuple[int, int] | None
) -> Callable[[tuple[int, int]], tuple[int, int] | None]:
    """From a photo's size to the one that is asked for, or at which the run saw such pictures."""
    transform = _eval_transform(settings)
    if size is not None or transform == EvalTransform(interpolation=transform.interpolation):
        return lambda own: size
    return transform.seen_size


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


def _check_size(
    path: Path,
    own: tuple[int, int],
    size: tuple[int, int] | None,
    max_side: int | None,
    console: Console | None,
) -> None:
    """Makes sure that the sizes fit, and says so if a photo is too large for them."""
    height, width = inner_size(own, size, max_side)
    if console is not None and size is None and (height, width) != own:
        line = f"{path}: {own[0]} x {own[1]} pixels are segmented at {height} x {width}"
        console.print(f"{line}, see --max-side", soft_wrap=True, highlight=False)


def _write(
    image: np.ndarray, label: np.ndarray, labels: LabelSet, alpha: float, files: list[Path]
) -> None:
    mask, color, blend = files
    write_mask(mask, label, labels.palette)
    write_image(color, colorize(label, labels.palette))
    write_image(blend, with_legend(overlay(image, label, labels, alpha), label, labels))


def _targets(paths: list[Path], out: Path) -> list[list[Path]]:
    """The output files of every photo, none of which is a photo to read."""
    if not paths:
        raise DataError("no image is given: name at least one file")
    targets = [[out / f"{n}_{kind}.png" for kind in _OUTPUTS] for n in output_names(paths)]
    inputs = {path.resolve(): path for path in paths}
    for file in (file for files in targets for file in files):
        if file.resolve() in inputs:
            raise DataError(
                f"the output {file} would overwrite the image {inputs[file.resolve()]}: choose "
                "another output folder"
            )
    return targets


def output_names(paths: Sequence[Path]) -> list[str]:
    """Different names for the outputs of different photos, as short as they can be.

    Args:
        paths: different files.

    Returns:
        The file names without suffix if they differ; else with the folder in front; else the
        whole path below the folder they share, suffix included.

    Raises:
        DataError: even those agree.
    """
    full = [path.absolute() for path in paths]
    shared = Path(os.path.commonpath([path.parent for path in full]))
    below = ["_".join(path.relative_to(shared).parts).replace(".", "_") for path in full]
    folder_and_stem = [f"{path.parent.name}_{path.stem}" for path in full]
    for names in ([path.stem for path in full], folder_and_stem, below):
        if len({name.casefold() for name in names}) == len(names):
            return names
    same = next(name for name in below if sum(n.casefold() == name.casefold() for n in below) > 1)
    raise DataError(f"several images would be written to {same}_mask.png: predict them apart")


def _make_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"the output folder {out} is a file: choose another name")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the output folder {out} cannot be made: {error.strerror}") from error


def _tracked(items: Iterable[T], text: str, console: Console | None) -> Iterable[T]:
    """The items, with a progress bar that goes when they are through."""
    return items if console is None else track(items, text, console=console, transient=True)


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
    metrics: Sequence[str] | None = None,
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
        metrics: further scores, see `flaxseg.inference.more_metrics`.
        console: where the table goes; None prints nothing.

    Returns:
        The scores.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: no data set is named, it has other classes than the model, or sizes, windows or
            metrics do not fit.
        DataError: the data set is missing or its labels do not fit.
    """
    directory = resolve_model_dir(path)
    settings: dict[str, Any] = _settings(Path(path))
    loaded = native.load_with_meta(directory, dtype=settings.get("dtype", "float32"))
    if data is not None and data != settings.get("data"):
        settings = {"data": data}
    if "data" not in settings:
        raise ConfigError(f"{path} does not say on which data it was trained: give --data NAME")
    settings = _viewed(
        settings,
        eval_size=eval_size,
        eval_base_size=eval_base_size,
        eval_multiple=eval_multiple,
        eval_window=eval_window,
        eval_stride=eval_stride,
        metrics=metrics,
    )
    as_trained = ("data_dir", "image_size", "limit")
    options: dict[str, Any] = {key: settings.get(key) for key in as_trained}
    options["on_bad_sample"] = settings.get("on_bad_sample", "error")
    options["data_dir"] = data_dir or options["data_dir"]
    source = open_run_source(settings["data"], split, **options)
    _check_classes(loaded.labels, source)
    check_labels(source)
    usual = settings.get("eval_batch_size", settings.get("batch_size", _BATCH_SIZE))
    size: int = usual if batch_size is None else batch_size
    batches = eval_loader(source, _eval_transform(settings), batch_size=size)
    scores = evaluate(
        loaded.model,
        _tracked(batches, "evaluating", console),
        labels=loaded.labels,
        preprocess=loaded.preprocess,
        windows=_windows(settings),
        metrics=settings.get("metrics", ()),
    )
    if console is not None:
        console.print(scores_table(scores, loaded.labels))
    return scores


def _viewed(settings: dict[str, Any], **given: Any) -> dict[str, Any]:
    """The settings of a training run, with what was given in their place.

    Who names one size wants none of the others, and who names windows not the run's strides.
    """
    given = {name: value for name, value in given.items() if value is not None}
    dropped = set().union(*(_TOGETHER.get(name, ()) for name in given))
    return {name: value for name, value in settings.items() if name not in dropped} | given


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


def _check_classes(labels: LabelSet, source: Source) -> None:
    """The data set must have the model's classes; numbered classes stand for any names."""
    named = labels.classes != LabelSet.generic(labels.num_classes).classes
    if labels.num_classes != source.labels.num_classes or (
        named and labels.classes != source.labels.classes
    ):
        raise ConfigError(
            f"the model knows {labels.num_classes} classes ({_names(labels)}), data set "
            f"{source.labels.name!r} has {source.labels.num_classes} ({_names(source.labels)}): "
            "give the --data and --data-dir that it was trained on"
        )


def _names(labels: LabelSet) -> str:
    return ", ".join(labels.classes[:4]) + ", …" * (labels.num_classes > 4)
