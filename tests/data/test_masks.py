import functools
import json

import numpy as np
import pytest
from PIL import Image

from flaxseg.data import mask_files
from flaxseg.data.classes import Classes, from_names, read_classes
from flaxseg.data.masks import Reading, choose, declared, look_at_mask
from flaxseg.errors import DataError
from flaxseg.labels import LabelSet

BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (200, 10, 20), (20, 10, 200)
VOC = [BLACK, (128, 0, 0), (0, 128, 0), *[(0, 0, 9)] * 252, (224, 224, 192)]
PAINTED = {"bg": BLACK, "car": RED, "sky": BLUE}


@pytest.fixture(autouse=True)
def any_format(monkeypatch):
    open_any = functools.partial(mask_files.open_picture, published=True)
    monkeypatch.setattr(mask_files, "open_picture", open_any)


def grey(*numbers):
    return Image.fromarray(np.array([numbers], np.uint8))


def rgb(*colors):
    return Image.fromarray(np.array([colors], np.uint8))


def even(*numbers):
    return rgb(*((number,) * 3 for number in numbers))


def indexed(colors, *indices):
    image = grey(*indices)
    image.putpalette(np.array(colors, np.uint8).ravel().tolist())
    return image


class Folder:
    """Masks and a class file; how they are read."""

    def __init__(self, root, masks, classes, file="classes.json"):
        self.root = root
        if not isinstance(classes, Classes):
            text = classes if isinstance(classes, str) else json.dumps(classes)
            (root / file).write_text(text)
            classes = read_classes(root / file, "mine")
        for name, image in masks.items():
            image.save(root / name, **({"quality": 95} if name.endswith("jpg") else {}))
        self.facts = {name: look_at_mask(root / name) for name in masks}
        chosen = choose(self.facts, classes)
        self.reading = Reading.from_json(json.loads(json.dumps(chosen.to_json())))

    def ids(self):
        """The class ids of all masks that can be read, which the counts must agree with."""
        found = {}
        for name, facts in self.facts.items():
            if self.reading.problem(name, facts) is None:
                ids = self.reading.read(self.root / name)
                counts = np.bincount(ids.ravel(), minlength=256)
                np.testing.assert_array_equal(self.reading.counts(facts), counts)
                found[name] = ids.ravel().tolist()
        return found

    def problems(self):
        found = {name: self.reading.problem(name, facts) for name, facts in self.facts.items()}
        return {name: problem for name, problem in found.items() if problem}

    def lines(self):
        return " | ".join(self.reading.lines)


@pytest.fixture
def folder(tmp_path):
    """`Folder` of masks called 0.png and so on, or by their keys."""

    def make(masks, classes, **options):
        named = masks if isinstance(masks, dict) else {f"{i}.png": m for i, m in enumerate(masks)}
        return Folder(tmp_path, named, classes, **options)

    return make


def names(*classes):
    return from_names(classes, "mine", "classes.txt")


def painted(colors, **more):
    return {"classes": [{"name": n, "color": list(c)} for n, c in colors.items()], **more}


TWO, THREE = names("ground", "road"), names("a", "b", "c")


@pytest.mark.parametrize(
    "masks",
    [
        [grey(0, 255, 0), grey(0, 0, 0)],
        [even(0, 255, 0), even(0, 0, 0)],
        [even(0, 255, 0), grey(0, 0, 0)],
        [grey(0, 255, 0).convert("P"), grey(0, 0, 0)],
        [indexed([WHITE, BLACK], 1, 0, 1), indexed([BLACK, WHITE], 0, 0, 0)],
        [grey(0, 255, 0), grey(0, 0, 0).convert("1")],
        [Image.fromarray(np.array([[0, 65535, 0]], np.uint16)), grey(0, 0, 0)],
    ],
)
@pytest.mark.parametrize("classes", [TWO, painted({"ground": BLACK, "road": RED})])
def test_two_classes_in_black_and_white(folder, masks, classes):
    found = folder(masks, classes)
    assert found.ids() == {"0.png": [0, 1, 0], "1.png": [0, 0, 0]}
    assert "255 is class road, 0 is ground" in found.lines()


def test_a_stray_picture_beside_black_and_white(folder):
    found = folder([grey(0, 255), grey(255, 0), rgb(RED, BLUE)], TWO)
    assert found.ids() == {"0.png": [0, 1], "1.png": [1, 0]}
    assert "is none of 0 and 255, black and white" in found.problems()["2.png"]


