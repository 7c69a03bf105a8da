"""Letters of any script, drawn with a font that has them.

DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Arabic and more; for others
the fonts of the computer are searched.
"""

import functools
import math
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ImageDraw, ImageFont, features

from flaxseg.labels import Color

# Matplotlib is imported where it is needed: who only predicts or trains need not wait for it.

_PLACEHOLDERS = "lastresort"  # a font of macOS that has a box for every letter there is


class Line(NamedTuple):
    """A text that can be drawn.

    Attributes:
        text: without line breaks.
        file: a font that has all of its letters.
    """

    text: str
    file: str

    def font(self, size: int) -> ImageFont.FreeTypeFont:
        """The font at a size in pixels."""
        return _font(self.file, size)

    def width(self, size: int) -> int:
        """Pixels that the text takes at a size of the font in pixels."""
        return math.ceil(self.font(size).getlength(self.text))

    def draw(self, draw: ImageDraw.ImageDraw, left: int, middle: int, size: int, ink: Color):
        """Draws it from a left edge on, around a height in the middle of its letters."""
        draw.text((left, middle), self.text, ink, self.font(size), anchor="lm")

    def style(self, size: float | str) -> dict[str, Any]:
        """How matplotlib is to draw it at a size: with its font, and a dollar as a dollar."""
        from matplotlib.font_manager import FontProperties

        return {"fontproperties": FontProperties(fname=self.file, size=size), "parse_math": False}


def class_line(name: str, index: int) -> Line:
    """The name of a class; its number where no font has the letters, which is said once."""
    return _line(name, str(index), f"the number {index} is drawn")


def caption_line(text: str) -> Line:
    """A caption, such as a file's name; "?" for letters of which no font is there."""
    known = _letters(_dejavu())
    instead = "".join(letter if ord(letter) in known else "?" for letter in _clean(text))
    return _line(text, instead, "? is drawn for them")


def _line(text: str, instead: str, outcome: str) -> Line:
    line = _clean(text)
    file = _font_with(frozenset(line)) if _can_be_set(line) else None
    if file is None:
        _warn(text, outcome)
        return Line(instead, _dejavu())
    return Line(line, file)


_warned: list[str] = []


def _warn(text: str, outcome: str) -> None:
    """Says it of the first text alone: there would be a line for each in every picture."""
    if _warned:
        return
    _warned.append(text)
    lack = "no font here has all letters of"
    mend = "install one that has, such as Noto Sans CJK for Chinese, Japanese and Korean"
    if _font_with(frozenset(_clean(text))):
        lack, mend = "this Pillow cannot join or turn the letters of", "install the library fribidi"
    print(f"{lack} {text!r}: {outcome}; {mend}", file=sys.stderr, flush=True)


def _clean(text: str) -> str:
    """One line, accents joined with their letters, as the names of macOS's files need."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cc")


def _can_be_set(text: str) -> bool:
    """Whether the letters stand in the order of the text, one by one, or Pillow can place them."""
    return features.check("raqm") or not any(
        unicodedata.bidirectional(letter) in ("R", "AL")
        or unicodedata.category(letter) in ("Mn", "Mc", "Cf")
        for letter in text
    )


@functools.lru_cache(maxsize=64)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@functools.lru_cache(maxsize=1024)
def _font_with(letters: frozenset[str]) -> str | None:
    """The first font that has all these letters; marks without shape of their own count not."""
    codes = [ord(letter) for letter in letters if unicodedata.category(letter) != "Cf"]
    return next((file for file in _fonts() if np.isin(codes, _letters(file)).all()), None)


def _fonts() -> Iterator[str]:
    """DejaVu Sans, then the fonts of the computer, upright ones of usual weight first."""
    yield _dejavu()
    yield from _fonts_of_the_computer()


@functools.cache
def _dejavu() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@functools.cache
def _fonts_of_the_computer() -> list[str]:
    from matplotlib.font_manager import findSystemFonts

    files = [file for file in findSystemFonts() if _PLACEHOLDERS not in Path(file).name.lower()]
    return sorted(files, key=lambda file: ("regular" not in Path(file).name.lower(), file))


@functools.cache
def _letters(file: str) -> np.ndarray:
    """The code points that a font has; none if it cannot be scaled or read."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        codes = list(font.get_charmap()) if font.scalable else []
    except (RuntimeError, OSError):  # a damaged font, or a kind that FreeType does not know
        codes = []
    return np.array(codes, np.uint32)
