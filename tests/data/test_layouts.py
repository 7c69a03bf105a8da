"""Folders as people arrange them. Files are empty: nothing here may open a picture."""

import unicodedata

import pytest

from flaxseg.data.folder import find_folder
from flaxseg.data.pairs import missing_masks
from flaxseg.errors import DataError


@pytest.fixture
def tree(tmp_path):
    """Makes files, of no content or of a given one, and returns their folder."""

    def make(*names, classes="classes.txt", root="d", **texts):
        for name in (*names, *([classes] if classes else [])):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("a\nb\nc\n" if name == classes else "")
        for name, text in texts.items():
            (tmp_path / root / name.replace("__", "/")).write_text(text)
        return tmp_path / root

    return make


def files(form, numbers=range(3)):
    return [form.format(k) for k in numbers]


def found(root, **options):
    folder = find_folder(root, **options)
    return {split: {p.image.stem for p in pairs} for split, pairs in folder.splits.items()}


def partners(root):
    pairs = find_folder(root).pairs()
    return {
        pair.name: pair.label and pair.label.relative_to(root).as_posix()
        for pair in sorted(pairs, key=lambda pair: pair.name)
    }


SPLIT_FORMS = {
    "kind/split": ("images/{split}/{}.jpg", "masks/{split}/{}.png"),
    "split/kind": ("{split}/images/{}.jpg", "{split}/masks/{}.png"),
    "mmsegmentation": ("img_dir/{split}/{}.jpg", "ann_dir/{split}/{}.png"),
    "ade20k": ("images/{split}/{}.jpg", "annotations/{split}/{}.png"),
    "capitals": ("Images/{split}/{}.JPG", "LABELS/{split}/{}.PNG"),
    "other words": ("imgs/{split}/{}.jpeg", "gt/{split}/{}.bmp"),
    "joined": ("{split}_images/{}.jpg", "{split}_masks/{}.png"),
    "joined the other way": ("img-{split}/{}.jpg", "mask-{split}/{}.png"),
    "carvana": ("{split}/{}.jpg", "{split}_masks/{}_mask.gif"),
    "coco's stuff": ("{split}2017/{}.jpg", "annotations/{split}2017/{}.png"),
    "masks together": ("images/{split}/{}.jpg", "masks/{}.png"),
    "photos apart, masks together": ("{split}/{}.jpg", "labels/{}.png"),
    "cityscapes": (
        "leftImg8bit/{split}/ulm/{}_leftImg8bit.png",
        "gtFine/{split}/ulm/{}_gtFine_labelTrainIds.png",
    ),
    "roboflow": ("{split}/{}.rf.a1.jpg", "{split}/{}.rf.a1_mask.png"),
    "deepglobe": ("{split}/{}_sat.jpg", "{split}/{}_mask.png"),
    "masks within": ("{split}/{}.jpg", "{split}/masks/{}.png"),
    "by ending": ("{split}/{}.jpg", "{split}/{}.png"),
    "a folder deeper": ("mine/v2/images/{split}/{}.jpg", "mine/v2/masks/{split}/{}.png"),
}


@pytest.mark.parametrize(
    ("train", "val"), [("train", "val"), ("training", "valid"), ("Train", "Validation")]
)
@pytest.mark.parametrize("form", SPLIT_FORMS)
def test_splits_by_folders(tree, form, train, val):
    expected, names = {}, []
    for split, first in {train: 0, val: 10}.items():
        for number in range(first, first + 3):
            image, mask = (one.format(number, split=split) for one in SPLIT_FORMS[form])
            expected[image] = mask
            names += [image, mask]
    root = tree(*names)
    folder = find_folder(root)
    assert {split: len(pairs) for split, pairs in folder.splits.items()} == {"train": 3, "val": 3}
    assert partners(root) == expected and folder.orphans == ()
    assert not any("passed over" in line for line in folder.lines)


