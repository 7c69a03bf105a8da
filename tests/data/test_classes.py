import json

import pytest

from flaxseg.data.classes import from_names, read_classes
from flaxseg.errors import DataError


def write(tmp_path, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_text(text, "utf-8")
    return tmp_path / name


@pytest.fixture
def read(tmp_path):
    return lambda name, content: read_classes(write(tmp_path, name, content), "mine")


@pytest.mark.parametrize("file", ["classes.txt", "labels.txt", "labelmap.txt"])
@pytest.mark.parametrize(
    "content", ["sky\n\n street sign \r\nStraße\n", "\ufeffsky\nstreet sign\nStraße"]
)
def test_names_alone(read, file, content):
    found = read(file, content)
    assert found.labels.classes == ("sky", "street sign", "Straße")
    assert found.labels.name == "mine" and len(set(found.labels.palette)) == 3
    assert found.colors is None and found.ids is None and not found.says
    assert found.numbers() == {0: 0, 1: 1, 2: 2, 255: 255}


def test_labelmes_first_name_is_no_class(read):
    found = read("labels.txt", "__ignore__\n_background_\ncat\n")
    assert found.labels.classes == ("_background_", "cat") and found.ids is None
    assert "__ignore__ is no class, the names after it count from 0" in found.says[0]
    later = read("classes.txt", "road\n__ignore__\n")
    assert later.labels.classes == ("road", "__ignore__") and not later.says


@pytest.mark.parametrize(
    "names", ["3 wheeler\ncar\n", "1 euro\n2 euro\n", "lane 0\nlane 1\n", "#1\n"]
)
def test_names_with_digits_are_names(read, names):
    assert read("classes.txt", names).labels.classes == tuple(names.splitlines())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes.txt", "1 2 3 sky\n4, 5, 6 street sign\n"),
        ("classes.txt", "# r g b name\n1,2,3,sky\n4\t5\t6\tstreet sign\n"),
        ("classes.txt", "sky 1 2 3\nstreet sign: 4, 5, 6\n"),
        ("label_colors.txt", "1 2 3\t\tsky \r\n4 5 6\tstreet sign\r\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nsky:1,2,3::\nstreet sign:4,5,6::walk\n"),
        ("class_dict.csv", "name,r,g,b\nsky,1,2,3\nstreet sign,4,5,6\n"),
        ("class_dict.csv", 'name, r, g, b\n"sky", 1, 2, 3\n"street sign", 4, 5, 6\n\n'),
        ("class_dict.csv", "Red;Green;Blue;Class Name\n1;2;3;sky\n4;5;6;street sign\n"),
        ("classes.json", {"sky": [1, 2, 3], "street sign": "#040506"}),
    ],
)
def test_names_with_colours(read, file, content):
    found = read(file, content)
    assert found.labels.classes == ("sky", "street sign")
    assert found.labels.palette == ((1, 2, 3), (4, 5, 6))
    assert found.colors == {(1, 2, 3): 0, (4, 5, 6): 1} and found.ids is None


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes.txt", "7 road\n26 street sign\n"),
        ("labels.txt", "7: road\n26: street sign\n"),
        ("classes.txt", "road=7\nstreet sign = 26\n"),
        ("_classes.csv", "Pixel Value, Class\n7, road\n26, street sign\n"),
        ("_classes.csv", "class_name\tpixel_value\nroad\t7\nstreet sign\t26\n"),
        ("classes.json", {"7": "road", "26": "street sign"}),
        ("classes.json", {"road": 7, "street sign": 26}),
        ("classes.json", [{"name": "road", "id": 7}, {"name": "street sign", "ids": [26]}]),
    ],
)
def test_names_with_numbers(read, file, content):
    found = read(file, content)
    assert found.labels.classes == ("road", "street sign") and found.colors is None
    assert found.numbers() == found.ids == {7: 0, 26: 1, 255: 255}
    assert len(found.says) == (file.endswith("txt"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("_classes.csv", "Pixel Value, Class\n0, bg\n1, fg\n"),
        ("classes.txt", "0 bg\n1 fg\n"),
        ("classes.json", {"fg": 1, "bg": 0}),
    ],
)
def test_numbers_that_only_count_the_classes_say_nothing(read, file, content):
    found = read(file, content)
    assert found.ids is None and found.labels.classes == ("bg", "fg")


