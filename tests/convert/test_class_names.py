"""Names of classes as people's files give them: taken where the meaning is plain, else noted."""

from typing import Any

import pytest

from convert.io import Content
from convert.labels import from_checkpoint
from convert.sources import Checkpoint
from flaxseg.labels import LabelSet

NAMES = ("sky", "road", "tree")
NUMBERED = LabelSet.generic(3).classes


def named(config: Any = None, meta: Any = None, count: int = 3):
    content = Content({}, meta or {}, (), ())
    labels, notes = from_checkpoint(Checkpoint("x", content, config or {}, {}), count)
    return labels.classes, notes


def numbered(names, first: int = 0) -> dict[str, Any]:
    return {str(number): name for number, name in enumerate(names, first)}


PLAIN = {
    "numbers": numbered(NAMES),
    "out of order": dict(reversed(numbered(NAMES).items())),
    "list": list(NAMES),
    "numbers that are no text": dict(enumerate(NAMES)),
    "the other way round": {name: number for number, name in enumerate(NAMES)},
}


@pytest.mark.parametrize("form", PLAIN)
def test_every_form(form):
    assert named({"id2label": PLAIN[form]}) == (NAMES, ())


def test_label2id_alone():
    assert named({"label2id": {name: i for i, name in enumerate(NAMES)}}) == (NAMES, ())
    assert named({"id2label": {}, "label2id": {}}) == (NUMBERED, ())
    assert named({}) == (NUMBERED, ())


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (numbered(NAMES, 1), "id2label counts its classes from 1: taken as 0 to 2"),
        (numbered(("background", *NAMES)), "one class more than there are outputs: without 0 'bac"),
        (numbered((" Unlabeled", *NAMES)), "without 0 ' Unlabeled'"),
        (numbered((*NAMES, "VOID")), "without 3 'VOID'"),
        ({**numbered(NAMES), "255": "ignore"}, "without 255 'ignore'"),
        ({"-1": "none", **numbered(NAMES)}, "without -1 'none'"),
        ([*NAMES, "background"], "without 3 'background'"),
    ],
)
def test_plain_meanings(names, note):
    classes, notes = named({"id2label": names})
    assert classes == NAMES and len(notes) == 1 and note in notes[0]


def test_gaps():
    classes, notes = named({"id2label": {"0": "sky", "2": "tree"}})
    assert classes == ("sky", "class_1", "tree") and notes == ("id2label has no name for class 1",)
    classes, notes = named({"id2label": {"1": "road", "2": "tree"}})
    assert classes == ("class_0", "road", "tree") and notes == ("id2label has no name for class 0",)


@pytest.mark.parametrize(
    "names",
    [
        numbered(NAMES[:2]),
        numbered((*NAMES, "sea")),
        numbered(("void", *NAMES, "ignore")),
        numbered(NAMES, 5),
        numbered(("sky", "background", "road", "tree")),
        {"7": "sky", "9": "road", "30": "tree"},
    ],
)
def test_what_is_not_plain_is_noted(names):
    count = len(names)
    note = f"id2label names {count} classes for 3 outputs: numbered instead"
    assert named({"id2label": names}) == (NUMBERED, (note,))


@pytest.mark.parametrize(
    "names", [{"0": "sky", "one": "road"}, {"0": ["sky"], "1": None}, "sky", [None, "a"], 3]
)
def test_what_is_no_list_of_names_is_noted(names):
    classes, notes = named({"id2label": names})
    assert classes == NUMBERED and len(notes) == 1 and "id2label of config.json" in notes[0]


@pytest.mark.parametrize("count", [2, 3, 19])
def test_placeholders_are_numbered_quietly(count):
    names = numbered([f"LABEL_{i}" for i in range(count)])
    assert named({"id2label": names}) == (NUMBERED, ())


def test_equal_names_are_told_apart():
    assert named({"id2label": numbered(("a", "a", "b"))})[0] == ("a 0", "a 1", "b")


def test_colours_go_with_their_names():
    palette = [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]]
    meta = {"CLASSES": ["background", *NAMES], "PALETTE": palette}
    checkpoint = Checkpoint("x", Content({}, meta, (), ()), {}, {})
    labels, notes = from_checkpoint(checkpoint, 3)
    assert labels.classes == NAMES and labels.palette == ((1, 1, 1), (2, 2, 2), (3, 3, 3))
    assert "without 0 'background'" in notes[0]
