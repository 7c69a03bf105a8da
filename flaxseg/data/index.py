"""What is remembered of a data set that was checked: `index.json` and `counts.npz` in the cache."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flaxseg.data.checked import Checked
from flaxseg.data.statistics import Statistics
from flaxseg.errors import DataError

_INDEX, _COUNTS = "index.json", "counts.npz"


def write_index(
    target: pathlib.Path,
    name: str,
    checked: Checked,
    places: Mapping[str, Any],
    *,
    renamed: Mapping[str, str] | None = None,
    **more: Any,
) -> None:
    """Writes what a source needs to know of a checked folder.

    Args:
        target: folder to write to.
        name: of the data set.
        checked: what was found.
        places: where the examples of each split lie, JSON values for who reads them.
        renamed: folder that is about to go -> the one that messages are to name.
        more: further values.
    """
    folder = checked.folder
    arrays = {}
    for split, samples in checked.samples.items():
        arrays[f"{split}_sizes"] = np.array([s.size for s in samples], np.uint32)
        arrays[f"{split}_pixels"] = np.array([s.pixels for s in samples], np.uint32)
    np.savez_compressed(target / _COUNTS, **arrays)
    values = {
        "name": name,
        "labels": checked.labels.to_json(),
        "splits": {
            split: {
                "names": [s.pair.name for s in samples],
                "skipped": checked.bad[split],
                "places": places[split],
            }
            for split, samples in checked.samples.items()
        },
        "aliases": dict(folder.aliases),
        "orphans": list(folder.orphans),
        "lines": list(checked.lines),
        **more,
    }
    text = json.dumps(values)
    for there, here in (renamed or {}).items():
        text = text.replace(json.dumps(there)[1:-1], json.dumps(here)[1:-1])
    (target / _INDEX).write_text(text, "utf-8")


def read_index(directory: pathlib.Path) -> dict[str, Any]:
    """The values that `write_index` wrote.

    Raises:
        DataError: damaged cache.
    """
    with explained_damage(directory):
        return json.loads((directory / _INDEX).read_text("utf-8"))


@contextlib.contextmanager
def explained_damage(directory: pathlib.Path) -> Iterator[None]:
    """Turns whatever reading a prepared folder raises into one `DataError`."""
    try:
        yield
    except Exception as error:  # what damaged files raise differs from library to library
        raise DataError(
            f"{directory}: the prepared data is damaged ({error}); remove this folder, the next "
            "run prepares it again"
        ) from error


def read_counts(directory: pathlib.Path, split: str, num_classes: int) -> Statistics:
    """Sizes and pixels of a split's examples, as counted when they were checked."""
    with np.load(directory / _COUNTS) as counts:
        return Statistics(counts[f"{split}_sizes"], counts[f"{split}_pixels"], num_classes)