def test_a_list_of_classes_keeps_its_order(read):
    found = read("classes.json", [{"name": "fg", "id": 1}, {"name": "bg", "id": 0}])
    assert found.ids == {1: 0, 0: 1, 255: 255} and found.labels.classes == ("fg", "bg")


def test_several_numbers_and_colours_are_one_class(read):
    content = {
        "classes": [
            {"name": "road", "ids": [7, 300], "colors": [[1, 2, 3], "#0405fF"]},
            {"name": "car", "id": 255, "ids": [26], "color": [7, 8, 9]},
        ],
        "ignore": [0, [0, 0, 0], "#ffffff"],
        "match": "nearest",
    }
    found = read("classes.json", content)
    assert found.ids == {7: 0, 300: 0, 255: 1, 26: 1, 0: 255}
    assert found.colors == {
        (1, 2, 3): 0,
        (4, 5, 255): 0,
        (7, 8, 9): 1,
        (0, 0, 0): 255,
        (255, 255, 255): 255,
    }
    assert found.labels.palette == ((1, 2, 3), (7, 8, 9)) and found.nearest


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("label_colors.txt", "1 2 3 a\n4 5 6 b\n7 8 9 a\n"),
        ("class_dict.csv", "name,r,g,b\na,1,2,3\nb,4,5,6\na,7,8,9\n"),
    ],
)
def test_a_name_on_several_lines(read, file, content):
    assert read(file, content).colors == {(1, 2, 3): 0, (4, 5, 6): 1, (7, 8, 9): 0}


def test_names_with_separators(read):
    assert read("_classes.csv", 'Pixel Value, Class\n0, "a, b"\n1, c: d\n').labels.classes == (
        "a, b",
        "c: d",
    )
    assert read("labelmap.txt", "# label:\na:b:1,2,3::\n").labels.classes == ("a:b",)


@pytest.mark.parametrize("content", [["a", "b"], {"classes": ["a", {"name": "b"}]}])
def test_json_with_names_alone(read, content):
    found = read("classes.json", content)
    assert found.labels.classes == ("a", "b") and found.colors is None and not found.nearest


def test_further_unlabelled_numbers(read):
    found = read("classes.json", {"classes": ["a", "b"], "ignore": [77]})
    assert found.ids is None and found.numbers() == {0: 0, 1: 1, 77: 255, 255: 255}


def test_255_beside_one_class_is_unlabelled_only_where_that_is_said(read):
    assert read("classes.txt", "road\n").numbers() == {0: 0}
    assert read("classes.json", {"classes": ["road"], "ignore": 255}).numbers() == {0: 0, 255: 255}


def test_written_line_says_the_same(read):
    content = {
        "classes": [
            {"name": "Straße", "color": [1, 2, 3], "ids": [7, 8]},
            {"name": "b", "colors": [[4, 5, 6], [7, 8, 9]], "ids": [2]},
        ],
        "ignore": [0, [0, 0, 0]],
        "match": "nearest",
    }
    found = read("classes.json", content)
    again = read("classes.json", found.as_json())
    assert again == found
    plain = read("classes.json", found.as_json(ids=[3, 4], ignore=[9], nearest=False))
    assert plain.ids == {3: 0, 4: 1, 9: 255, 255: 255} and not plain.nearest
    many = from_names(map(str, range(9)), "mine", "x.json").as_json()
    assert many.endswith('{"name": "5"}, ...]}')