PLAIN_FORMS = {
    "own": ("images/{}.jpg", "masks/{}.png"),
    "words": ("JPEGImages/{}.jpg", "SegmentationClassPNG/{}.png"),
    "tiff": ("imgs/{}.tif", "labels/{}.tif"),
    "webp": ("photos/{}.webp", "gt/{}.bmp"),
    "nested": ("images/day/{}.jpg", "masks/day/{}.png"),
    "masks within": ("{}.jpg", "masks/{}.png"),
    "unknown folder": ("drone flight 7/{}.jpg", "masks/{}_m.png"),
    "photos in sequences": ("images/s1/{}.jpg", "masks/{}.png"),
    "beside, by head": ("img_{}.png", "mask_{}.png"),
    "beside, by ending": ("{}.jpg", "{}.png"),
    "beside, by tail": ("{}.png", "{}_seg.png"),
    "beside, two tails": ("{}_image.png", "{}_mask.png"),
    "beside, in sequences": ("s1/{}.jpg", "s1/{}-labels.png"),
}


@pytest.mark.parametrize("form", PLAIN_FORMS)
def test_without_splits_every_fifth_validates(tree, form):
    image, mask = PLAIN_FORMS[form]
    root = tree(*files(image, range(10, 20)), *files(mask, range(10, 20)))
    folder = find_folder(root)
    assert [len(folder.splits[split]) for split in ("train", "val")] == [8, 2]
    assert missing_masks(folder) is None and folder.orphans == ()
    assert any("every fifth picture validates" in line for line in folder.lines)


def test_clutter_is_passed_over(tree):
    names = [*files("images/{}.jpg", range(5)), *files("masks/{}.png", range(5))]
    clutter = ["__MACOSX/images/._0.jpg", "images/.DS_Store", "images/Thumbs.db", "masks/._1.png"]
    assert len(partners(tree(*names, *clutter))) == 5


def test_other_pictures_are_told_of(tree):
    names = [*files("JPEGImages/{}.jpg", range(5)), *files("SegmentationClass/{}.png", range(5))]
    folder = find_folder(tree(*names, *files("SegmentationObject/{}.png", range(5))))
    assert len(folder.pairs()) == 5
    (line,) = [line for line in folder.lines if "passed over" in line]
    assert "5 pictures" in line and "SegmentationObject/" in line


def test_own_words_count_before_others(tree):
    names = [*files("images/{}.jpg", range(5)), *files("masks/{}.png", range(5))]
    root = tree(*names, *files("labels/{}.png", range(5)))
    assert set(partners(root).values()) == set(files("masks/{}.png", range(5)))
    assert any("passed over: 5 pictures" in line for line in find_folder(root).lines)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("gt/0.png",), "gt/ and labels/ may both hold the masks; move one"),
        (("train/images/1.jpg", "train/masks/1.png"), "two layouts fit: .*train/images/.*imgs/"),
    ],
)
def test_what_could_mean_two_things_is_refused(tree, more, message):
    names = [*files("imgs/{}.jpg", range(5)), *files("labels/{}.png", range(5))]
    with pytest.raises(DataError, match=message) as caught:
        find_folder(tree(*names, *more))
    assert "\n" not in str(caught.value)


def test_two_folders_for_a_split(tree):
    names = [f"{s}/{k}/1.png" for s in ("train", "val", "valid") for k in ("images", "masks")]
    with pytest.raises(DataError, match="val/images/ and valid/images/ may both .* the val split"):
        find_folder(tree(*names))


# Names


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a{}", "A{}"),
        ("a{}0", "a{}0_mask"),
        ("a{}", "a{}-labels"),
        ("a{}", "a{}_L"),
        ("a{}", "a{}mask"),
        ("a{}_rgb", "a{}_semantic"),
        ("IMG_{}", "img_{}_GT"),
        ("image_{}", "mask_{}"),
        ("{}", "label{}"),
        ("b c {}", "b c {} (mask)"),
        ("day 1/x{}", "day 1/x{}_gt"),
    ],
)
def test_names_compared(tree, image, mask):
    names = [*files(f"images/{image}.jpg", range(15)), *files(f"masks/{mask}.png", range(15))]
    root = tree(*names)
    expected = {f"images/{image.format(k)}.jpg": f"masks/{mask.format(k)}.png" for k in range(15)}
    assert partners(root) == expected
    assert any(line.startswith("names: ") for line in find_folder(root).lines)


