import os
import pathlib
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from flaxseg.data import check_labels, open_source
from flaxseg.data.camvid import CAMVID, FULL_LABELS, SEGNET_LABELS
from flaxseg.data.prepared import PreparedSource, prepare
from flaxseg.errors import DataError


def opened(data_dir, split, cache):
    return open_source("camvid", split, data_dir=data_dir, cache_dir=cache)


def assert_holds(source, root, label_path, to_ids):
    """Every example equals its files, in the order of the names."""
    names = [source.name(i) for i in range(len(source))]
    assert names == sorted(names)
    for name, (image, label) in zip(names, source, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(root / name)))
        np.testing.assert_array_equal(
            label, to_ids(np.asarray(Image.open(root / label_path(name))))
        )


def test_segnet_copy(segnet_dir, cache):
    train, val = opened(segnet_dir, "train", cache), opened(segnet_dir, "val", cache)
    assert (len(train), len(val)) == (5, 2)
    assert train.labels == SEGNET_LABELS
    assert train.name(1) == "train/b b.jpg"

    def label_path(name):
        folder, file = name.split("/")
        return f"{folder}annot/{pathlib.Path(file).stem}.png"

    for source in (train, val):
        assert_holds(source, segnet_dir, label_path, lambda ids: np.where(ids == 11, 255, ids))
    assert check_labels(train).num_images == 5


def test_segnet_copy_with_test_split(segnet_dir, cache):
    shutil.copytree(segnet_dir / "val", segnet_dir / "test")
    shutil.copytree(segnet_dir / "valannot", segnet_dir / "testannot")
    assert len(opened(segnet_dir, "test", cache)) == 2


@pytest.mark.parametrize("folders", [None, ("images", "labels")])
def test_original(original_dir, cache, folders):
    if folders:
        (original_dir / "701_StillsRaw_full").rename(original_dir / folders[0])
        (original_dir / "LabeledApproved_full").rename(original_dir / folders[1])
    images, labels = folders or ("701_StillsRaw_full", "LabeledApproved_full")
    train, val = opened(original_dir, "train", cache), opened(original_dir, "val", cache)
    assert train.labels == FULL_LABELS
    assert [val.name(i) for i in range(2)] == [f"{images}/frame_{i}.png" for i in (4, 9)]
    assert len(train) == 8
    palette = np.array(FULL_LABELS.palette)

    def to_ids(colors):
        return (colors[..., None, :] == palette).all(-1).argmax(-1)

    for source in (train, val):
        assert_holds(
            source,
            original_dir,
            lambda name: f"{labels}/{pathlib.Path(name).stem}_L.png",
            to_ids,
        )


def test_tutorial(tutorial_dir, cache):
    train, val = opened(tutorial_dir, "train", cache), opened(tutorial_dir, "val", cache)
    assert (len(train), len(val)) == (3, 2)
    assert train.labels == FULL_LABELS
    for source in (train, val):
        assert_holds(
            source, tutorial_dir, lambda n: n.replace("_images", "_labels"), lambda m: m[..., 0]
        )


def test_tutorial_with_the_spare_class(tutorial_dir, save, cache):
    save(tutorial_dir / "valid_labels" / "0.png", np.full((6, 8), 32, np.uint8))
    train = opened(tutorial_dir, "train", cache)
    assert train.labels.num_classes == 33
    assert train.labels.classes[31:] == ("Wall", "Spare")


def bad_id(root, save):
    save(root / "trainannot" / "c.png", np.full((6, 8), 12, np.uint8))
    return (
        r"1 of 7 image and label pairs .*/trainannot/c.png: number 12 in 48 pixels, 100.0 % .*"
        "0 to 10, and 11, 255 for unlabelled pixels; mend the mask$"
    )


def bad_id_in_val(root, save):
    save(root / "valannot" / "v.png", np.full((6, 8), 77, np.uint8))
    return "/valannot/v.png: number 77 in 48 pixels"


