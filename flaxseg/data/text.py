"""Reads text files of people's own."""

import pathlib

from flaxseg.errors import DataError


def read_lines(path: pathlib.Path) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: it cannot be read as UTF-8.
    """
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no UTF-8 text file ({error}); save it as one") from error
