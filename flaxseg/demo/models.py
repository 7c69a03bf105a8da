"""Models as the page offers them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from flaxseg.demo.app import Served
from flaxseg.demo.pages import Shown, title_of
from flaxseg.exported import kind_of, read_about, require_logits
from flaxseg.inference.opening import resolve_model_dir
from flaxseg.inference.segmenter import open_segmenter
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
        ConfigError: `max_side` does not fit, or a model gives labels alone.
    """
    models = []
    for name in names:
        directory = opened(name)
        path = resolve_model_dir(directory)
        told = read_about(path) if kind_of(path) else read_directory(path)[0]
        shown = Shown(told.name, title_of(name), told.labels, {})
        segmenter = open_segmenter(directory, max_side=max_side)
        require_logits(segmenter, f"the page of {name}")
        models.append(Served(shown, segmenter))
    return models
