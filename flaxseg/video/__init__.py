"""Videos, frame by frame: reading and writing them by the ffmpeg that imageio-ffmpeg brings."""

from pathlib import PurePath

SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".mts",
    ".m2ts",
    ".3gp",
    ".wmv",
    ".flv",
    ".ogv",
)
"""Endings of the files that count as videos, in lower case."""


def is_video_name(path: PurePath) -> bool:
    """Whether a file counts as a video by the ending of its name."""
    return path.suffix.lower() in SUFFIXES
