"""What the page is made of: its files, the models it tells of, and pictures to begin with."""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image

from flaxseg.data.shapes import Shapes
from flaxseg.inference.opening import MODEL_FOLDER
from flaxseg.labels import LabelSet
from flaxseg.pictures.photos import encode_png

Engine = Literal["server", "browser"]
"""Where pictures are segmented."""

ABOUT_FILE = "page.json"
INDEX_FILE = "index.html"
ENGINE_FILE = "engine.js"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""Kinds of files, by the endings of their names."""

_SHARED = ("index.html", "style.css", "icon.svg", "page.js", "panel.js", "paint.js", "png.js")
_ENGINES: dict[Engine, dict[str, str]] = {
    "server": {ENGINE_FILE: "server.js"},
    "browser": {ENGINE_FILE: "browser.js", "worker.js": "worker.js"},
}
_SCENE_SIZE = (180, 240)
_SCENES = (2, 11, 7)


class Shown(NamedTuple):
    """A model as the page shows it.

    Attributes:
        name: of the network.
        title: what tells it from another model; never a path.
        labels: the classes.
        more: further entries for the engine.
    """

    name: str
    title: str
    labels: LabelSet
    more: Mapping[str, Any]


def title_of(name: str) -> str:
    """The last part of what the user calls a model: the page tells nobody where things lie."""
    if name.startswith("hf:"):
        return name
    path = Path(name).absolute()
    return path.parent.name if path.name == MODEL_FOLDER else path.name


def page_files(
    engine: Engine, models: Sequence[Shown], where: str, **more: Any
) -> dict[str, bytes]:
    """The files of the page by their names, all in one folder.

    Args:
        engine: where pictures are segmented.
        models: one or two; with two the page shows both beside each other.
        where: a sentence about where pictures go.
        more: further entries of `page.json`.
    """
    folder = importlib.resources.files("flaxseg.demo") / "page"
    sources = {name: name for name in _SHARED} | _ENGINES[engine]
    files = {name: (folder / source).read_bytes() for name, source in sources.items()}
    pictures = {f"picture{number}.png": _scene(index) for number, index in enumerate(_SCENES, 1)}
    about = {
        "models": [_about(model) for model in models],
        "pictures": [
            {"file": file, "name": f"drawn shapes {number}"}
            for number, file in enumerate(pictures, 1)
        ],
        "where": where,
        **more,
    }
    return files | pictures | {ABOUT_FILE: json.dumps(about, ensure_ascii=False).encode()}


def _about(model: Shown) -> dict[str, Any]:
    pairs = zip(model.labels.classes, model.labels.palette, strict=True)
    return {
        "name": model.name,
        "title": model.title,
        "classes": [{"name": name, "color": color} for name, color in pairs],
        **model.more,
    }


def _scene(index: int) -> bytes:
    return encode_png(Image.fromarray(Shapes("val", image_size=_SCENE_SIZE)[index].image))
