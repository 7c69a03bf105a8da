"""What only some data sets need, and only some platforms have."""

import platform

from flaxseg.errors import DataError


def need_array_record(name: str) -> None:
    """Makes sure that prepared data can be written and read.

    Args:
        name: of the data set.

    Raises:
        DataError: array_record is not installed, as on Windows and on Macs with Intel processors.
    """
    try:
        import array_record  # noqa: F401
    except ImportError as error:
        system = f"{platform.system()} on {platform.machine()}"
        raise DataError(
            f"{name}: published archives need the package array_record, which is not installed "
            f"({error}) and may have no wheel for {system}: extract the archive and point "
            "--data-dir at the folder"
        ) from error
