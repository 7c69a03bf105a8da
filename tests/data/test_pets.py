"""Oxford-IIIT Pet from small archives in the official layout."""

import io

import numpy as np
import pytest
from PIL import Image

from flaxseg.data import open_source
from flaxseg.data.checked import check_folder
from flaxseg.data.masks import declared
from flaxseg.data.pets import LABELS, PETS
from flaxseg.data.prepared import PreparedSource, prepare
from flaxseg.data.records import _encoded
from flaxseg.errors import DataError
from flaxseg.pictures import read_photo

SPLITS = {"trainval.txt": ("Abyssinian_1", "beagle_116"), "test.txt": ("Persian_7", "Sphynx_2")}


@pytest.fixture
def extracted(tmp_path, save, rng):
    """What the archives hold, with the odd files that the published ones hold, too."""
    root = tmp_path / "extracted"
    for file, names in SPLITS.items():
        for name in names:
            save(root / "images" / f"{name}.jpg", rng.integers(0, 256, (9, 12, 3), np.uint8))
            trimap = rng.integers(1, 4, (9, 12), np.uint8)
            save(root / "annotations/trimaps" / f"{name}.png", trimap)
            (root / "annotations/trimaps" / f"._{name}.png").write_bytes(b"Mac OS X")
        lines = ["#Image CLASS-ID SPECIES BREED ID", *(f"{name} 1 1 1" for name in names)]
        (root / "annotations" / file).write_text("\n".join(lines) + "\n")
    (root / "images" / "Abyssinian_1.mat").write_bytes(b"MATLAB")
    # One of the published photos is a GIF with a transparent colour under the name of a JPEG.
    gif = Image.fromarray(rng.integers(0, 4, (9, 12), np.uint8)).convert("P")
    gif.putpalette([0, 0, 0, 250, 10, 20, 30, 240, 50, 70, 80, 230])
    gif.save(root / "images" / "Persian_7.jpg", "GIF", transparency=0)
    return root


@pytest.fixture
def packed(tmp_path, extracted, pack):
    folder = tmp_path / "packed"
    for kind in ("images", "annotations"):
        part = tmp_path / f"only_{kind}"
        part.mkdir()
        (extracted / kind).rename(part / kind)
        pack(part, folder / f"{kind}.tar.gz")
        (part / kind).rename(extracted / kind)
    return folder


def assert_holds(source, root, names):
    assert [source.name(i) for i in range(len(source))] == [f"images/{n}.jpg" for n in names]
    for name, (image, label) in zip(names, source, strict=True):
        with Image.open(root / "images" / f"{name}.jpg") as photo:
            np.testing.assert_array_equal(image, np.asarray(photo.convert("RGB")))
        trimap = np.asarray(Image.open(root / "annotations/trimaps" / f"{name}.png"))
        np.testing.assert_array_equal(label, trimap - 1)


@pytest.mark.parametrize("form", ["archives", "folders"])
def test_pixels_and_counts(form, packed, extracted, cache):
    data_dir = packed if form == "archives" else extracted
    opened = {
        split: open_source("pets", split, data_dir=data_dir, cache_dir=cache)
        for split in ("train", "val", "test")
    }
    assert opened["train"].labels == LABELS
    assert_holds(opened["train"], extracted, SPLITS["trainval.txt"])
    for split in ("val", "test"):  # the notebook validates on the test list
        assert_holds(opened[split], extracted, SPLITS["test.txt"])
    assert [path.name for path in (cache / "pets").iterdir() if path.name.startswith(".")] == []
    assert not list(cache.rglob("extracted"))


def test_flawed_jpegs_are_kept_as_png(extracted):
    samples = check_folder(PETS.find(extracted)).samples["train"]
    assert [sample.plain for sample in samples] == [True, False]
    kept = [_encoded(sample, read_photo(sample.pair.image)) for sample in samples]
    assert [Image.open(io.BytesIO(content)).format for content in kept] == ["JPEG", "PNG"]


@pytest.mark.parametrize("longer", [False, True])
def test_damaged_records_are_explained(packed, cache, longer):
    directory = prepare(PETS, packed, cache_dir=cache)
    (records,) = directory.rglob("*-train.array_record*")
    records.write_bytes(b"x" * (records.stat().st_size + longer))
    message = f"{directory}: the prepared data is damaged .*; remove this folder"
    with pytest.raises(DataError, match=message):
        PreparedSource(directory, "train")[0]


def test_uncompressed_archive(packed, extracted, pack, cache, tmp_path):
    (packed / "images.tar.gz").unlink()
    part = tmp_path / "part"
    part.mkdir()
    (extracted / "images").rename(part / "images")
    pack(part, packed / "images.tar")
    assert len(open_source("pets", "train", data_dir=packed, cache_dir=cache)) == 2


def missing_archive(root):
    (root / "annotations.tar.gz").unlink()
    return "/packed: has no annotations.tar.gz, it holds images.tar.gz. Expected are images.tar.gz"


def cut_archive(root):
    path = root / "images.tar.gz"
    path.write_bytes(path.read_bytes()[:-600])
    return "/packed/images.tar.gz: is no whole archive .*get images.tar.gz again"


@pytest.mark.parametrize("fault", [missing_archive, cut_archive])
def test_bad_archives(packed, cache, fault):
    message = fault(packed)
    with pytest.raises(DataError, match=message):
        open_source("pets", "train", data_dir=packed, cache_dir=cache)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def half_extracted(root):
    (root / "images" / "Abyssinian_1.jpg").unlink()
    return (
        "1 files in .*/extracted have no partner.*: .*/images/Abyssinian_1.jpg: no such file, "
        "but trainval.txt lists Abyssinian_1"
    )


def listed_twice(root):
    with (root / "annotations/test.txt").open("a") as file:
        file.write("Abyssinian_1 1 1 1\n")
    return "test.txt: 'Abyssinian_1' is in trainval.txt, too"


def no_trimaps(root):
    (root / "annotations/trimaps").rename(root / "annotations/masks")
    return "/extracted: is no pets folder, it holds annotations, images. Expected are images.tar"


@pytest.mark.parametrize("fault", [half_extracted, listed_twice, no_trimaps])
def test_bad_folders(extracted, cache, fault):
    message = fault(extracted)
    with pytest.raises(DataError, match=message):
        open_source("pets", "train", data_dir=extracted, cache_dir=cache)


def test_trimap_value_without_meaning(extracted, save):
    path = save(extracted / "annotations/trimaps/Persian_7.png", np.zeros((9, 12), np.uint8))
    with pytest.raises(DataError, match="Persian_7.png: number 0 in 108 .*allowed are 1 to 3; "):
        declared(PETS.find(extracted).classes).read(path)


def test_trimap_of_another_size_than_its_photo(extracted, save, cache):
    save(extracted / "annotations/trimaps/Sphynx_2.png", np.ones((9, 11), np.uint8))
    message = "Sphynx_2.png: is 11 x 9, but its image .*Sphynx_2.jpg is 12 x 9"
    with pytest.raises(DataError, match=message):
        open_source("pets", "train", data_dir=extracted, cache_dir=cache)