def test_an_unlabelled_grey_beside_black_and_white(folder):
    classes = {"classes": ["ground", "road"], "ignore": [128]}
    assert folder([grey(0, 128, 255)], classes).ids() == {"0.png": [0, 255, 1]}


@pytest.mark.parametrize(
    "masks",
    [
        [grey(0, 255, 0), grey(0, 255, 255), grey(0, 1, 255)],
        [grey(0, 255, 0), grey(0, 255, 255), even(0, 1, 255)],
        [grey(0, 255, 0), grey(0, 255, 255), indexed(VOC, 0, 1, 255)],
        [grey(0, 255, 0), grey(0, 255, 255), grey(0, 1, 0)],
    ],
)
def test_a_single_1_makes_255_unlabelled(folder, masks):
    found = folder(masks, TWO)
    assert found.ids()["1.png"] == [0, 255, 255] and found.ids()["2.png"][1] == 1
    assert "255 counts as unlabelled (" in found.lines()


@pytest.mark.parametrize(
    "classes",
    [
        {"classes": ["ground", "road"], "ignore": [255]},
        {"classes": [{"name": "ground", "id": 0}, {"name": "road", "id": 2}]},
    ],
)
def test_where_the_file_gives_numbers_255_is_what_it_says(folder, classes):
    assert folder([grey(0, 255)], classes).ids() == {"0.png": [0, 255]}


def test_black_and_white_of_three_classes_are_numbers(folder):
    found = folder([grey(0, 255)], THREE)
    assert found.ids() == {"0.png": [0, 255]}
    assert "255 counts as unlabelled (50.0 % of the pixels)" in found.lines()


def test_black_and_white_as_the_file_gives_them(folder):
    classes = painted({"paper": WHITE, "ink": BLACK})
    masks = [grey(0, 255), even(0, 255), Image.fromarray(np.array([[False, True]]))]
    found = folder(masks, classes)
    assert set(map(tuple, found.ids().values())) == {(1, 0)}


def test_white_background_is_asked_about(folder):
    message = 'names \'Background\' second.*"name": "cat", "ids": .255.*"Background", "ids": .0.'
    with pytest.raises(DataError, match=message):
        folder([grey(0, 255)], names("cat", "Background"))


@pytest.mark.parametrize("value", [1, 255])
def test_a_single_class(folder, value):
    with pytest.raises(DataError, match=f"{value}.*name the background as well.*in classes.txt"):
        folder([grey(0, value), grey(0, value)], names("road"))
    assert folder([grey(0, 255)], {"classes": ["road"], "ignore": [255]}).ids() == {
        "0.png": [0, 255]
    }


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (even(0, 2, 255, 1), "all channels are equal"),
        (rgb(BLACK, (2, 0, 0), (255, 0, 0), (1, 0, 0)), "red alone counts"),
        (even(0, 2, 255, 1).convert("RGBA"), "all channels are equal"),
    ],
)
def test_numbers_in_three_channels(folder, mask, line):
    found = folder([mask, even(0, 0, 0, 0)], THREE)
    assert found.ids() == {"0.png": [0, 2, 255, 1], "1.png": [0, 0, 0, 0]}
    assert line in found.lines()


def test_numbers_with_gaps_and_merged(folder):
    classes = {
        "classes": [{"name": "a", "ids": [7, 300]}, {"name": "b", "id": 255}],
        "ignore": [0],
    }
    wide = Image.fromarray(np.array([[300, 7, 255, 0]], np.uint16))
    found = folder([wide, grey(7, 255, 0)], classes)
    assert found.ids() == {"0.png": [0, 0, 1, 255], "1.png": [0, 1, 255]} and not found.lines()


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ((7, 26, 33), [("a", [7]), ("b", [26]), ("c", [33])]),
        ((1, 2, 3), [("a", [1]), ("b", [2]), ("c", [3])]),
        ((1, 2, 3, 255), [("a", [1]), ("b", [2]), ("c", [3])]),
        ((0, 127, 255), [("a", [0]), ("b", [127]), ("c", [255])]),
        ((0, 1, 2, 3), [("a", [1]), ("b", [2]), ("c", [3])]),
        ((0, 20, 40, 60, 255), [("a", [20]), ("b", [40]), ("c", [60])]),
    ],
)
def test_line_to_paste_reads_the_masks(folder, numbers, line):
    """The numbers are spread over the files: no file shows them all."""
    strange = max(number for number in numbers if number < 255)
    masks = [grey(number, strange) for number in numbers]
    with pytest.raises(DataError, match=r"0.png and \d more of \d grey masks: numbers? ") as caught:
        folder(masks, THREE)
    pasted = str(caught.value).partition("classes.json: ")[2]
    found = folder(masks, pasted)
    assert len(found.ids()) == len(masks)
    assert [(e["name"], e["ids"]) for e in json.loads(pasted)["classes"]] == line


