"""Draws the picture at the top of the README: photos beside what a trained network sees in them.

    make train && .venv/bin/python benchmarks/first_picture.py runs/quickstart
    python benchmarks/first_picture.py MODEL PHOTO... [--out docs/first.png]

Without photos they are the first validation pictures of the drawn shapes, which the network has
not been trained on. The masks are those that `flaxseg predict` writes.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from flaxseg import native
from flaxseg.data import open_run_source
from flaxseg.inference import predict_files, read_photo, resolve_model_dir
from flaxseg.pictures import example_sheet, write_image

COUNT = 4
"""Drawn pictures."""

SIDE = 240
"""Pixels of a longer side at least: small pictures are enlarged pixel by pixel."""

COLORS = 96
"""Of the file, which a page loads first."""


def draw(model: Path, photos: list[Path], out: Path) -> None:
    """Writes the picture.

    Args:
        model: a work or model directory.
        photos: files of different names; none: drawn shapes.
        out: a PNG file.
    """
    labels = native.load_with_meta(resolve_model_dir(model)).labels
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = photos or _drawn(folder)
        predict_files(model, photos, folder / "out", write=["mask"])
        masks = [np.asarray(Image.open(folder / "out" / f"{p.stem}_mask.png")) for p in photos]
        images = [read_photo(path) for path in photos]
    pairs = [_enlarged(image, mask) for image, mask in zip(images, masks, strict=True)]
    sheet = example_sheet(*zip(*pairs, strict=True), labels, captions=[""] * len(pairs))
    Image.fromarray(sheet).quantize(COLORS).save(out, optimize=True)
    print(f"{out}: {sheet.shape[1]} x {sheet.shape[0]} pixels, {out.stat().st_size / 1e3:.0f} kB")


def _drawn(folder: Path) -> list[Path]:
    source = open_run_source("shapes", "val")
    files = [folder / f"{index}.png" for index in range(COUNT)]
    for index, file in enumerate(files):
        write_image(file, source[index].image)
    return files


def _enlarged(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    times = -(-SIDE // max(image.shape[:2]))
    size = (times * image.shape[1], times * image.shape[0])
    image, mask = (cv2.resize(a, size, interpolation=cv2.INTER_NEAREST) for a in (image, mask))
    return image, mask


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, default=Path("docs/first.png"))
    options = parser.parse_args()
    draw(options.model, options.photos, options.out)
