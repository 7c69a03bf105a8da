"""What `flaxseg predict` does: from photos to pictures of what they show."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flaxseg import distributed
from flaxseg.data.problems import raise_problems
from flaxseg.errors import ConfigError, DataError
from flaxseg.exported import require_logits
from flaxseg.inference.inputs import Input, Target, find_inputs, output_files
from flaxseg.inference.journal import Journal, fingerprint
from flaxseg.inference.opening import Pathlike, model_files, resolve_model_dir, run_settings
from flaxseg.inference.outputs import OUTPUTS, check_kinds, make_folder, needed_detail
from flaxseg.inference.photos import Job, OutSize, PhotoTask
from flaxseg.inference.pipeline import pipeline
from flaxseg.inference.remarks import Remarks
from flaxseg.inference.run_view import VIEW
from flaxseg.inference.segmenter import open_segmenter
from flaxseg.inference.summaries import (
    COCO_FILE,
    SUMMARY_FILE,
    Facts,
    write_coco,
    write_summary,
)
from flaxseg.inference.videos import check_videos, run_video, video_endings
from flaxseg.inference.views import PLAIN, Views
from flaxseg.labels import LabelSet
from flaxseg.ops import Precision
from flaxseg.pictures.coordinates import is_ours
from flaxseg.pictures.kinds import USUAL
from flaxseg.pictures.open import MAX_PIXELS, check_max_pixels
from flaxseg.pictures.write import beside
from flaxseg.printed import tracked


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
    """Segments photos and videos and writes pictures of each, and files about all.

    `NAME_mask.png` holds the class ids as a palette picture, `NAME_color.png` the colours of the
    classes, `NAME_overlay.png` the photo with the colours over it and a legend below,
    `NAME_confidence.png` the highest probability of each pixel, 255 for 1, and
    `NAME_probabilities.npz` those of all classes, `probabilities` (H, W, K) float16 with their
    names, `classes`. NAME is the photo's file name without its suffix, below the subfolders of a
    folder that was given; if two photos share it, the names of all start with their folder, and if
    need be keep the suffix. Of photos with coordinates, mask, colours and confidence are written as
    GeoTIFFs, too, `NAME_mask.tif` and so on. `summary.csv` has a row, and `coco.json` the regions,
    of each photo.

    Files that are named as videos are segmented frame by frame, after the photos, and give videos:
    `NAME_mask.mkv` and `NAME_confidence.mkv`, which are lossless, `NAME_color.mp4` and
    `NAME_overlay.mp4`, and a table of the frames, `NAME_frames.csv`. They appear
    when all are done.

    Photos are read ahead of the network and written behind it, a few at a time, so that their
    number takes no memory; those of like size go through it together, on all devices of this
    process. Several processes that `flaxseg.distributed.joined` has brought together deal the
    photos out among themselves; the first one writes the files about all. Photos that cannot be
    read are told of, and the others are written nevertheless. What an earlier run with the same
    model and settings wrote is not done again.

    Args:
        model_dir: model directory or work directory of a training run.
        images: photos that `read_photo` reads, videos that `flaxseg.video.read.read_video` does,
            folders of them, with subfolders, patterns such as `photos/*.jpg`, `-` for a photo from
            standard input or `@FILE` for a list, see `flaxseg.inference.inputs.find_inputs`.
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
        max_pixels: the largest area of a photo or a frame that is read; 0 has no limit.
        matmul_precision: of float32 products on accelerators, see `flaxseg.ops.precision`.
        console: where to show the progress, what is assumed about photos, what is shrunk and what
            cannot be read; None is silent.

    Returns:
        The files of all photos, those that were there before included, and then those about all.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: `write`, `min_confidence`, `out_size`, `alpha`, `multiple`, `size`, `max_side`,
            `window`, `stride`, `scales`, `batch_size` or `max_pixels` does not fit, or there is a
            video and no ffmpeg, or a kind that videos do not have.
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
    inputs = find_inputs(images, out, videos=True)
    check_videos(inputs.videos, kinds)
    items = inputs.photos + inputs.videos
    segmenter = open_segmenter(
        model_dir,
        multiple=multiple,
        size=size,
        max_side=max_side,
        window=window,
        stride=stride,
        views=views,
        batch_size=batch_size,
        photos=None if inputs.videos else -(-len(items) // distributed.count()),
        matmul_precision=matmul_precision,
    )
    if needed_detail(kinds, min_confidence) != "label" or not views.plain:
        asks = "a confidence or probability (--write, --min-confidence, --scales, --flip)"
        require_logits(segmenter, asks)
    labels, settings = segmenter.predictor.label_set, run_settings(Path(model_dir))
    targets = output_files(
        items, out, functools.partial(_endings, kinds), functools.partial(_beside, kinds)
    )
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
        "the training run's view": {name: settings.get(name) for name in VIEW},
    }
    model = fingerprint(model_files(model_folder))
    journal = Journal(out, model, made_with, distributed.index())
    if distributed.is_first():
        journal.open(overwrite)
    distributed.wait_for_all("the journal is open")
    if not distributed.is_first():
        journal.look()
    remarks, what = Remarks(console), "photos and videos" if inputs.videos else "photos"
    pairs = list(zip(items, targets, strict=True))
    jobs = [pair for pair in pairs if not journal.done(*pair, kinds)]
    if distributed.is_first():
        remarks.say(inputs.passed_over)
        if len(jobs) < len(pairs):
            remarks.say(f"{len(pairs) - len(jobs)} of {len(pairs)} {what} were done before")
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
    _raise_of_any(lambda: raise_problems(problems, f"of {len(pairs)} {what} cannot be used{rest}"))
    return [file for target in targets for file in _there(target)] + about


def _there(target: Target) -> list[Path]:
    """The files of a photo or a video."""
    return target.files + [file for file in target.beside if is_ours(file)]


def _endings(kinds: Sequence[str], item: Input) -> list[str]:
    """What follows the name and `_` in the files of a photo or a video."""
    if item.video:
        return video_endings(kinds)
    return [OUTPUTS[kind].ending for kind in kinds if kind in OUTPUTS]


def _beside(kinds: Sequence[str], item: Input) -> list[str]:
    """The same of the files that a photo with coordinates has besides."""
    if item.video:
        return []
    placed = (OUTPUTS[kind] for kind in kinds if kind in OUTPUTS and OUTPUTS[kind].placed)
    return [beside(Path(output.ending)).name for output in placed]


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
    """Takes all photos through, and then each video; returns what is wrong with some."""
    problems: list[str] = []
    shown = console if distributed.is_first() else None

    def note(outcome: Facts | DataError) -> None:
        if isinstance(outcome, DataError):
            problems.append(" ".join(str(outcome).split()))
            task.remarks.say(f"left out: {problems[-1]}")
        else:
            journal.add(outcome)

    photos = [job for job in jobs if not job[0].video]
    steps = pipeline(photos, task.read, task.start, task.write, task.batching)
    with contextlib.closing(steps) as outcomes:
        for _, outcome in tracked(outcomes, "predicting", shown, len(photos)):
            note(outcome)
    for job in (job for job in jobs if job[0].video):
        try:
            name = job[0].path.name
            note(run_video(task, job, lambda frames, name=name: tracked(frames, name, shown)))
        except DataError as error:
            note(error)
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