def rgb_mask(root, save):
    save(root / "trainannot" / "a.png", np.full((6, 8, 3), (64, 0, 128), np.uint8))
    return r"/trainannot/a.png: is an RGB mask \(colour \(64, 0, 128\).*numbers are .*0 to 10"


def other_size(root, save):
    save(root / "trainannot" / "a.png", np.zeros((3, 4), np.uint8))
    return "/trainannot/a.png: is 4 x 3, but its image .*/train/a.png is 8 x 6"


def damaged_image(root, save):
    path = root / "train" / "b b.jpg"
    path.write_bytes(path.read_bytes()[:200])
    return "/train/b b.jpg: is no readable picture"


def damaged_label(root, save):
    (root / "valannot" / "w.png").write_bytes(b"")
    return r"/valannot/w.png: is no readable picture \(empty file\)"


def broken_link(root, save):
    (root / "train" / "a.png").unlink()
    (root / "train" / "a.png").symlink_to(root / "nowhere.png")
    return "/train/a.png: cannot be read .No such file"


def no_label(root, save):
    (root / "trainannot" / "a.png").unlink()
    return r"1 of 7 pictures in .* has no mask \(train/a.png\); --missing-mask"


def no_image(root, save):
    (root / "train" / "a.png").unlink()
    return "/trainannot/a.png: has no image, expected .*/train/a with .png or .jpg"


def two_images(root, save):
    save(root / "train" / "a.jpg", np.zeros((6, 8, 3), np.uint8))
    return "/train/a.png: a.jpg has the same name"


def no_label_folder(root, save):
    shutil.rmtree(root / "valannot")
    return "/valannot: no such folder. Expected is one of: train/ trainannot/ val/ valannot/"


def empty_split(root, save):
    for folder in ("val", "valannot"):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    return "the val split has no images"


FAULTS = [
    *(bad_id, bad_id_in_val, rgb_mask, other_size, damaged_image, damaged_label, broken_link),
    *(no_label, no_image, two_images, no_label_folder, empty_split),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_bad_folder_is_refused_and_leaves_nothing(segnet_dir, save, cache, fault):
    message = fault(segnet_dir, save)
    with pytest.raises(DataError, match=message) as caught:
        opened(segnet_dir, "train", cache)
    assert "\n" not in str(caught.value)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_folder_can_be_mended(segnet_dir, save, cache):
    bad_id(segnet_dir, save)
    with pytest.raises(DataError):
        opened(segnet_dir, "train", cache)
    save(segnet_dir / "trainannot" / "c.png", np.zeros((6, 8), np.uint8))
    assert len(opened(segnet_dir, "train", cache)) == 5


def test_several_bad_files_make_one_error(segnet_dir, save, cache):
    bad_id(segnet_dir, save)
    other_size(segnet_dir, save)
    damaged_image(segnet_dir, save)
    damaged_label(segnet_dir, save)
    with pytest.raises(DataError, match="^4 of 7 .*a.png.*b b.jpg.*c.png.*and 1 more$"):
        opened(segnet_dir, "train", cache)


@pytest.mark.parametrize("arguments", [{"split": "all"}, {"split": "test"}])
def test_unknown_split(segnet_dir, cache, arguments):
    with pytest.raises(DataError, match=f"no split '{arguments['split']}'.*train, val"):
        open_source("camvid", data_dir=segnet_dir, cache_dir=cache, **arguments)


def test_missing_and_strange_folders(tmp_path, cache):
    with pytest.raises(DataError, match="/none: no such folder; give --data-dir.*tutorials"):
        opened(tmp_path / "none", "train", cache)
    (tmp_path / "odd" / "pictures").mkdir(parents=True)
    layouts = "train/ trainannot/.*701_StillsRaw_full/ LabeledApproved_full/.*train_images/ train_l"
    with pytest.raises(DataError, match=f"/odd: no CamVid layout.*holds pictures. .*{layouts}"):
        opened(tmp_path / "odd", "train", cache)


def test_prepared_once(segnet_dir, cache, monkeypatch):
    directory = prepare(CAMVID, segnet_dir, cache_dir=cache)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*") if path.is_file()}
    monkeypatch.setattr("flaxseg.data.prepared.check_folder", None)
    assert prepare(CAMVID, segnet_dir, cache_dir=cache) == directory
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) >= 2


