"""Reads a video frame by frame, as a player shows it.

| what a file holds | becomes |
|---|---|
| a display matrix, as phones write it | upright frames |
| times of frames, even or not | the same times, from the start of the file |
| pixels that are not square | square ones, by stretching the width |
| YUV | RGB by the matrix that the file names, or BT.601 where it names none |
| more than 8 bits | 8 bits; no tone mapping |
| several video streams | the first that is no cover picture |
| frames of several sizes | frames of the first one's size |
"""

import queue
import re
import subprocess
import threading
from collections.abc import Callable, Generator
from fractions import Fraction
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from flaxseg.errors import DataError
from flaxseg.pictures.open import MAX_PIXELS
from flaxseg.video.ffmpeg import QUIET, TIMES, complaint, find_ffmpeg, opening, plain, run

_SQUARE = "scale=w='trunc(iw*clip(sar,0.1,10)+0.5)':h=ih,setsar=1"
_STREAM = "0:V:0"  # which is no cover picture
_PPM = ("-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "pipe:1")  # sizes stand in it
_ANY = 2**31 - 1
_TIME = re.compile(rb"flaxseg-frame (\S+) (\d+)/(\d+)")
_REWRITE = "write it anew, as by ffmpeg -i OLD -fps_mode vfr NEW.mkv"


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, of one size in all of a video.
        time: in seconds from the start of the file, at which it is shown.
        tick: of which all times of the video are multiples, in seconds.
    """

    pixels: np.ndarray
    time: Fraction
    tick: Fraction


def read_video(
    path: Path, *, max_pixels: int = MAX_PIXELS, say: Callable[[str], object] = lambda line: None
) -> Generator[Frame]:
    """The frames of a video, each decoded when it is drawn; to be closed.

    Args:
        path: a video file.
        max_pixels: the largest area of a frame; 0 has no limit.
        say: gets a line about damage that did not keep the frames from being read.

    Yields:
        At least one frame; times rise from frame to frame.

    Raises:
        ConfigError: there is no usable ffmpeg.
        DataError: the file is missing, empty, no video, too large, or damaged in such a way that
            there are no frames or no times; or most of it is damaged.
    """
    _check_content(path)
    # Of what it decodes, before the size can be seen here.
    largest = min(max(max_pixels, MAX_PIXELS), _ANY) if max_pixels else _ANY
    guard = ["-max_pixels", str(largest)]
    exact = ["-fps_mode", "passthrough", "-enc_time_base", "demux"]
    command = [find_ffmpeg(), *QUIET, *guard, *opening(path), "-map", _STREAM, "-vf", _SQUARE]
    process = subprocess.Popen(
        [*command, *exact, *TIMES, *_PPM],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    told = _Told(process.stderr)
    try:
        count, before = 0, None
        while (pixels := _next_picture(process.stdout, path, max_pixels)) is not None:
            found = told.next_time()
            time, tick = found or (Fraction(-1), Fraction(1))
            if time < 0 or (before is not None and time <= before):
                raise DataError(f"{path}: {_wrong_time(count, found and time, before)}; {_REWRITE}")
            yield Frame(pixels, time, tick)
            count, before = count + 1, time
        code, lines = process.wait(), told.wait()
        if code or not count:
            what = _reason(path, code, lines)
            raise DataError(f"{path}: is no readable video ({what}); replace the file")
        if lines:
            say(f"damaged ({complaint(code, lines)}); {count} frames could be read")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        told.wait()


def _check_content(path: Path) -> None:
    """Raises a `DataError` if a file cannot be read or is empty."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the name") from error
    if empty:
        raise DataError(f"{path}: is no readable video (empty file); replace the file")


def _reason(path: Path, code: int, lines: list[bytes]) -> str:
    """Why there are no frames."""

    def holds(streams: str) -> bool:
        which = ("-map", streams, "-c", "copy", "-t", "0", "-f", "null", "-")
        return run([find_ffmpeg(), *QUIET, *opening(path), *which]) is None

    if holds("0") and not holds(_STREAM):
        return "it holds no video, but sound or something else"
    return complaint(code, lines) if code or lines else "it has no frames"


def _next_picture(stream: IO[bytes], path: Path, max_pixels: int) -> np.ndarray | None:
    """The next picture of ffmpeg's in PPM, three lines and the pixels; None: no whole one."""
    size = [stream.readline() for _ in range(3)][1]
    if not size:
        return None
    width, height = map(int, size.split())
    if max_pixels and width * height > max_pixels:
        raise DataError(
            f"{path}: has frames of {width} x {height} = {width * height} pixels, more than the "
            f"limit of {max_pixels}; give --max-pixels {width * height} if there is memory for them"
        )
    pixels = np.empty((height, width, 3), np.uint8)
    return pixels if stream.readinto(pixels.data.cast("B")) == pixels.size else None  # pyright: ignore


def _wrong_time(number: int, time: Fraction | None, before: Fraction | None) -> str:
    """What is wrong with the time of a frame."""
    at = "has no time" if time is None else f"is at {float(time):.3f} s"
    after = "" if before is None else f", after one at {float(before):.3f} s"
    return f"its times are damaged (frame {number + 1} {at}{after})"


class _Told:
    """What ffmpeg says, which a thread takes down: times of frames, and complaints."""

    _KEPT = 3

    def __init__(self, stream: IO[bytes]):
        self._times: queue.SimpleQueue[tuple[Fraction, Fraction] | None] = queue.SimpleQueue()
        self._complaints: list[bytes] = []
        self._thread = threading.Thread(target=self._listen, args=(stream,), daemon=True)
        self._thread.start()

    def _listen(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._take(line)
        self._times.put(None)

    def _take(self, line: bytes) -> None:
        if found := _TIME.search(line):
            count, *unit = found.groups()
            tick = Fraction(*map(int, unit)) if int(unit[1]) else None
            whole = tick and re.fullmatch(rb"-?\d+", count)
            self._times.put((int(count) * tick, tick) if tick and whole else None)
        elif plain(line) and len(self._complaints) < self._KEPT:
            self._complaints.append(line)

    def next_time(self) -> tuple[Fraction, Fraction] | None:
        """Time and tick of the next frame; None: it has none."""
        return self._times.get()

    def wait(self) -> list[bytes]:
        """Waits for the end; returns the first complaints."""
        self._thread.join()
        return self._complaints
