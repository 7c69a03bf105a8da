"""Models as the page offers them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from flaxseg.demo.app import Served
from flaxseg.demo.pages import Shown, title_of
from flaxseg.inference.files import open_segmenter, resolve_model_dir
from flaxseg.model_dir import read_directory


def open_models(
    names: Sequence[str], opened: Callable[[str], Path], *, max_side: int | None
) -> list[Served]:
    """Opens models as `flaxseg predict` does.

    Args:
        names: what the user calls them.
        opened: makes a directory of ours of a name.
        max_side: longest side of pictures that is not shrunk.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: `max_side` does not fit.
    """
    models = []
    for name in names:
        directory = opened(name)
        header = read_directory(resolve_model_dir(directory))[0]
        shown = Shown(header.name, title_of(name), header.labels, {})
        models.append(Served(shown, open_segmenter(directory, max_side=max_side)))
    return models