def test_equal_names_need_no_word(tree):
    root = tree(*files("images/{}_x.jpg", range(5)), *files("masks/{}_x.png", range(5)))
    assert not any(line.startswith("names: ") for line in find_folder(root).lines)


def test_accents_apart_match(tree):
    name = "bl\N{LATIN SMALL LETTER A WITH DIAERESIS}tter"
    apart = unicodedata.normalize("NFD", name)
    names = [
        f"images/{name}1.jpg",
        f"masks/{apart}1_mask.png",
        "images/x2.jpg",
        "masks/x2_mask.png",
    ]
    root = tree(*names, "images/x3.jpg", "images/x4.jpg", "images/x5.jpg")
    assert partners(root)[f"images/{name}1.jpg"] == f"masks/{apart}1_mask.png"


def test_tail_that_some_masks_lack_is_no_tail(tree):
    names = [*files("images/a{}.jpg", range(6)), *files("masks/a{}.png", range(5))]
    folder = find_folder(tree(*names, "masks/a5_mask.png"))
    assert [pair.name for pair in folder.pairs() if pair.label is None] == ["images/a5.jpg"]
    assert [orphan.name for orphan in folder.orphans] == ["masks/a5_mask.png"]
    message = str(missing_masks(folder))
    assert "1 of 6 pictures" in message and "(images/a5.jpg)" in message
    assert "1 mask (masks/a5_mask.png) without picture" in message


def test_numbers_are_not_cut(tree):
    """Frame 11's mask is not frame 10's, however all of them end."""
    names = [*files("images/{}0.jpg", range(1, 6)), *files("masks/{}1.png", range(1, 6))]
    with pytest.raises(
        DataError, match=r"no picture has a mask of its name: 5 pictures \(images/10"
    ):
        find_folder(tree(*names))


def test_heads_of_no_meaning_are_no_heads(tree):
    names = [*files("images/cam1_{}.jpg", range(5)), *files("masks/cam2_{}.png", range(5))]
    with pytest.raises(DataError, match="no picture has a mask of its name"):
        find_folder(tree(*names))


def test_two_masks_for_a_picture(tree):
    names = [*files("images/{}.jpg", range(5)), *files("masks/{}.png", range(5)), "masks/3.tif"]
    with pytest.raises(DataError, match="masks/3.tif: 3.png has the same name; remove one"):
        find_folder(tree(*names))
    names = [*files("images/a{}.jpg", range(5)), *files("masks/A{}.png", range(5)), "masks/a1.png"]
    with pytest.raises(
        DataError, match="A1.png and masks/a1.png may both be the mask of images/a1"
    ):
        find_folder(tree(*names, root="e"))


def test_one_mask_for_two_pictures(tree):
    names = ["images/train/1.jpg", "images/val/1.jpg", "masks/1.png"]
    with pytest.raises(DataError, match="images/val/1.jpg: images/train/1.jpg has the same name"):
        find_folder(tree(*names))


def test_pictures_without_mask_stay(tree):
    folder = find_folder(tree(*files("images/{}.jpg", range(10)), *files("masks/{}.png", range(4))))
    assert len(folder.pairs()) == 10 and len(folder.splits["val"]) == 2
    message = str(missing_masks(folder))
    assert message.startswith(f"6 of 10 pictures in {folder.root} have no mask (images/4.jpg, ")
    assert message.endswith(
        "--missing-mask CLASS makes every pixel of them that class, --missing-mask skip leaves "
        "them out"
    )


def test_both_sides_without_partner_are_shown(tree):
    names = [*files("images/a{}.jpg", range(4)), *files("masks/b{}.tif", range(2))]
    message = r"4 pictures \(images/a0.jpg, .*, \.\.\.\), 2 masks \(masks/b0.tif, masks/b1.tif\)"
    with pytest.raises(DataError, match=message):
        find_folder(tree(*names))


# Splits

PAIRS = [*files("images/{}.jpg", range(6)), *files("masks/{}.png", range(6))]


