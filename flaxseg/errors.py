"""The errors that flaxseg raises for what a user can mend.

Every message names the offending file, key or flag, the value found, the value expected and the
mend. The command line prints the message alone and exits with 2.
"""

import difflib
from collections.abc import Iterable


class FlaxsegError(ValueError):
    """Base of every error that the caller can mend."""


class ConfigError(FlaxsegError):
    """A model name, configuration field or command-line value that does not fit."""


class DataError(FlaxsegError):
    """An image, label map or data set folder that does not fit."""


class CheckpointError(FlaxsegError):
    """A weight file or training checkpoint that does not fit the model."""


class TrainingError(FlaxsegError):
    """A training run that cannot go on, such as a non-finite loss."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name, such as "; did you mean ccnet?"."""
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"
