"""Finds the file that tells a folder's classes."""

import itertools
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from flaxseg.data import voc
from flaxseg.data.classes import CLASS_FILES, Classes, read_classes
from flaxseg.data.pairs import inside
from flaxseg.data.survey import Survey, upwards
from flaxseg.data.text import read_lines
from flaxseg.errors import DataError

_LONG = 80  # characters of a line in a message


class FoundClasses(NamedTuple):
    """The classes of a folder.

    Attributes:
        classes: what the class file says.
        files: the class file, if there is one.
        line: what was found or assumed, in words.
    """

    classes: Classes
    files: tuple[pathlib.Path, ...]
    line: str


def find_classes(
    files: Survey, base: str, places: Iterable[str], *, name: str, is_voc: bool, expected: str
) -> FoundClasses:
    """Looks for a class file in the data folder, then where masks and photos lie, then above those.

    Of several in one folder the first of `CLASS_FILES` counts.

    Args:
        files: what the data folder holds.
        base: the folder in it that holds the data, "" for itself.
        places: folders of masks and photos.
        name: of the data set.
        is_voc: the folder is arranged as Pascal VOC, which has no class file.
        expected: what a folder must hold, for messages.

    Raises:
        DataError: there is none, or those of two splits differ.
    """
    searched = [*upwards(base), *(above for place in places for above in upwards(place))]
    searched.append(f"{base}/annotations".lstrip("/"))
    ranked = {
        (searched.index(folder), CLASS_FILES.index(last.lower()), file)
        for file in files.others
        for folder, _, last in (file.rpartition("/"),)
        if folder in searched and last.lower() in CLASS_FILES
    }
    if not ranked and is_voc:
        line = "classes: no class file, the 21 of Pascal VOC are assumed"
        return FoundClasses(voc.CLASSES, (), line)
    if not ranked:
        place = files.root / base
        raise DataError(
            f"{place}: names no classes, it holds {inside(place)}; add one of "
            f"{', '.join(CLASS_FILES)}. {expected}"
        )
    first, *others = (files.root / file for *_, file in sorted(ranked))
    unlike = [path for path in others if read_lines(path) != read_lines(first)]
    for path in unlike:
        if path.name == first.name and first.parent != files.root / base:
            raise DataError(_differs(path, first))
    shown = [path.relative_to(files.root).as_posix() for path in (first, *unlike)]
    over = f", {' and '.join(shown[1:])} passed over" if unlike else ""
    return FoundClasses(read_classes(first, name), (first,), f"classes: {shown[0]}{over}")


def _differs(path: pathlib.Path, first: pathlib.Path) -> str:
    lines = itertools.zip_longest(read_lines(path), read_lines(first), fillvalue="nothing")
    here, there = next((here, there) for here, there in lines if here != there)
    return (
        f"{path}: has {here[:_LONG]!r} where {first} has {there[:_LONG]!r}; all splits need the "
        "same classes"
    )
