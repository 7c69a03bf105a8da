"""The ffmpeg program: where it is, how it opens files, and what it complains about."""

import functools
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from flaxseg.errors import ConfigError

_MEND = "pip install --upgrade imageio-ffmpeg, or name a newer ffmpeg in IMAGEIO_FFMPEG_EXE"
_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg"
_WHO = re.compile(r"^\[[^]]*\] *")

QUIET = ("-nostdin", "-hide_banner", "-loglevel", "repeat+error")
"""Only errors are told, each in full."""

TIMES = ("-stats_enc_pre", "pipe:2", "-stats_enc_pre_fmt", "flaxseg-frame {pts} {tb}")
"""Tells the time of each frame before it is written, among the errors."""


@functools.cache
def find_ffmpeg() -> str:
    """The ffmpeg program, which was tried on a frame.

    Raises:
        ConfigError: imageio-ffmpeg is not installed, or the program cannot do what is asked of it.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        raise ConfigError("videos need imageio-ffmpeg: pip install 'flaxseg[video]'") from None
    try:
        program = get_ffmpeg_exe()
    except RuntimeError as error:
        raise ConfigError(f"videos need ffmpeg, and imageio-ffmpeg finds none: {_MEND}") from error
    frame = ("-f", "lavfi", "-i", "color=size=16x16:duration=0.1", "-frames:v", "1")
    told = run([program, *QUIET, *frame, *TIMES, "-c:v", "libx264", "-f", "null", "-"])
    if told is not None:
        raise ConfigError(f"{program} cannot be used for videos ({told}): {_MEND}")
    return program


def opening(path: Path) -> list[str]:
    """Options with which a file is opened: as a video of its own.

    A file could be a list of others, elsewhere, in disguise: formats that are lists are not
    opened, and neither is anything that is no file.
    """
    return ["-protocol_whitelist", "file", "-format_whitelist", _FORMATS, "-i", f"file:{path}"]


def run(command: Sequence[str]) -> str | None:
    """Waits for ffmpeg; returns its first complaint if it has failed."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    except OSError as error:
        return str(error.strerror)
    return complaint(done.returncode, done.stderr.splitlines()) if done.returncode else None


def complaint(code: int, lines: Iterable[bytes]) -> str:
    """The first line of what ffmpeg says before it ends with a code, or the code."""
    first = next((line for line in lines if line.strip()), b"")
    said = plain(first)
    return f"ffmpeg: {said}" if said else f"ffmpeg ended with code {code}"


def plain(line: bytes) -> str:
    """A line of ffmpeg without the part of it that speaks."""
    return _WHO.sub("", line.decode(errors="replace")).strip().rstrip(".")
