"""README's Start, typed by a new user, with a file of every published layout.

    make start

The layouts are at their published size, the largest of more than a gigabyte, so this takes
minutes and is no part of the suite. The hub is a server on this machine.
"""

import shlex
import shutil
from pathlib import Path

import hub_server
import numpy as np
import pytest
from PIL import Image
from published_files import PUBLISHED, Published, write

from convert.formats import FORMATS, Format
from flaxseg.data import open_source

LAYOUTS = {str(layout): layout for layout in FORMATS}
NETWORKS = [name for name in PUBLISHED if LAYOUTS[name].variants]
ENCODERS = [name for name in PUBLISHED if not LAYOUTS[name].variants]
HUB = "hf:"
PICTURES = ("photo_mask.png", "photo_color.png", "photo_overlay.png")


@pytest.fixture
def place(tmp_path):
    """A folder with a photo; emptied at the end, since files are large."""
    drawn = open_source("shapes", "val")
    photo = np.block([[[drawn[0].image], [drawn[1].image]], [[drawn[2].image], [drawn[3].image]]])
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    yield tmp_path
    shutil.rmtree(tmp_path)


def made(published: Published, layout: Format, place: Path) -> str:
    """Makes the file, in the place or in a repository below hub/; gives what a user types."""
    repository = published.file.removeprefix(HUB)
    folder = place if repository == published.file else place / "hub"
    write(published, layout, folder / repository)
    return published.file


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".png"}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_in_one_line(name, start_lines, typed, place):
    model = made(PUBLISHED[name], LAYOUTS[name], place)
    words = shlex.split(start_lines[1])
    assert words[:2] == ["flaxseg", "predict"] and words[2].startswith(HUB)
    words[2] = model

    def predict(what: str, out: str, **more: str) -> str:
        line = shlex.join([*words[:2], what, *words[3:-1], out])
        ended = typed(line, place, **more)
        assert ended.returncode == 0, ended.stderr
        assert not ended.stderr, ended.stderr
        return ended.stdout

    with hub_server.serve(place / "hub") as address:
        told = predict(model, "first", HF_ENDPOINT=address)
    if model.startswith(HUB):
        shutil.rmtree(place / "hub")
    predict(model, "second", HF_ENDPOINT=address)  # nobody is there any more
    imported = typed(f"flaxseg convert import {model} by_hand", place, HF_ENDPOINT=address)
    assert imported.returncode == 0, imported.stderr
    predict("by_hand", "third")

    first, second, third = (read(place / out) for out in ("first", "second", "third"))
    assert set(first) == set(PICTURES)
    assert first == second == third
    photo = pixels(place / "photo.jpg")
    mask, color, overlay = (pixels(place / "first" / file) for file in PICTURES)
    assert mask.shape == color.shape[:2] == photo.shape[:2]
    assert len(np.unique(mask)) > 1
    # The legend stands below the photo.
    assert overlay.shape[0] > photo.shape[0]
    print(f"\n{name}: {told}")


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_alone_makes_no_picture(name, typed, place):
    model = made(PUBLISHED[name], LAYOUTS[name], place)
    ended = typed(f"flaxseg predict {model} photo.jpg --out first", place)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "encoder alone" in ended.stderr and "--init" in ended.stderr
    assert not (place / "first").exists()


def test_every_layout_is_here():
    """Encoders of one kind stand for the others, which the same line refuses."""
    assert {str(layout) for layout in FORMATS if layout.variants} == set(NETWORKS)
