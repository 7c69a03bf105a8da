import json

import pytest

from flaxseg.data.classes import read_classes
from flaxseg.errors import DataError


def write(tmp_path, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_text(text, "utf-8")
    return tmp_path / name


@pytest.mark.parametrize(
    "content", ["sky\n\n street sign \r\nStraße\n", "\ufeffsky\nstreet sign\nStraße"]
)
def test_names_alone(tmp_path, content):
    found = read_classes(write(tmp_path, "classes.txt", content), "mine")
    assert found.labels.classes == ("sky", "street sign", "Straße")
    assert found.labels.name == "mine" and len(set(found.labels.palette)) == 3
    assert found.colors is None and found.ignore == (255,)


def test_lines_with_colours(tmp_path):
    found = read_classes(write(tmp_path, "classes.txt", "1 2 3 sky\n4, 5, 6 street sign\n"), "mine")
    assert found.labels.classes == ("sky", "street sign")
    assert found.colors == {(1, 2, 3): 0, (4, 5, 6): 1}


def test_json_with_colours(tmp_path):
    content = {
        "classes": [{"name": "sky", "color": [1, 2, 3]}, {"name": "road", "color": "#0405fF"}],
        "ignore": [[0, 0, 0], "#ffffff", 77],
    }
    found = read_classes(write(tmp_path, "classes.json", content), "mine")
    assert found.labels.palette == ((1, 2, 3), (4, 5, 255))
    assert found.colors == {
        (1, 2, 3): 0,
        (4, 5, 255): 1,
        (0, 0, 0): 255,
        (255, 255, 255): 255,
    }
    assert found.ignore == (77, 255)


@pytest.mark.parametrize("content", [["a", "b"], {"classes": ["a", {"name": "b"}]}])
def test_json_with_names_alone(tmp_path, content):
    found = read_classes(write(tmp_path, "classes.json", content), "mine")
    assert found.labels.classes == ("a", "b") and found.colors is None


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
        (["a", "a"], "has two classes called 'a'"),
        ([], "names no class"),
        ({"classes": ["a"], "ignore": [0]}, "ignores id 0, which is 'a'"),
        (
            [{"name": "a", "color": [1, 2, 3]}, {"name": "b", "color": [1, 2, 3]}],
            r"the colour \(1, 2, 3\) is 'a' and is 'b', too",
        ),
        (
            {"classes": [{"name": "a", "color": [0, 0, 0]}], "ignore": [[0, 0, 0]]},
            r"the colour \(0, 0, 0\) is 'a' and is ignored, too",
        ),
    ],
)
def test_bad_json(tmp_path, content, message):
    with pytest.raises(DataError, match=f"classes.json: .*{message}"):
        read_classes(write(tmp_path, "classes.json", content), "mine")


def test_bad_text(tmp_path):
    with pytest.raises(DataError, match="classes.txt: names no class; give one name per line"):
        read_classes(write(tmp_path, "classes.txt", "\n"), "mine")
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="classes.txt: is no UTF-8 text file"):
        read_classes(tmp_path / "classes.txt", "mine")