def test_a_number_too_many_in_a_single_file(folder, tmp_path):
    found = folder([grey(0, 1), grey(2, 0), grey(0, 9, 9)], THREE)
    assert len(found.ids()) == 2
    assert found.problems() == {
        "2.png": "2.png: number 9 in 2 pixels, 66.7 % (first at row 0, column 1); allowed are 0 to "
        "2, and 255 for unlabelled pixels; mend the mask, or ignore the number: classes.json: "
        '{"classes": [{"name": "a"}, {"name": "b"}, {"name": "c"}], "ignore": [9]}'
    }
    assert found.reading.unknown(found.facts["2.png"]) == {9: 2}
    with pytest.raises(DataError, match="2.png: number 9 in 2 pixels"):
        found.reading.read(tmp_path / "2.png")


def test_painted_masks_without_colours(folder):
    with pytest.raises(DataError, match=r"0.png and 1 more of 2 RGB masks: is an RGB mask .colour"):
        folder([rgb(BLACK, RED), rgb(BLUE, RED)], THREE)
    found = folder([even(0, 1), even(2, 1), rgb(BLACK, RED)], THREE)
    message = r"is an RGB mask .colour \(200, 10, 20\) at row 0, column 1.*give each class its col"
    assert list(found.problems()) == ["2.png"]
    with pytest.raises(DataError, match=message):
        raise DataError(found.problems()["2.png"])


def test_masks_painted_in_red_are_no_numbers(folder):
    with pytest.raises(DataError, match=r"is an RGB mask .colour \(255, 0, 0\) at row 0, column 1"):
        folder([rgb(BLACK, (255, 0, 0)), rgb(BLACK, (255, 0, 0)), rgb(BLACK, BLACK)], TWO)


def test_colours_whatever_the_kind_of_file(folder):
    masks = [
        rgb(BLACK, RED, BLUE),
        rgb(BLACK, RED, BLUE).convert("RGBA"),
        indexed([BLUE, BLACK, RED], 1, 2, 0),
        rgb(BLACK, RED, BLUE).quantize(3),
        grey(0, 0, 0),
        even(0, 0, 0),
        indexed([RED], 0, 0, 0),
    ]
    found = folder(masks, painted(PAINTED))
    assert list(found.ids().values()) == [[0, 1, 2]] * 4 + [[0, 0, 0]] * 2 + [[1, 1, 1]]
    assert "grey masks are read by colour" in found.lines()
    assert "palette masks are read by colour" in found.lines()


@pytest.mark.parametrize("empty", [grey(0, 0), even(0, 0), grey(0, 255), indexed(VOC, 0, 0)])
def test_black_that_is_no_class_is_not_class_0_beside_painted_masks(folder, empty):
    classes = painted({"car": RED, "sky": BLUE})
    found = folder([rgb(RED, BLUE), rgb(BLUE, RED), empty], classes)
    assert "none of the 2 colours of" in found.problems()["2.png"]
    assert found.ids() == {"0.png": [0, 1], "1.png": [1, 0]}


def test_numbers_beside_painted_masks(folder):
    found = folder([rgb(RED, BLUE), rgb(BLUE, RED), grey(0, 1), grey(0, 0)], painted(PAINTED))
    assert found.ids()["2.png"] == [0, 1] and found.ids()["0.png"] == [1, 2]
    assert "grey masks are read by number, not by the colours" in found.lines()


def test_an_empty_painted_mask_beside_numbers(folder):
    assert folder([grey(0, 2), grey(1, 2), even(0, 0)], THREE).ids()["2.png"] == [0, 0]


def test_palette_for_display_is_read_by_index(folder):
    masks = [indexed(VOC, 0, 1, 2, 255), indexed(VOC, 0, 0, 0, 0)]
    for classes in (THREE, painted(PAINTED)):
        found = folder(masks, classes)
        assert found.ids() == {"0.png": [0, 1, 2, 255], "1.png": [0, 0, 0, 0]}
        assert "palette masks are read by index" in found.lines()


