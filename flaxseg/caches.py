"""Where flaxseg keeps what it can make again."""

import os
import pathlib

CACHE_VARIABLE = "FLAXSEG_CACHE"
PROGRAMS = "xla"
"""Folder of compiled programs in the cache."""

DOWNLOADS = "downloads"
"""Folder of downloaded archives in the cache."""


IMPORTED = "models"
"""Folder of model directories that were made of other checkpoints, in the cache."""


def cache_root(cache_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """The argument, else $FLAXSEG_CACHE, else ~/.cache/flaxseg."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or "~/.cache/flaxseg"
    return pathlib.Path(chosen).expanduser().absolute()