def test_changed_folder_is_prepared_again(segnet_dir, save, cache):
    opened(segnet_dir, "train", cache)
    save(segnet_dir / "trainannot" / "a.png", np.full((6, 8), 3, np.uint8))
    os.utime(segnet_dir / "trainannot" / "a.png", (1, 1))
    assert (opened(segnet_dir, "train", cache)[0].label == 3).all()
    shutil.rmtree(segnet_dir / "trainannot")
    shutil.copytree(segnet_dir / "valannot", segnet_dir / "trainannot")
    with pytest.raises(
        DataError, match="5 of 7 pictures .* have no mask .*; 2 masks .* without picture"
    ):
        opened(segnet_dir, "train", cache)


DYING_PROGRAM = """
import os, signal, sys
from flaxseg.data import open_source, prepared

def write_half_and_die(target, *args, **options):
    (target / "index.json").write_text("{")
    os.kill(os.getpid(), signal.SIGKILL)

prepared.write_index = write_half_and_die
open_source("camvid", "train", data_dir=sys.argv[1], cache_dir=sys.argv[2])
"""


def test_killed_preparation_is_started_again(segnet_dir, cache):
    command = [sys.executable, "-c", DYING_PROGRAM, str(segnet_dir), str(cache)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(cache.rglob("index.json"))) == 1
    assert len(opened(segnet_dir, "train", cache)) == 5
    assert len(opened(segnet_dir, "val", cache)) == 2


def test_data_folder_stays_untouched(segnet_dir, cache):
    before = {path: path.stat().st_mtime_ns for path in segnet_dir.rglob("*")}
    opened(segnet_dir, "train", cache)
    assert {path: path.stat().st_mtime_ns for path in segnet_dir.rglob("*")} == before


def test_cache_directory_from_the_environment(segnet_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "elsewhere"))
    opened(segnet_dir, "train", None)
    assert len(list((tmp_path / "elsewhere" / "camvid").glob("segnet-*/index.json"))) == 1


def test_damaged_cache_is_explained(segnet_dir, cache):
    directory = prepare(CAMVID, segnet_dir, cache_dir=cache)
    for name in ("counts.npz", "index.json"):
        (directory / name).write_bytes(b"{")
        message = f"{directory}: the prepared data is damaged.*remove this folder"
        with pytest.raises(DataError, match=message):
            PreparedSource(directory, "train")


def test_unwritable_cache_is_explained(segnet_dir, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="/file/.*cannot be written.*; set FLAXSEG_CACHE to a"):
        opened(segnet_dir, "train", tmp_path / "file")


def test_index_out_of_range(segnet_dir, cache):
    with pytest.raises(IndexError, match="5 images, index 5"):
        opened(segnet_dir, "train", cache)[5]


def test_threads_may_share_a_source(segnet_dir, cache):
    source = opened(segnet_dir, "train", cache)
    expected = list(source)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(source.__getitem__, [i % 5 for i in range(100)]))
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result.image, expected[i % 5].image)
        np.testing.assert_array_equal(result.label, expected[i % 5].label)


PROGRAM = '''
import sys

class Hiding:
    """Finds what another finder does, as if two packages were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in ("tensorflow", "torch")
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
from flaxseg.data import EvalTransform, TrainTransform, eval_loader, open_source, train_loader
source = open_source("camvid", "train", data_dir=sys.argv[1], cache_dir=sys.argv[2])
next(iter(train_loader(source, TrainTransform((8, 8)), batch_size=2, seed=0)))
print(sum(int(b.weight.sum()) for b in eval_loader(source, EvalTransform(), batch_size=2)))
unused = {"tensorflow", "tensorflow_datasets", "torch", "matplotlib"}
assert not unused & set(sys.modules), unused & set(sys.modules)
'''


def test_folders_need_no_tensorflow_and_no_library_of_records_or_charts(segnet_dir, cache):
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(segnet_dir), str(cache)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "5\n", "")