def test_names_of_another_file():
    found = from_names(["background", "cat"], "mine", "instances.json")
    assert found.labels.classes == ("background", "cat") and found.source == "instances.json"
    with pytest.raises(DataError, match="instances.json: .* two classes called 'cat'"):
        from_names(["cat", "cat"], "mine", "instances.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON file .*expected is"),
        ({"names": ["a"]}, "is no list of classes; expected is"),
        ({"classes": "a"}, "is no list of classes"),
        ([1], "{'name': 1} is no class"),
        ([{"name": "a", "colour": [1, 2, 3]}], "'colour'.* is no class; expected is"),
        ([{"name": "a", "color": [1, 2, 300]}], r"\[1, 2, 300\] is no colour; expected is \[R, G"),
        ([{"name": "a", "color": "red"}], "'red' is no colour; expected"),
        ([{"name": "a", "color": [1, 2, 3]}, "b"], "'b' has no color, but other classes have"),
        ([{"name": "a", "id": 1}, "b"], "'b' has no ids, but other classes have; give all or none"),
        ([{"name": "a", "ids": 1}], "'a': \"ids\" is 1, expected is a list"),
        ([{"name": "a", "ids": [1.5]}], "'a': 1.5 is no id; expected are whole numbers"),
        ([{"name": "a", "ids": [70000]}], "id 70000 is outside 0 to 65535"),
        (["a", "a"], "has two classes called 'a'"),
        ([], "names no class"),
        ({"classes": ["a"], "match": "near"}, '"match" is \'near\'; expected is "exact" or "nea'),
        ({"classes": ["a"], "ignore": [0, 0, 0]}, r"a colour is written \[\[0, 0, 0\]\]"),
        (
            {"classes": ["a", "b"], "ignore": [0]},
            r'ignores id 0, which is \'a\' .*"ids": \[1\].*"ids": \[2\].*"ignore": \[0\]',
        ),
        (
            [{"name": "a", "ids": [1, 2]}, {"name": "b", "ids": [2]}],
            "'b': a has the id 2, too",
        ),
        ({"classes": [{"name": "a", "id": 3}], "ignore": [3]}, "ignore: a has the id 3, too"),
        (
            [{"name": "a", "color": [1, 2, 3]}, {"name": "b", "color": [1, 2, 3]}],
            r"'b': a has the colour \(1, 2, 3\), too",
        ),
        (
            {"classes": [{"name": "a", "color": [0, 0, 0]}], "ignore": [[0, 0, 0]]},
            r"ignore: a has the colour \(0, 0, 0\), too",
        ),
    ],
)
def test_bad_json(read, content, message):
    with pytest.raises(DataError, match=f"classes.json.*{message}"):
        read("classes.json", content)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classes.txt", "\n", ": names no class; give one name per line"),
        ("classes.txt", "a\nb\na\n", ": .*two classes called 'a'"),
        ("classes.txt", "# my classes\na\nb\n", ", line 1: '# my classes' looks like a comment"),
        ("classes.txt", "bg, road, car\n", ": has the one line .*give one class name per line"),
        ("classes.txt", "1 2 3 a\n4 5 b\n", ", line 2: '4 5 b', expected R G B Name"),
        ("classes.txt", "0 a\n1 b\n1 c\n", ", line 3: b has the id 1, too"),
        ("label_colors.txt", "a\nb\n", ", line 1: 'a', expected R G B Name, 0 to 255 each"),
        ("labelmap.txt", "# label:color\na:1,2,3::\nb\n", ", line 3: 'b', expected name:R,G,B::"),
        ("labelmap.txt", "a:1,2,300::\n", r", line 1: \[1, 2, 300\] is no colour"),
        ("labelmap.txt", "a:1,2,3::\nb:::\n", ": 'b' has no color, but other classes have"),
        ("_classes.csv", "0, a\n1, b\n", ": begins with '0, a'; expected are the headings Pixel V"),
        ("_classes.csv", "Pixel Value, Class\nx, b\n", ", line 2: 'x', expected is a whole number"),
        ("_classes.csv", "Pixel Value, Class\n0, a, b\n", ", line 2: has 3 columns, but .*quotes"),
        ("class_dict.csv", "name,r,g,b\na,1,2,3\n,4,5,6\n", ", line 3: has no name"),
        ("class_dict.csv", "name,r,g,b\na,1,2,256\n", r", line 2: \[1, 2, 256\] is no colour"),
    ],
)
def test_bad_text(read, file, content, message):
    with pytest.raises(DataError, match=f"{file}{message}"):
        read(file, content)


@pytest.mark.parametrize("file", ["classes.txt", "classes.json", "_classes.csv", "labelmap.txt"])
def test_other_encodings(tmp_path, file):
    (tmp_path / file).write_bytes("a\nb\n".encode("utf-16"))
    with pytest.raises(DataError, match=f"{file}: is no UTF-8 text file") as caught:
        read_classes(tmp_path / file, "mine")
    assert "\n" not in str(caught.value)
