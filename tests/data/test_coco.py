"""Masks painted from COCO's JSON, compared with COCO's own code once and with drawings."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as oracle

from flaxseg.data.folder import find_folder
from flaxseg.data.pairs import missing_masks
from flaxseg.errors import DataError

HEIGHT, WIDTH = 24, 30
BOX = [[2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]]


def image(number, name=None):
    name = name or f"{number}.jpg"
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}


def annotation(of, category=1, segmentation=BOX, **more):
    return {"image_id": of, "category_id": category, "segmentation": segmentation, **more}


ROAD_CAR = [{"id": 1, "name": "road"}, {"id": 2, "name": "car"}]


def content(images, annotations, categories=ROAD_CAR):
    numbered = [{"id": n, **values} for n, values in enumerate(annotations)]
    return {"images": images, "annotations": numbered, "categories": categories, "info": {}}


@pytest.fixture
def write(tmp_path):
    """Writes files, JSON from values and empty pictures, and returns their folder."""

    def make(**files):
        root = tmp_path / "d"
        for name, values in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(values if isinstance(values, str) else json.dumps(values))
        return root

    return make


@pytest.fixture
def one(write, cache):
    """Finds a folder of five pictures with one JSON."""

    def make(annotations, categories=ROAD_CAR, numbers=range(6)):
        values = content([image(k) for k in numbers], annotations, categories)
        pictures = {f"images/{k}.jpg": "" for k in range(6)}
        return find_folder(write(**{"annotations.json": values, **pictures}), cache=cache)

    return make


def labels(folder):
    return {pair.image.stem: np.asarray(Image.open(pair.label)) for pair in folder.pairs()}


def blob(seed):
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.3


def uncompressed(mask):
    flat = mask.T.ravel()
    change = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate(([0], change, [flat.size]))
    counts = np.diff(bounds).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [0, *counts] if flat[0] else counts}


def compressed(mask):
    runs = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
def test_painted_as_by_cocos_own_code(one):
    """Polygons with holes between and beyond the border, both forms of runs, crowds; in order."""
    rng = np.random.default_rng(3)
    polygons = [(rng.random((6, 2)) * 40 - 5).ravel().tolist() for _ in range(3)]
    annotations = [
        annotation(0, 2, polygons[:2]),
        annotation(0, 1, uncompressed(blob(0)), iscrowd=1),
        annotation(1, 1, compressed(blob(1)), iscrowd=1),
        annotation(1, 2, polygons[2:]),
        annotation(0, 2, BOX),
    ]
    found = labels(one(annotations))
    for number in (0, 1):
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        for values in annotations:
            runs = values["segmentation"]
            if isinstance(runs, list):
                runs = oracle.merge(oracle.frPyObjects(runs, HEIGHT, WIDTH))
            elif isinstance(runs["counts"], list):
                runs = oracle.frPyObjects(runs, HEIGHT, WIDTH)
            if values["image_id"] == number:
                expected[oracle.decode(runs).astype(bool)] = values["category_id"]
        np.testing.assert_array_equal(found[str(number)], expected)
        assert set(np.unique(expected)) == {0, 1, 2}


def test_a_later_annotation_covers_an_earlier_one(one):
    inner = [[4.0, 4.0, 8.0, 4.0, 8.0, 8.0, 4.0, 8.0]]
    found = labels(
        one([annotation(0, 1), annotation(0, 2, inner), annotation(1, 2, inner), annotation(1, 1)])
    )
    assert found["0"][6, 6] == 2 and found["0"][3, 3] == 1 and found["0"][0, 0] == 0
    assert found["1"][6, 6] == 1


def test_pictures_without_annotation_are_background(one):
    folder = one([annotation(0)])
    assert missing_masks(folder) is None and len(folder.pairs()) == 6
    assert not labels(folder)["4"].any() and labels(folder)["4"].shape == (HEIGHT, WIDTH)
    assert folder.classes.labels.classes == ("background", "road", "car")
    assert any("every fifth" in line for line in folder.lines)


@pytest.mark.parametrize(
    ("categories", "classes", "says"),
    [
        (
            [{"id": 7, "name": "b"}, {"id": 3, "name": "a"}],
            ("background", "a", "b"),
            "0 is background",
        ),
        (
            [{"id": 0, "name": "a"}, {"id": 7, "name": "b"}, {"id": 3, "name": "c"}],
            ("background", "a", "c", "b"),
            "0 is background",
        ),
        (
            [{"id": 3, "name": "a"}, {"id": 7, "name": "Background"}],
            ("Background", "a"),
            "0 is Back",
        ),
        (
            [
                {"id": 0, "name": "roads-x1", "supercategory": "none"},
                {"id": 3, "name": "a", "supercategory": "roads-x1"},
                {"id": 7, "name": "b", "supercategory": "roads-x1"},
            ],
            ("background", "a", "b"),
            "category 0 'roads-x1' is no class",
        ),
        (
            [
                {"id": 3, "name": "person", "supercategory": "person"},
                {"id": 7, "name": "car", "supercategory": "vehicle"},
            ],
            ("background", "person", "car"),
            "0 is background",
        ),
    ],
)
def test_classes(one, categories, classes, says):
    folder = one([annotation(0, 7), annotation(1, 3)], categories)
    assert folder.classes.labels.classes == classes
    name = next(category["name"] for category in categories if category["id"] == 7)
    assert set(np.unique(labels(folder)["0"])) == {0, classes.index(name)} | {0}
    assert any(says in line for line in folder.lines)


def test_a_group_that_annotations_are_of_is_a_class(one):
    categories = [{"id": 0, "name": "x"}, {"id": 1, "name": "a", "supercategory": "x"}]
    found = one([annotation(0, 0)], categories).classes
    assert found.labels.classes == ("background", "x", "a")


def test_broken_polygons_are_left_out_and_counted(one):
    broken = [[1, 2, 3, 4], [], [1, 2, 3, 4, 5, 6, 7]]
    folder = one([annotation(0, 1, [*broken, *BOX]), annotation(1, 1, broken[:1])])
    assert any("left out: 4 polygons" in line for line in folder.lines)
    assert labels(folder)["0"].any() and not labels(folder)["1"].any()


FORMS = {
    "roboflow": ("{split}/_annotations.coco.json", "{split}/{k}.jpg", "{k}.jpg"),
    "coco 2017": ("annotations/instances_{split}2017.json", "{split}2017/{k}.jpg", "{k}.jpg"),
    "cvat": ("annotations/instances_{split}.json", "images/{split}/{k}.jpg", "{k}.jpg"),
    "label studio": (
        "{split}.json",
        "images/{split}/{k}.jpg",
        "..\\data\\images\\{split}\\{k}.jpg",
    ),
    "in an only folder": ("x/{split}/labels.json", "x/{split}/data/{k}.jpg", "data/{k}.jpg"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Train", "Validation")])
def test_splits(write, cache, form, train, val):
    """Pictures of both splits have the same names."""
    files = {}
    for split, category in {train: 1, val: 2}.items():
        json_name, picture, listed = (part.replace("{split}", split) for part in FORMS[form])
        images = [image(10 + k, listed.format(k=k)) for k in range(2)]
        files[json_name] = content(images, [annotation(10 + k, category) for k in range(2)])
        files |= {picture.format(k=k): "" for k in range(2)}
    if form == "coco 2017":  # which keeps them in the same folder
        files["annotations/captions_train2017.json"] = {"images": [], "annotations": []}
        files["annotations/person_keypoints_train2017.json"] = content([image(0)], [])
    root = write(**files)
    folder = find_folder(root, cache=cache)
    assert {split: len(pairs) for split, pairs in folder.splits.items()} == {"train": 2, "val": 2}
    for category, split in enumerate(("train", "val"), start=1):
        word = (train, val)[category - 1]
        for pair in folder.splits[split]:
            assert pair.name == FORMS[form][1].format(split=word, k=pair.image.stem)
            assert np.asarray(Image.open(pair.label)).max() == category


def test_one_json_with_lists(write, cache):
    files = {f"images/{k}.jpg": "" for k in range(4)}
    files["instances_default.json"] = content([image(k) for k in range(4)], [annotation(0)])
    root = write(**files, **{"train.txt": "0\n1\n", "val.txt": "2.jpg\n3.jpg\n"})
    folder = find_folder(root, cache=cache)
    assert [pair.image.stem for pair in folder.splits["val"]] == ["2", "3"]


def test_pictures_that_are_not_there_or_not_listed(one):
    folder = one([annotation(0)], numbers=(0, 1, 2, 3, 4, 9))
    (lost,) = folder.orphans
    assert lost.name == "9.jpg" and "annotations.json: '9.jpg' is no picture" in lost.reason
    assert any("passed over: 1 picture (images/5.jpg)" in line for line in folder.lines)


def test_masks_count_before_json(write, cache):
    files = {f"{kind}/{k}.png": "" for kind in ("images", "masks") for k in range(5)}
    root = write(**files, **{"classes.txt": "a\nb\n", "x.json": content([image(0)], [])})
    assert find_folder(root, cache=cache).classes.labels.classes == ("a", "b")
    assert not cache.exists()


def test_painted_once(one, cache, monkeypatch):
    before = labels(one([annotation(0)]))
    monkeypatch.setattr("flaxseg.data.folder.paint", None)
    root = cache.parent / "d"
    after = labels(find_folder(root, cache=cache))
    assert after.keys() == before.keys() and len(list((cache / "coco").iterdir())) == 1


def boxes_alone():
    return content([image(0), image(1)], [annotation(0), annotation(1, segmentation=[])])


def unknown_category():
    return content([image(0)], [annotation(0, 5)])


def other_size():
    return content([image(0)], [annotation(0, 1, {"size": [3, 4], "counts": [12]})])


def damaged_runs():
    return content([image(0)], [annotation(0, 1, {"size": [HEIGHT, WIDTH], "counts": [5, 4]})])


def of_no_image():
    return content([image(0)], [annotation(3)])


def without_size():
    return content([{"id": 0, "file_name": "0.jpg"}], [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (boxes_alone(), "1 of 2 annotations have no segmentation, only boxes or points"),
        (unknown_category(), "category 5 .None., which is none of background, road, car"),
        (other_size(), r"a mask of 0.jpg is \[3, 4\], but the image is \[24, 30\]"),
        (damaged_runs(), "a mask of 0.jpg cannot be read .*; export it again"),
        (of_no_image(), 'an annotation is of image 3, which is not in "images"'),
        (without_size(), "has no 'height'"),
        ('{"images": [], "annotations": [], "categories": [}', "is no JSON file"),
        ('{"images": 3, "annotations": [], "categories": []}', 'has no list "images"'),
    ],
)
def test_refused(write, cache, values, message):
    root = write(**{"instances.json": values, "images/0.jpg": ""})
    with pytest.raises(DataError, match=f"instances.json: .*{message}") as caught:
        find_folder(root, cache=cache)
    assert "\n" not in str(caught.value)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_two_files_for_all_pictures(write, cache):
    values = content([image(0)], [])
    with pytest.raises(DataError, match="a.json and b.json are both COCO files for all pictures"):
        find_folder(write(**{"a.json": values, "b.json": values, "images/0.jpg": ""}), cache=cache)


def test_splits_with_other_categories(write, cache):
    """The same classes under other numbers are one; a class that train lacks is refused."""
    turned = [{"id": 9, "name": "road"}, {"id": 4, "name": "car"}]
    files = {f"{split}/0.jpg": "" for split in ("train", "val")}
    files["train/a.json"] = content([image(0)], [annotation(0, 1)])
    files["val/a.json"] = content([image(0)], [annotation(0, 4)], turned)
    folder = find_folder(write(**files), cache=cache)
    assert np.asarray(Image.open(folder.splits["val"][0].label)).max() == 2
    files["val/a.json"] = content([image(0)], [annotation(0, 4)], [{"id": 4, "name": "tree"}])
    with pytest.raises(
        DataError, match=r"val/a.json: .* category 4 \(tree\), which is none of back"
    ):
        find_folder(write(**files), cache=cache)


def test_package_is_missing(one, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval.core", None)
    with pytest.raises(DataError, match=r"pip install 'flaxseg\[coco\]'"):
        one([annotation(0)])