def test_palette_of_the_classes_with_an_unlabelled_border(folder):
    colors = dict(zip("abc", VOC, strict=False))
    found = folder([indexed(VOC, 0, 1, 2, 255), indexed(VOC, 0, 1, 2, 0)], painted(colors))
    assert found.ids() == {"0.png": [0, 1, 2, 255], "1.png": [0, 1, 2, 0]}


@pytest.mark.parametrize("colors", [[BLACK, RED, (20, 10, 199)], [RED, BLACK, (9, 9, 0)]])
def test_palette_with_some_of_the_colours_is_not_read_by_index(folder, colors):
    with pytest.raises(DataError, match=r"0.png and 1 more of 2 palette masks: colour .* none of"):
        folder([indexed(colors, 0, 1, 2), indexed(colors, 0, 1, 2)], painted(PAINTED))


def test_palettes_that_differ_are_not_read_by_index(folder):
    masks = [indexed([BLACK, RED], 0, 1), indexed([BLACK, BLUE], 0, 1)]
    message = (
        r"1.png: its palette gives index 1 the colour \(20, 10, 200\), that of 0.png "
        r"\(200, 10, 20\), .*give each class its colour in classes.json"
    )
    with pytest.raises(DataError, match=message):
        folder(masks, THREE)
    assert folder(masks, painted(PAINTED)).ids() == {"0.png": [0, 1], "1.png": [0, 2]}


def near(color, change):
    return tuple(int(np.clip(part + change, 0, 255)) for part in color)


@pytest.mark.parametrize("kind", ["RGB", "P"])
def test_smoothed_edges(folder, kind):
    masks = [rgb(RED, near(RED, 9), BLUE, BLACK), rgb(near(BLUE, -9), BLACK, RED, RED)]
    masks = [mask.convert(kind, palette=Image.Palette.ADAPTIVE) for mask in masks]
    message = r'1 pixel, 25.0 % of unknown colour.*take the nearest colour: add "match": "nearest"'
    with pytest.raises(DataError, match="colour .*at row 0, column 1 is none of the 3 colours"):
        folder(masks, painted(PAINTED))
    found = folder([masks[0], rgb(RED, RED, RED, RED), rgb(BLUE, RED)], painted(PAINTED))
    with pytest.raises(DataError, match=message):
        raise DataError(" ".join(found.problems().values()) or "2 palettes")
    found = folder(masks, painted(PAINTED, match="nearest"))
    assert found.ids() == {"0.png": [1, 1, 2, 0], "1.png": [2, 0, 1, 1]}
    assert "matched to the nearest colour (25.0 % of the pixels)" in found.lines()


def test_mend_of_smoothed_edges_can_be_pasted(folder):
    masks = [rgb(RED, near(RED, 9)), rgb(RED, near(RED, 5))]
    with pytest.raises(DataError, match="take the nearest colour: write classes.json: ") as caught:
        folder(masks, "0 0 0 bg\n200 10 20 car\n20 10 200 sky\n", file="classes.txt")
    assert len(folder(masks, str(caught.value).partition("classes.json: ")[2]).ids()) == 2


def flat(color):
    return Image.fromarray(np.full((16, 16, 3), color, np.uint8))


