"""What an exported file tells of itself, whatever its kind."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import flaxseg
from flaxseg.exported.files import FORMATS, VERSION, Kind
from flaxseg.model_dir import CONFIG_FILE, Header

Size = tuple[int, int]

Step = Literal["preprocess", "argmax"]
"""What may be part of the program besides the network: normalisation before it, labels after."""

STEPS: tuple[Step, ...] = get_args(Step)


def told_besides(directory: Path, header: Header) -> dict[str, Any]:
    """What else a model's `config.json` tells, such as licence and source: it goes where it goes.

    Args:
        directory: of the model.
        header: what was read of that file.
    """
    values = json.loads((directory / CONFIG_FILE).read_text())
    return {key: value for key, value in values.items() if key not in header.to_json()}


_ELSEWHERE = ("format", "version")


def about(
    kind: Kind,
    header: Header,
    size: Size | None,
    divisor: int,
    steps: Collection[Step],
    taken: Collection[Any],
    given: Collection[Any],
    more: Mapping[str, Any],
    view: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The entries that both kinds of files share, as plain JSON values.

    Args:
        kind: of the file.
        header: what the model directory tells.
        size: the only height and width that the program takes; None: any.
        divisor: of height and width, where they are any.
        steps: what is part of the program besides the network.
        taken: shape of the pictures; sides that are free are words.
        given: shape of what comes out.
        more: what `told_besides` found.
        view: how the training run looked at its validation pictures, by its settings' names; with
            the file, too, `flaxseg predict` and `flaxseg eval` look so.
    """
    bytes_in, labels_out = "preprocess" in steps, "argmax" in steps
    told = {key: value for key, value in header.to_json().items() if key not in _ELSEWHERE}
    return {
        "format": FORMATS[kind],
        "version": VERSION,
        "flaxseg": flaxseg.__version__,
        **told,
        "input": {
            "shape": list(taken),
            "dtype": "uint8" if bytes_in else "float32",
            "values": "red, green, blue, 0 to 255" if bytes_in else "normalised, see preprocess",
        },
        "output": {
            "shape": list(given),
            "dtype": "uint8" if labels_out else "float32",
            "values": "labels" if labels_out else "logits",
        },
        "sizes": {
            "fixed": None if size is None else list(size),
            "divisor": 1 if size else divisor,
            "square": header.config.square,
        },
        "more": dict(more),
        "view": dict(view or {}),
    }