@pytest.mark.parametrize(
    "place", ["", "ImageSets/Segmentation/", "splits/", "lists/", "ImageSets/"]
)
@pytest.mark.parametrize(
    ("train", "val", "form"),
    [
        ("train.txt", "val.txt", "{}"),
        ("Train.txt", "Validation.txt", "{}.jpg"),
        ("train_list.txt", "valid_list.txt", "images/{}.jpg"),
        ("training.txt", "dev.txt", '"./images/{}.png"'),
        ("train.txt", "val.txt", "images/{0}.jpg masks/{0}.png"),
        ("train.txt", "val.txt", "/images/{0}.jpg,/masks/{0}.png"),
        ("train.txt", "val.txt", "images\\{0}.jpg\tmasks\\{0}.png"),
    ],
)
def test_lists(tree, place, train, val, form):
    root = tree(*PAIRS, f"{place}{train}", f"{place}{val}", f"{place}trainval.txt")
    (root / place / train).write_text("".join(line + "\n" for line in files(form, (0, 2, 4))))
    (root / place / val).write_text("# those that validate\r\n" + "\r\n".join(files(form, (1, 3))))
    (root / place / "trainval.txt").write_text("\n".join(files(form, range(6))))
    assert found(root) == {"train": {"0", "2", "4"}, "val": {"1", "3"}}
    folder = find_folder(root)
    assert any(f"3 train, 2 val: {place}{train} and {val}" in line for line in folder.lines)
    assert {path.name for path in folder.files()} >= {train, val}
    assert all(pair.label.stem == pair.image.stem for pair in folder.pairs())


def test_lists_with_other_masks_than_those_of_the_name(tree):
    """As VOC with the further masks of Hariharan et al. is used."""
    names = [*files("JPEGImages/{}.jpg", range(4)), *files("SegmentationClass/{}.png", range(2))]
    root = tree(*names, *files("SegmentationClassAug/{}.png", range(4)), "train.txt", "val.txt")
    for name, numbers in {"train.txt": (0, 1, 2), "val.txt": (3,)}.items():
        lines = files("/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png", numbers)
        (root / name).write_text("\n".join(lines))
    assert {mask.split("/")[0] for mask in partners(root).values()} == {"SegmentationClassAug"}
    assert found(root) == {"train": {"0", "1", "2"}, "val": {"3"}}


def test_lists_name_what_is_not_there(tree):
    root = tree(*PAIRS, train="")
    (root / "train.txt").write_text("0\n1\nimages/gone.jpg\n")
    (root / "val.txt").write_text("2\n")
    folder = find_folder(root)
    (lost,) = folder.orphans
    assert (
        lost.name == "images/gone.jpg" and "train.txt: 'images/gone.jpg' is no image" in lost.reason
    )
    assert any("left out: 3 pictures (images/3.jpg" in line for line in folder.lines)


def test_masks_that_no_list_names_are_no_fault(tree):
    root = tree(*PAIRS, "masks/9.png")
    (root / "train.txt").write_text("0\n1\n")
    (root / "val.txt").write_text("2\n")
    folder = find_folder(root)
    assert folder.orphans == () and any("masks/9.png" in line for line in folder.lines)


def test_list_of_a_task_without_splits(tree):
    """As CVAT writes it."""
    root = tree(*PAIRS, "ImageSets/Segmentation/default.txt")
    (root / "ImageSets/Segmentation/default.txt").write_text("0\n1\n2\n3\n4\n")
    assert found(root) == {"train": {"0", "1", "2", "3"}, "val": {"4"}}
    assert any("fifth" in line for line in find_folder(root).lines)


def test_folders_count_before_lists(tree):
    names = [form.format(s, k) for s in ("train", "val") for k in range(2) for form in FORMS]
    root = tree(*names)
    (root / "train.txt").write_text("0\n")
    (root / "val.txt").write_text("1\n")
    assert found(root) == {"train": {"train0", "train1"}, "val": {"val0", "val1"}}
    assert any("train.txt and val.txt passed over" in line for line in find_folder(root).lines)


