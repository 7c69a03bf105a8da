"""The published layouts: one small table in one file for each."""

from convert.formats import mmseg, torchvision, tutorial
from convert.formats.format import Format as Format
from convert.formats.format import Imported as Imported
from flaxseg.errors import ConfigError

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT for module in (tutorial, mmseg, torchvision)
}


def load_format(name: str) -> Format:
    """The format of that name.

    Raises:
        ConfigError: no format is called so.
    """
    if name not in FORMATS:
        raise ConfigError(f"no format is called {name!r}; known: {', '.join(FORMATS)}")
    return FORMATS[name]