def test_jpeg_masks(folder):
    masks = {"0.jpg": flat(RED), "1.jpg": flat(BLUE)}
    with pytest.raises(DataError, match="0.jpg and 1 more .*: is a JPEG .*save it as PNG, or take"):
        folder(masks, painted(PAINTED))
    found = folder(masks, painted(PAINTED, match="nearest"))
    assert found.ids() == {"0.jpg": [1] * 256, "1.jpg": [2] * 256}


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_in_black_and_white(folder, mode):
    noise = np.zeros((16, 16), np.uint8)
    noise[:, 6:] = 255
    masks = {"0.jpg": Image.fromarray(noise).convert(mode), "1.jpg": flat(BLACK).convert(mode)}
    with pytest.raises(DataError, match="is a JPEG or compressed like one.*write classes.json: "):
        folder(masks, TWO)
    found = folder(masks, {"classes": ["ground", "road"], "match": "nearest"})
    assert found.ids() == {"0.jpg": (noise // 255).ravel().tolist(), "1.jpg": [0] * 256}


def test_smoothed_black_and_white(folder):
    masks = [grey(0, 3, 120, 255), grey(0, 0, 254, 255)]
    with pytest.raises(DataError, match="allowed are 0 and 255, black and white; .*take the near"):
        folder(masks, TWO)
    found = folder(masks, {"classes": ["ground", "road"], "match": "nearest"})
    assert found.ids() == {"0.png": [0, 0, 0, 1], "1.png": [0, 0, 1, 1]}


def test_nearest_number_where_numbers_are_far_apart(folder):
    classes = {"classes": [{"name": "a", "id": 0}, {"name": "b", "id": 128}], "match": "nearest"}
    found = folder([grey(0, 3, 120), grey(128, 0, 250)], classes)
    assert found.ids() == {"0.png": [0, 0, 1], "1.png": [1, 0, 255]}
    assert "matched to the nearest number" in found.lines()


@pytest.mark.parametrize("ids", [(None, None, None), (0, 1, 2), (10, 17, 30)])
def test_nearest_does_not_apply_to_numbers_that_are_close(folder, ids):
    known = zip("abc", ids, strict=True)
    entries = [{"name": n} if i is None else {"name": n, "id": i} for n, i in known]
    message = 'classes.json: "match": "nearest" needs a "color" of every class, or "ids" that are 8'
    with pytest.raises(DataError, match=message):
        folder([grey(0, 1, 2)], {"classes": entries, "match": "nearest"})


def test_jpeg_masks_of_numbers(folder):
    message = r"is a JPEG or compressed like one, which changes the values.*; save it as PNG$"
    with pytest.raises(DataError, match=message):
        folder({"0.jpg": grey(0, 1, 2), "1.jpg": grey(0, 2, 1)}, THREE)


def test_the_share_of_what_a_jpeg_has_changed(folder):
    sharp = np.zeros((16, 16, 3), np.uint8)
    sharp[:, 7:] = RED
    masks = {f"{i}.jpg": Image.fromarray(sharp) for i in range(2)}
    with pytest.raises(DataError, match=r"values \(\d+.\d % of the pixels are of no class\); save"):
        folder(masks, painted(PAINTED))


def test_transparent_palette_is_read_by_index_alone(folder, tmp_path):
    indexed([BLACK, RED, BLUE], 0, 1, 2).save(tmp_path / "x.png", transparency=0)
    clear = Image.open(tmp_path / "x.png")
    assert folder([clear], THREE).ids() == {"0.png": [0, 1, 2]}
    found = folder([clear, rgb(RED)], painted(PAINTED))
    assert found.ids()["0.png"] == [0, 1, 2]
    found = folder([clear, rgb(RED)], painted({"sky": BLUE, "car": RED, "bg": BLACK}))
    assert found.problems() == {
        "0.png": "0.png: 1 pixel are transparent; save it without alpha channel"
    }


def test_declared_codings(save, tmp_path):
    labels = LabelSet("x", ("a", "b"), (RED, BLUE))
    numbers = declared(Classes(labels, ids={1: 0, 2: 1, 9: 255}, source="X"))
    path = save(tmp_path / "n.png", np.array([[1, 2, 9]], np.uint8))
    assert numbers.read(path).tolist() == [[0, 1, 255]]
    with pytest.raises(
        DataError, match="0.png: number 0 in 1 pixel, .*; allowed are 1 to 2, and 9"
    ):
        numbers.read(save(tmp_path / "0.png", np.array([[1, 0]], np.uint8)))
    colors = declared(Classes(labels, colors={RED: 0, BLUE: 1}, source="X"))
    assert colors.read(save(tmp_path / "c.png", np.array([[RED, BLUE]], np.uint8))).tolist() == [
        [0, 1]
    ]
    with pytest.raises(DataError, match=r"d.png: colour \(0, 0, 0\) .*none of the 2 colours of X"):
        colors.read(save(tmp_path / "d.png", np.array([[RED, BLACK]], np.uint8)))


def test_largest_class_id(folder):
    classes = names(*map(str, range(255)))
    assert folder([grey(0, 254, 255)], classes).ids() == {"0.png": [0, 254, 255]}


def test_kinds_that_do_not_occur_are_read_like_the_others(folder, save, tmp_path):
    reading = folder([rgb(RED, BLUE)], painted(PAINTED)).reading
    assert reading.read(save(tmp_path / "x.png", np.zeros((1, 2), np.uint8))).tolist() == [[0, 0]]
    assert folder({}, TWO).lines() == ""
