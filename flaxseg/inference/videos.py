"""The way of a video through `flaxseg predict`: frame by frame, and never all of them in memory."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flaxseg.errors import ConfigError, DataError
from flaxseg.inference.inputs import Input
from flaxseg.inference.outputs import Segmented, blended, facts_of, make_folder
from flaxseg.inference.photos import Job, PhotoTask, Read
from flaxseg.inference.pipeline import pipeline
from flaxseg.inference.pixels import Pixels, grey
from flaxseg.inference.summaries import Facts, frames_head, frames_line
from flaxseg.pictures.legend import with_legend
from flaxseg.pictures.overlay import colorize
from flaxseg.pictures.write import write_image, written
from flaxseg.video.ffmpeg import find_ffmpeg
from flaxseg.video.read import Frame, read_video
from flaxseg.video.write import LOSSLESS, PLAYABLE, Coding, written_video


class VideoOutput(NamedTuple):
    """A kind of video that there is one of for each video.

    Attributes:
        ending: of its name, after `NAME_`.
        coding: how it is stored.
        draw: its frame.
        sound: it gets the sound of the video.
    """

    ending: str
    coding: Coding
    draw: Callable[[Segmented], np.ndarray]
    sound: bool = False


def _color(given: Segmented) -> np.ndarray:
    return colorize(given.pixels.label, given.labels.palette)


def _confidence(given: Segmented) -> np.ndarray:
    assert given.pixels.confidence is not None
    return grey(given.pixels.confidence)


# Numbers are never given to a codec that may change them.
VIDEO_OUTPUTS: dict[str, VideoOutput] = {
    "mask": VideoOutput("mask.mkv", LOSSLESS, lambda given: given.pixels.label),
    "color": VideoOutput("color.mp4", PLAYABLE, _color),
    "overlay": VideoOutput("overlay.mp4", PLAYABLE, blended, sound=True),
    "confidence": VideoOutput("confidence.mkv", LOSSLESS, _confidence),
}
"""Those that a video has; the others would be larger than the video by far."""

_POSTER = "overlay.png"
_FRAMES = "frames.csv"


def check_videos(videos: Sequence[Input], kinds: Sequence[str]) -> None:
    """Makes sure that videos can be read, and that what is asked for exists of them.

    Raises:
        ConfigError: there are videos, and ffmpeg or a kind of output is missing.
    """
    if not videos:
        return
    for kind in kinds:
        if kind not in VIDEO_OUTPUTS:
            raise ConfigError(
                f"--write {kind}: not of a video, such as {videos[0].path}; videos have "
                f"{', '.join(VIDEO_OUTPUTS)}: predict photos apart, or leave {kind} out"
            )
    find_ffmpeg()


def video_endings(kinds: Sequence[str]) -> list[str]:
    """What follows the name and `_` in the files of a video.

    They are a video of each kind, a picture of the first frame with the legend of all where there
    is an overlay, and a table of the frames.
    """
    posters = [_POSTER] * ("overlay" in kinds)
    return [*(VIDEO_OUTPUTS[kind].ending for kind in kinds), *posters, _FRAMES]


class _Drawn(NamedTuple):
    """What is written of a frame: a picture for each kind, and what is known of it."""

    pictures: list[np.ndarray]
    facts: Facts


class _Total:
    """What is known of all frames so far."""

    def __init__(self):
        self._frames, self._sums = 0, np.zeros(0, np.int64)
        self._last: Facts = {}
        self._confidence = 0.0

    def add(self, facts: Facts) -> None:
        """Adds what is known of a frame."""
        counts = np.array([*facts["counts"], facts["unsure"]])
        self._sums = counts + self._sums if self._frames else counts
        self._frames, self._last = self._frames + 1, facts
        self._confidence += facts["confidence"] or 0.0

    @property
    def facts(self) -> Facts:
        """The same of the video: pixels of all frames are counted, and the mean is over all."""
        *counts, unsure = self._sums.tolist()
        known = self._last["confidence"] is not None
        mean = self._confidence / self._frames if known else None
        return {**self._last, "counts": counts, "unsure": unsure, "confidence": mean}


def run_video(
    task: PhotoTask, job: Job, watched: Callable[[Iterable[Any]], Iterable[Any]]
) -> Facts:
    """Segments a video and writes its outputs, which appear when the last frame is through.

    Args:
        task: how each frame is seen, and what is written.
        job: the video, and where its outputs go.
        watched: passes the frames on, and shows how they go through.

    Returns:
        What is to be known of the video, for the `Journal`.

    Raises:
        DataError: the video cannot be used, or an output cannot be written.
    """
    source, target = job
    state = source.state()
    say = functools.partial(task.remarks.say_of, source.path)
    outputs = [VIDEO_OUTPUTS[kind] for kind in task.kinds]
    total = _Total()
    make_folder(target.files[0].parent)
    with contextlib.ExitStack() as stack:
        frames = read_video(source.path, max_pixels=task.max_pixels, say=say)
        stack.enter_context(contextlib.closing(frames))
        table = stack.enter_context(written(target.files[-1]))
        table.write(frames_head(task.segmenter.predictor.label_set))
        writers = [
            stack.enter_context(
                written_video(file, output.coding, source.path if output.sound else None, say)
            )
            for output, file in zip(outputs, target.files, strict=False)
        ]
        drawn = _drawn(task, source.path, frames, outputs)
        stack.enter_context(contextlib.closing(drawn))
        poster = None
        for (number, frame), done in watched(drawn):
            if isinstance(done, DataError):
                raise done
            for put, picture in zip(writers, done.pictures, strict=True):
                put(picture, frame)
            table.write(frames_line(number, frame.time, done.facts))
            total.add(done.facts)
            if poster is None and "overlay" in task.kinds:
                poster = done.pictures[task.kinds.index("overlay")]
    if poster is not None:
        labels = task.segmenter.predictor.label_set
        write_image(target.files[-2], with_legend(poster, _occurring(total.facts), labels))
    return {
        "name": target.name,
        "file": str(source.path),
        "state": state,
        "kinds": list(task.kinds),
        **total.facts,
    }


def _occurring(facts: Facts) -> np.ndarray:
    """The classes that occur."""
    return np.flatnonzero(facts["counts"])


def _drawn(task: PhotoTask, path: Path, frames: Iterable[Frame], outputs: Sequence[VideoOutput]):
    """The frames with their numbers from 1 on, and what is drawn of each, in order."""

    def read(item: tuple[int, Frame]) -> Read:
        return task.seen(item[1].pixels)

    def start(items: Sequence[tuple[tuple[int, Frame], Read]]):
        for (number, _), content in items:
            if number == 1:
                task.remark(path, content)
        contents = [content for _, content in items]
        pictures = [content.pixels for content in contents]
        return list(zip(pictures, task.look(contents), strict=True))

    def write(started: tuple[np.ndarray, Callable[[], Pixels]]) -> _Drawn:
        picture, wait = started
        result = task.result(picture, wait())
        pictures = [output.draw(result) for output in outputs]
        return _Drawn(pictures, facts_of(result, task.kinds))

    return pipeline(enumerate(frames, 1), read, start, write, task.batching)
