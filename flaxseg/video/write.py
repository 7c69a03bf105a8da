"""Writes a video frame by frame; a file appears complete or not at all."""

import contextlib
import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from flaxseg.errors import DataError
from flaxseg.files import replace_file
from flaxseg.video import raw
from flaxseg.video.ffmpeg import QUIET, complaint, find_ffmpeg, opening, run
from flaxseg.video.read import Frame

_ALONE = Fraction(1, 25)
"""How long the only frame of a video is shown, in seconds."""


@dataclasses.dataclass(frozen=True)
class Coding:
    """How frames are stored.

    Attributes:
        container: ffmpeg's name of it.
        options: for the encoder.
    """

    container: str
    options: tuple[str, ...]


LOSSLESS = Coding("matroska", ("-c:v", "ffv1", "-level", "3", "-g", "1", "-slicecrc", "1"))
"""FFV1 in Matroska: each value comes back as it was. Times are rounded to milliseconds."""

# Players take an unnamed matrix for one or the other, so BT.709 is named. They want even sides:
# odd ones are filled up at the right and bottom edge.
_EVEN = "pad=w='ceil(iw/2)*2':h='ceil(ih/2)*2'"
_MATRIX = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
_NAMED = "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
PLAYABLE = Coding(
    "mp4",
    (
        *("-vf", f"{_EVEN},{_MATRIX},{_NAMED}", "-c:v", "libx264", "-crf", "18"),
        *("-movflags", "+faststart"),
    ),
)
"""H.264 in MP4, which all players show. Colours are close to what they were, not equal."""


@contextlib.contextmanager
def written_video(
    path: Path,
    coding: Coding,
    sound: Path | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Iterator[Callable[[np.ndarray, Frame], None]]:
    """A video to write to, which becomes `path` when the context ends.

    Args:
        path: file to write.
        coding: how frames are stored.
        sound: file whose sound is copied, as it is, if it has any.
        say: gets a line where that cannot be done.

    Yields:
        A function of a picture, (H, W, 3) RGB or (H, W) grey, uint8, and the frame whose time and
        tick it gets; pictures are of one size, and there is at least one.

    Raises:
        ConfigError: there is no usable ffmpeg.
        DataError: the file cannot be written; what was there before is unharmed.
    """
    try:
        with replace_file(path) as partial, _Encoder(path, partial, coding) as encoder:
            yield encoder.put
            encoder.finish()
            if sound is not None:
                _add_sound(partial, encoder.start, sound, coding, say)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


class _Held(NamedTuple):
    picture: np.ndarray
    time: Fraction


class _Encoder(contextlib.AbstractContextManager):
    """An ffmpeg that encodes: it starts with the first picture, and is a picture behind.

    Only the next picture tells how long one is shown.
    """

    def __init__(self, path: Path, partial: Path, coding: Coding):
        self._path, self._partial, self._coding = path, partial, coding
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._held: _Held | None = None
        self._duration = _ALONE
        self.start = Fraction(0)

    def put(self, picture: np.ndarray, frame: Frame) -> None:
        """Takes the next picture."""
        if self._held is None:
            self.start = frame.time
            self._begin(picture, frame.tick)
        else:
            self._duration = frame.time - self._held.time
            self._send_held()
        self._held = _Held(picture, frame.time)

    def finish(self) -> None:
        """Waits until all is written."""
        assert self._process is not None and self._process.stdin is not None
        self._send_held()  # for as long as the one before it
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if self._process.wait():
            raise self._failure()

    def _begin(self, picture: np.ndarray, tick: Fraction) -> None:
        times = ("-fps_mode", "passthrough", "-enc_time_base", f"1/{tick.denominator}")
        self._said = tempfile.TemporaryFile()  # as nobody reads a pipe while frames are sent
        output = ("-f", self._coding.container, "-y", f"file:{self._partial}")
        self._process = subprocess.Popen(
            [
                *(find_ffmpeg(), *QUIET[1:], "-copyts", "-f", raw.FORMAT, "-i", "pipe:0"),
                *(*times, *self._coding.options, *output),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
        )
        self._send(raw.head(picture))

    def _send_held(self) -> None:
        assert self._held is not None
        picture, time = self._held
        duration = max(1, round(self._duration * raw.SECOND))
        self._send(raw.frame(picture, round(time * raw.SECOND), duration))

    def _send(self, data: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except OSError:
            self._process.wait()
            raise self._failure() from None

    def _failure(self) -> DataError:
        assert self._process is not None and self._said is not None
        self._said.seek(0)
        said = complaint(self._process.returncode, self._said)
        return DataError(f"{self._path} cannot be written ({said})")

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.kill()
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.wait()
        if self._said is not None:
            self._said.close()


def _add_sound(
    silent: Path, start: Fraction, sound: Path, coding: Coding, say: Callable[[str], object]
) -> None:
    """Copies the sound of a file to a video, whose first frame is at `start`, in its place."""
    with contextlib.ExitStack() as stack:
        partial = silent.with_name(f"{silent.name}.sound")
        stack.callback(partial.unlink, missing_ok=True)
        told = run(
            [
                *(find_ffmpeg(), *QUIET, "-itsoffset", f"{float(start):.6f}"),
                *("-f", coding.container, "-i", f"file:{silent}", *opening(sound)),
                *("-map", "0:v", "-map", "1:a?", "-c", "copy", "-movflags", "+faststart"),
                *("-f", coding.container, "-y", f"file:{partial}"),
            ]
        )
        if told is not None:
            say(f"its sound is left out, which {coding.container} does not take as it is ({told})")
        else:
            os.replace(partial, silent)
