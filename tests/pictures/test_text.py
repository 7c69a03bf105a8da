import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager

from flaxseg.labels import LabelSet
from flaxseg.pictures import contact_sheet, example_sheet, text, with_legend

FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")
CHINESE = "街道"


@pytest.fixture(autouse=True)
def computer(monkeypatch):
    """A computer whose fonts a test may choose."""
    files = []

    def forget():
        text._warned.clear()
        for cached in (text._font_with, text._fonts_of_the_computer, text._letters):
            cached.cache_clear()

    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(file) for file in files])
    forget()
    yield files
    forget()


@pytest.fixture
def font_of_everything(tmp_path):
    """A font with a glyph for every letter, as a Noto font may have."""
    return Path(shutil.copy(FONTS / "LastResortHE-Regular.ttf", tmp_path / "Every-Regular.ttf"))


NAMES = ["дорога", "Ελλάδα", "طريق", "שביל", "Fußgänger", "đường phố", "yol çizgisi", "ცა"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_many_scripts_are_drawn_with_the_font_that_comes_along(name, capsys, monkeypatch):
    monkeypatch.setattr(text.features, "check", lambda feature: True)  # also without fribidi
    assert text.class_line(name, 3) == (name, str(FONTS / "DejaVuSans.ttf"))
    assert capsys.readouterr().err == ""


def test_a_font_of_the_computer_has_the_rest(computer, font_of_everything):
    computer += [FONTS / "DejaVuSans-Bold.ttf", font_of_everything]
    assert text.class_line(CHINESE, 3) == (CHINESE, str(font_of_everything))
    assert text.caption_line("写真.jpg").file == str(font_of_everything)


def test_fonts_of_boxes_or_of_nothing_are_passed_over(computer, tmp_path, font_of_everything):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    computer += [tmp_path / "broken.ttf", FONTS / "LastResortHE-Regular.ttf", font_of_everything]
    assert text.class_line(CHINESE, 3).file == str(font_of_everything)


def test_where_no_font_has_the_letters_the_number_is_drawn_and_one_line_says_so(capsys):
    assert text.class_line(CHINESE, 3).text == "3"
    assert text.class_line("歩道", 12).text == "12"
    assert text.caption_line("b/写真_1.jpg").text == "b/??_1.jpg"
    assert text.class_line("road", 0).text == "road"
    assert capsys.readouterr().err.splitlines() == [
        "no font here has all letters of '街道': the number 3 is drawn; install one that has, such "
        "as Noto Sans CJK for Chinese, Japanese and Korean"
    ]


def test_letters_that_cannot_be_joined_become_the_number(monkeypatch, capsys):
    monkeypatch.setattr(text.features, "check", lambda name: False)
    assert text.class_line("طريق", 5).text == "5"
    assert text.class_line("дорога", 5).text == "дорога"
    assert "this Pillow cannot join or turn the letters of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "drawn"),
    [("a\nb", "a b"), ("e\u0301t\u00e9", "\u00e9t\u00e9"), ("a\x07", "a"), ("\udcff.png", "?.png")],
)
def test_any_name_of_a_file_is_one_line(name, drawn):
    assert text.caption_line(name).text == drawn


def drawings(name):
    labels = LabelSet("toys", (name, "b"), ((200, 0, 0), (0, 200, 0)))
    image, label = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
    return [
        with_legend(image, label, labels),
        contact_sheet([image], [label], [label], labels, captions=["a"]),
        example_sheet([image], [label], labels, captions=["a"]),
    ]


def test_letters_reach_every_picture(capsys):
    for one, other, number in zip(*map(drawings, ("дорога", "далеко", CHINESE)), strict=True):
        assert one.shape != other.shape or (one != other).any()
        assert one.shape != number.shape or (one != number).any()
    assert len(capsys.readouterr().err.splitlines()) == 1