FORMS = ("images/{0}/{0}{1}.jpg", "masks/{0}/{0}{1}.png")


def test_train_alone_gives_a_fifth(tree):
    root = tree(*(form.format("train", k) for k in range(5) for form in FORMS))
    assert found(root) == {"train": {f"train{k}" for k in range(4)}, "val": {"train4"}}
    assert any("no val split: every fifth picture of train" in x for x in find_folder(root).lines)


def test_train_and_test_are_no_validation(tree):
    root = tree(*(form.format(s, k) for s in ("train", "test") for k in range(5) for form in FORMS))
    with pytest.raises(
        DataError, match="the val split has no images, the folder has train and test"
    ):
        find_folder(root)


def test_test_split_without_any_mask_is_left_out(tree):
    names = [form.format(s, k) for s in ("train", "val") for k in range(2) for form in FORMS]
    folder = find_folder(tree(*names, "images/test/1.jpg", "images/test/2.jpg"))
    assert set(folder.splits) == {"train", "val"} and missing_masks(folder) is None
    assert any("left out: the test split, 2 pictures" in line for line in folder.lines)


def test_splits_deep_in_the_folders(tree):
    names = [
        f"{kind}/site 1/{split}/{k}.png"
        for kind in ("images", "masks")
        for split in ("train", "val")
        for k in range(2)
    ]
    assert {split: len(names) for split, names in found(tree(*names)).items()} == {
        "train": 2,
        "val": 2,
    }


# Classes


def test_pascal_voc_needs_no_class_file(tree):
    names = [*files("JPEGImages/{}.jpg", range(4)), *files("SegmentationClass/{}.png", range(4))]
    names = [f"VOCdevkit/VOC2012/{name}" for name in names]
    lists = "VOCdevkit/VOC2012/ImageSets/Segmentation"
    root = tree(*names, f"{lists}/train.txt", f"{lists}/val.txt", classes=None)
    (root / lists / "train.txt").write_text("0\n1\n2\n")
    (root / lists / "val.txt").write_text("3\n")
    folder = find_folder(root)
    labels = folder.classes.labels
    assert labels.num_classes == 21 and labels.classes[15] == "person"
    assert labels.palette[15] == (192, 128, 128)
    assert any("Pascal VOC are assumed" in line for line in folder.lines)
    assert folder.pairs()[0].name == "VOCdevkit/VOC2012/JPEGImages/0.jpg"


@pytest.mark.parametrize("place", ["", "masks/", "masks/train/", "images/", "annotations/"])
def test_class_file_in_other_places(tree, place):
    names = [form.format(s, k) for s in ("train", "val") for k in range(2) for form in FORMS]
    folder = find_folder(tree(*names, classes=f"{place}classes.txt"))
    assert folder.classes.labels.classes == ("a", "b", "c")
    assert f"classes: {place}classes.txt" in folder.lines


def test_class_file_outside_of_the_only_folder(tree):
    names = [f"export/{form.format(s, 1)}" for s in ("train", "val") for form in FORMS]
    assert find_folder(tree(*names)).classes.labels.classes == ("a", "b", "c")


def test_class_files_that_contradict(tree):
    root = tree(*PAIRS)
    (root / "classes.json").write_text('["x", "y"]')
    folder = find_folder(root)
    assert folder.classes.labels.classes == ("x", "y")
    assert "classes: classes.json, classes.txt passed over" in folder.lines


def test_splits_with_different_classes(tree):
    names = ["train/1.jpg", "train/1_mask.png", "valid/1.jpg", "valid/1_mask.png"]
    root = tree(*names, "valid/classes.txt", classes="train/classes.txt")
    (root / "valid/classes.txt").write_text("b\na\nc\n")
    with pytest.raises(
        DataError, match="valid/classes.txt: has 'b' where .*train/classes.txt has 'a'"
    ):
        find_folder(root)


def test_folder_that_holds_nothing_of_use(tree):
    with pytest.raises(
        DataError, match="has no images/ and masks/, nor .* it holds notes.md, x. Exp"
    ):
        find_folder(tree("x/y.txt", "notes.md", classes=None))
