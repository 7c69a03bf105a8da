import numpy as np
import pytest

from flaxseg.data.camvid import FULL_LABELS, SEGNET_LABELS, SPARE_LABELS, find_folder
from flaxseg.data.classes import read_colors
from flaxseg.data.masks import declared
from flaxseg.errors import DataError


def stems(folder, split):
    return [pair.image.stem for pair in folder.splits[split]]


def make_original(root, save, names):
    for name in names:
        save(root / "images" / f"{name}.png", np.zeros((2, 2, 3), np.uint8))
        save(root / "labels" / f"{name}_L.png", np.zeros((2, 2, 3), np.uint8))
    return root


def test_label_sets():
    assert SEGNET_LABELS.num_classes == 11
    assert dict(zip(SEGNET_LABELS.classes, SEGNET_LABELS.palette, strict=True))["pavement"] == (
        (60, 40, 222)
    )
    assert FULL_LABELS.num_classes == 32 and SPARE_LABELS.num_classes == 33
    assert FULL_LABELS.classes[17] == "Road" and FULL_LABELS.palette[17] == (128, 64, 128)
    assert list(FULL_LABELS.classes) == sorted(FULL_LABELS.classes, key=str.lower)
    assert len(set(FULL_LABELS.palette)) == 32


def test_published_split_of_the_original(tmp_path, save):
    published = {
        "train": ["0001TP_006690", "0001TP_008520", "0006R0_f00930", "0016E5_00390"],
        "val": ["0016E5_07959", "0016E5_08159"],
        "test": ["0001TP_008550", "Seq05VD_f00000"],
    }
    published["train"].append("0016E5_08190")
    names = [name for members in published.values() for name in members]
    folder = find_folder(make_original(tmp_path, save, names))
    assert {split: stems(folder, split) for split in folder.splits} == published


def test_other_names_validate_on_every_fifth(tmp_path, save):
    folder = find_folder(make_original(tmp_path, save, [f"x{i}" for i in range(10)]))
    assert stems(folder, "val") == ["x4", "x9"]
    assert stems(folder, "train") == [f"x{i}" for i in (0, 1, 2, 3, 5, 6, 7, 8)]


def test_split_lists(tmp_path, save):
    root = make_original(tmp_path, save, ["a b", "c.1", "d", "e", "f"])
    (root / "train.txt").write_text("images/a b.png\r\nc.1\n\n")
    (root / "val.txt").write_text("d\n")
    (root / "test.txt").write_text("e.png\n")
    folder = find_folder(root)
    found = {split: stems(folder, split) for split in folder.splits}
    assert found == {"train": ["a b", "c.1"], "val": ["d"], "test": ["e"]}
    assert {path.name for path in folder.files()} >= {"train.txt", "val.txt", "test.txt"}


def test_validation_list_alone_leaves_the_rest_for_training(tmp_path, save):
    root = make_original(tmp_path, save, ["a", "b", "c"])
    (root / "valid.txt").write_text("b.png\n")
    folder = find_folder(root)
    assert stems(folder, "train") == ["a", "c"] and stems(folder, "val") == ["b"]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"val.txt": "a\nnone.png\n"}, "val.txt: 'none.png' is no image of .*/images"),
        ({"train.txt": "a\nb\n", "val.txt": "b\n"}, "val.txt: 'b' is in the train list, too"),
        ({"train.txt": "a\nb\n"}, "the val split has no images"),
    ],
)
def test_bad_split_lists(tmp_path, save, lists, message):
    root = make_original(tmp_path, save, ["a", "b", "c"])
    for name, text in lists.items():
        (root / name).write_text(text)
    with pytest.raises(DataError, match=message):
        find_folder(root)


def test_label_without_suffix(tmp_path, save):
    root = make_original(tmp_path, save, ["a", "b"])
    save(root / "labels" / "a.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(
        DataError, match="/labels/a.png: a label map is expected to be named NAME_L"
    ):
        find_folder(root)


def test_hidden_and_other_files_are_ignored(segnet_dir):
    for name in (".DS_Store", "._a.png", "Thumbs.db"):
        (segnet_dir / "train" / name).write_bytes(b"x")
    assert len(find_folder(segnet_dir).splits["train"]) == 5


def test_colour_file_decides_about_classes(original_dir, save):
    lines = ["10 20 30\tGround", "0 0 0 \t Sky part", "", "40 50 60\tGround"]
    (original_dir / "label_colors.txt").write_text("\r\n".join(lines))
    labels, colors = read_colors(original_dir / "label_colors.txt", "camvid")
    assert labels.classes == ("Ground", "Sky part")
    assert labels.palette == ((10, 20, 30), (0, 0, 0))
    assert colors == {(10, 20, 30): 0, (0, 0, 0): 1, (40, 50, 60): 0}

    folder = find_folder(original_dir)
    assert folder.classes.labels == labels
    with pytest.raises(DataError, match="_L.png: colour .* none of the 3 colours of .*colors.txt"):
        declared(folder.classes).read(folder.splits["train"][0].label)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3 a\n1 2 Road\n", "line 2: '1 2 Road', expected R G B Name"),
        ("1 2 300 Road\n", "line 1: '1 2 300 Road', expected R G B Name, 0 to 255"),
        ("1 2 3 a\n1 2 3 b\n", r"line 2: a has the colour \(1, 2, 3\), too"),
        ("\n", "is empty, expected lines R G B Name"),
    ],
)
def test_bad_colour_file(tmp_path, text, message):
    path = tmp_path / "label_colors.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=f"label_colors.txt.*{message}"):
        read_colors(path, "camvid")


def test_a_colour_file_that_is_no_text(tmp_path):
    path = tmp_path / "label_colors.txt"
    path.write_bytes("1 2 3 Stra\N{LATIN SMALL LETTER SHARP S}e\n".encode("latin-1"))
    with pytest.raises(DataError, match="label_colors.txt: is no UTF-8 text file .*; save it as"):
        read_colors(path, "camvid")


def test_a_split_list_that_is_no_text(tmp_path, save):
    root = make_original(tmp_path, save, ["a", "b"])
    (root / "train.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(DataError, match="train.txt: is no UTF-8 text file"):
        find_folder(root)


def test_a_colour_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="no UTF-8 text file .*No such file"):
        read_colors(tmp_path / "label_colors.txt", "camvid")
