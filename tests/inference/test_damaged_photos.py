"""Whatever picture files hold, each ends in outputs or in one line that names it.

    FUZZ=2000 pytest tests/inference/test_damaged_photos.py

tries so many damaged pictures; the suite tries fewer.
"""

import io
import os
import random
import resource

import numpy as np
import pytest
from PIL import Image

from flaxseg import cli
from flaxseg.data import Shapes

COUNT = int(os.environ.get("FUZZ", "60"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
BATCH = 250
"""Pictures of a run of `flaxseg predict`."""

MOST_PIXELS = 1_000_000
MOST_MEMORY = 2_000_000
"""Kilobytes that a run may add to what the process takes."""

SIZE = (24, 40)


def encoded(picture, kind, more=(), **options):
    buffer = io.BytesIO()
    if more:
        options |= {"save_all": True, "append_images": [frame.copy() for frame in more]}
    picture.copy().save(buffer, kind, **options)  # a picture keeps options of the last time
    return buffer.getvalue()


def with_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def whole_pictures():
    """Name with ending -> bytes of a picture that is read."""
    rgb = Image.fromarray(Shapes("val", image_size=SIZE)[0].image)
    more = [Image.fromarray(Shapes("val", image_size=SIZE)[index].image) for index in (1, 2)]
    grey16 = Image.fromarray((np.asarray(rgb.convert("L")).astype(np.uint16) << 8) + 7)
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    clear = rgb.convert("RGBA")
    clear.putalpha(rgb.convert("L"))
    place = {33550: (0.3, 0.3, 0.0), 33922: (0.0, 0.0, 0.0, 5e5, 4e6, 0.0)}
    place |= {34735: (1, 1, 0, 2, 1025, 0, 1, 1, 1026, 34737, 4, 0), 34737: "map|", 42113: "0"}
    place |= {34736: (6378137.0, 298.25)}
    return {
        "baseline.jpg": encoded(rgb, "JPEG", quality=90),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "restarts.jpg": encoded(rgb, "JPEG", restart_marker_blocks=2, comment="a comment"),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "turned.jpg": encoded(rgb, "JPEG", exif=with_exif(6)),
        "several.mpo": encoded(rgb, "MPO", more),
        "rgb.png": encoded(rgb, "PNG"),
        "palette.png": encoded(palette, "PNG", transparency=3),
        "deep.png": encoded(grey16, "PNG"),
        "alpha.png": encoded(clear, "PNG"),
        "animated.png": encoded(rgb, "PNG", more),
        "raw.tif": encoded(rgb, "TIFF"),
        "lzw.tif": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(grey16, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": encoded(rgb, "TIFF", compression="jpeg"),
        "fax.tif": encoded(rgb.convert("1"), "TIFF", compression="group4"),
        "pages.tif": encoded(rgb, "TIFF", more),
        "at.tif": encoded(rgb, "TIFF", tiffinfo=place),
        "placed.tif": encoded(rgb, "TIFF", tiffinfo=place, exif=with_exif(3)),
        "float.tif": encoded(Image.fromarray(np.ones(SIZE, np.float32)), "TIFF"),
        "big.tif": encoded(rgb, "TIFF", big_tiff=True),
        "lossy.webp": encoded(rgb, "WEBP"),
        "lossless.webp": encoded(clear, "WEBP", lossless=True),
        "animated.webp": encoded(rgb, "WEBP", more),
        "animated.gif": encoded(palette, "GIF", more),
        "interlaced.gif": encoded(palette, "GIF", interlace=True, transparency=1),
        "rgb.bmp": encoded(rgb, "BMP"),
        "palette.bmp": encoded(palette, "BMP"),
    }


INTERESTING = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0", b"\xff\xff", b"\x7f\xff\xff\xff")


def damaged(content, rng):
    """A file with bits flipped, sizes exchanged, parts doubled, moved, cut out or cut off."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        # Sizes, kinds and tables stand near the beginning, directories of TIFFs at the end, too.
        near = rng.choice([64, 256, len(found), -256])
        low, high = (
            (0, min(near, len(found))) if near > 0 else (max(0, len(found) + near), len(found))
        )
        at = rng.randrange(low, max(high, low + 1))
        match rng.choice(["bit", "byte", "size", "double", "move", "cut", "end"]):
            case "bit" if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case "byte" if at < len(found):
                found[at] = rng.randrange(256)
            case "size":
                value = rng.choice(INTERESTING)
                found[at : at + len(value)] = value
            case "double":
                found[at:at] = found[at : at + rng.randrange(1, 200)]
            case "move":
                there = rng.randrange(len(found) + 1)
                found[at : at + 40] = found[there : there + 40]
            case "cut":
                del found[at : at + rng.randrange(1, 64)]
            case "end" if rng.random() < 0.3:
                del found[at:]
    return bytes(found)


def damaged_folder(folder, wholes, numbers):
    folder.mkdir()
    names = sorted(wholes)
    for number in numbers:
        name = names[number % len(names)]
        content = damaged(wholes[name], random.Random(f"{SEED} {number}"))
        (folder / f"{number:05}-{name}").write_bytes(content)
    return folder


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module")
def wholes():
    return whole_pictures()


@pytest.mark.parametrize("start", range(0, COUNT, BATCH))
def test_each_ends_in_outputs_or_in_one_line(model_dir, wholes, tmp_path, capsys, caplog, start):
    numbers = range(start, min(start + BATCH, COUNT))
    folder = damaged_folder(tmp_path / "photos", wholes, numbers)
    (folder / "whole.jpg").write_bytes(wholes["baseline.jpg"])
    out, before = tmp_path / "out", peak()
    names = [file.name for file in sorted(folder.iterdir())]
    args = ["predict", str(model_dir), str(folder), "--out", str(out), "--write", "mask"]
    code = cli.main([*args, "--size", "32", "32", "--max-pixels", str(MOST_PIXELS)])
    said = capsys.readouterr()  # libtiff prints lines of its own past Python
    lines = said.out.splitlines()
    refused = [line for line in lines if line.startswith("left out: ")]
    left_out = {line.removeprefix(f"left out: {folder}/").partition(":")[0] for line in refused}
    masks = {file.name.removesuffix("_mask.png") for file in out.glob("*_mask.png")}
    done = {name for name in names if name.partition(".")[0] in masks}
    assert left_out | done == {*names} and not left_out & done
    assert len(refused) == len(left_out) and "whole.jpg" in done
    assert code == (2 if refused else 0)
    assert len(said.err.splitlines()) == bool(refused) and "Traceback" not in said.err
    assert {file.name.rsplit("_mask", 1)[0] for file in out.rglob("*.tif")} <= masks
    assert not list(out.rglob("*.partial*")) and not caplog.records
    assert peak() - before < MOST_MEMORY
    print(f"{len(done)} of {len(names)} segmented, {len(refused)} refused")
