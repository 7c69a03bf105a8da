"""What cannot be used is an error, or left out and listed, before anything is trained."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from flaxseg.data import open_run_source, open_source
from flaxseg.data.skipped import list_skipped, skipped_samples
from flaxseg.errors import DataError


def opened(root, cache, split="train", on_bad_sample="skip"):
    return open_source("folder", split, data_dir=root, cache_dir=cache, on_bad_sample=on_bad_sample)


def names(source):
    return [source.name(i) for i in range(len(source))]


def truncated_png(root, save):
    path = root / "images/p0.png"
    path.write_bytes(path.read_bytes()[:-30])
    return "images/p0.png: is no readable picture"


def corrupt_jpeg(root, save):
    (root / "images/p0.png").unlink()
    path = save(root / "images/p0.jpg", np.zeros((6, 8, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    return "images/p0.jpg: is no readable picture"


def floats(root, save):
    Image.new("F", (8, 6)).save(root / "images/p0.png", "TIFF")
    return "images/p0.png: has pixels of the kind 'F', which have no agreed brightness"


def mirrored(root, save):
    exif = Image.Exif()
    exif[0x0112] = 2
    Image.new("RGB", (8, 6)).save(root / "images/p0.png", exif=exif)
    return "images/p0.png: its EXIF orientation 2 turns or mirrors it"


def one_pixel_off(root, save):
    save(root / "masks/p0.png", np.zeros((6, 7), np.uint8))
    return "masks/p0.png: is 7 x 6, but its image .*images/p0.png is 8 x 6"


def unknown_id(root, save):
    save(root / "masks/p0.png", np.full((6, 8), 2, np.uint8))
    return "masks/p0.png: number 2 in 48 pixels"


def jpeg_mask(root, save):
    (root / "masks/p0.png").unlink()
    save(root / "masks/p0.jpg", np.zeros((6, 8), np.uint8))
    return "masks/p0.jpg: is a JPEG or compressed like one, which changes the values; save it as"


def unreadable(root, save):
    (root / "masks/p0.png").unlink()
    (root / "masks/p0.png").mkdir()
    return "masks/p0.png: cannot be read .Is a directory"


def dead_link(root, save):
    (root / "images/p0.png").unlink()
    (root / "images/p0.png").symlink_to(root / "nowhere.png")
    return "images/p0.png: cannot be read .No such file"


def no_mask(root, save):
    (root / "masks/p0.png").unlink()
    return r"images/p0.png(: has no mask|\); --missing-mask CLASS makes)"


FAULTS = [
    *(truncated_png, corrupt_jpeg, floats, mirrored, one_pixel_off),
    *(unknown_id, jpeg_mask, unreadable, dead_link, no_mask),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_refused_by_name_or_left_out(plain_dir, cache, save, fault):
    (plain_dir / "val.txt").write_text("p8\np9\n")
    reason = fault(plain_dir, save)
    with pytest.raises(DataError, match=reason):
        opened(plain_dir, cache, on_bad_sample="error")
    train = opened(plain_dir, cache)
    assert names(train) == [f"images/p{i}.png" for i in range(1, 8)]
    for i, (_, label) in enumerate(train, start=1):
        mask = np.asarray(Image.open(plain_dir / f"masks/p{i}.png"))
        np.testing.assert_array_equal(label, mask)
    (sample,) = skipped_samples([train, opened(plain_dir, cache, "val")])
    assert sample.name.startswith("images/p0")
    with pytest.raises(DataError, match=reason):
        raise DataError(sample.reason)


def test_error_tells_of_the_way_out(plain_dir, cache, save):
    unknown_id(plain_dir, save)
    message = "1 of 10 image and label pairs of .* cannot be used .--on-bad-sample skip leaves them"
    with pytest.raises(DataError, match=message):
        opened(plain_dir, cache, on_bad_sample="error")


def test_nothing_left_is_an_error(plain_dir, cache, save):
    for i in (4, 9):
        save(plain_dir / f"masks/p{i}.png", np.full((6, 8), 2, np.uint8))
    with pytest.raises(DataError, match="2 of 10 .* cannot be used, the val split is empty: .*p4"):
        opened(plain_dir, cache)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_faultless_data_is_prepared_once(plain_dir, cache):
    opened(plain_dir, cache, on_bad_sample="error")
    assert skipped_samples([opened(plain_dir, cache)]) == []
    assert len(list((cache / "folder").iterdir())) == 1


def test_file_without_partner_that_comes_later(plain_dir, cache, save):
    opened(plain_dir, cache, on_bad_sample="error")
    path = save(plain_dir / "images/late.png", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"1 of 11 pictures .* has no mask \(images/late.png\)"):
        opened(plain_dir, cache, on_bad_sample="error")
    assert [sample.name for sample in opened(plain_dir, cache).skipped] == ["images/late.png"]
    path.unlink()
    assert opened(plain_dir, cache).skipped == ()


def test_data_prepared_with_gaps_is_not_taken_for_whole(plain_dir, cache, save):
    unknown_id(plain_dir, save)
    opened(plain_dir, cache)
    with pytest.raises(DataError, match="number 2 in"):
        opened(plain_dir, cache, on_bad_sample="error")


def test_mended_data_comes_back(plain_dir, cache, save):
    unknown_id(plain_dir, save)
    assert len(opened(plain_dir, cache)) == 7
    save(plain_dir / "masks/p0.png", np.zeros((6, 8), np.uint8))
    os.utime(plain_dir / "masks/p0.png", (1, 1))
    assert len(opened(plain_dir, cache)) == 8


def test_list_for_the_work_directory(plain_dir, tmp_path, save, monkeypatch):
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "cache"))
    for i in range(5):
        save(plain_dir / f"masks/p{i}.png", np.full((6, 8), 2, np.uint8))
    sources = [
        open_run_source("folder", split, data_dir=plain_dir, limit=1, on_bad_sample="skip")
        for split in ("train", "val")
    ]
    lines = list_skipped(sources, tmp_path)
    assert lines[0] == f"5 samples left out, listed in {tmp_path / 'skipped.txt'}:"
    assert len(lines) == 5 and "masks/p0.png: number 2" in lines[1] and lines[4] == "  ..."
    written = (tmp_path / "skipped.txt").read_text().splitlines()
    assert [f"masks/p{i}.png" in line for i, line in enumerate(written)] == [True] * 5
    (tmp_path / "other").mkdir()
    assert list_skipped([open_source("shapes", "val")], tmp_path / "other") == []
    assert list((tmp_path / "other").iterdir()) == []


DYING_PROGRAM = """
import os, signal, sys
from flaxseg.data import archives, open_source

def extract_and_die(members, archive, path, target):
    target.mkdir()
    (target / "half.jpg").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

archives._extract = extract_and_die
open_source("pets", "train", data_dir=sys.argv[1], cache_dir=sys.argv[2])
"""


def test_killed_extraction_is_not_taken_for_data(tmp_path, cache, save, pack, rng):
    for kind, suffix, folder in (("images", "jpg", ""), ("annotations", "png", "trimaps/")):
        for name in "ab":
            values = rng.integers(1, 4, (4, 5), np.uint8)
            save(tmp_path / kind / kind / folder / f"{name}.{suffix}", values)
    (tmp_path / "annotations/annotations/trainval.txt").write_text("a 1 1 1\n")
    (tmp_path / "annotations/annotations/test.txt").write_text("b 1 1 1\n")
    for kind in ("images", "annotations"):
        pack(tmp_path / kind, tmp_path / "packed" / f"{kind}.tar.gz")
    command = [sys.executable, "-c", DYING_PROGRAM, str(tmp_path / "packed"), str(cache)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    assert list(cache.rglob("half.jpg"))
    source = open_source("pets", "train", data_dir=tmp_path / "packed", cache_dir=cache)
    assert names(source) == ["images/a.jpg"]
