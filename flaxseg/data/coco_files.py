"""Finds COCO's JSON files in a folder, and the pictures that they list."""

import mmap
import pathlib
import re
import unicodedata

from flaxseg.data import words
from flaxseg.data.survey import Survey, is_below
from flaxseg.errors import DataError

_KEYS = (b'"images"', b'"annotations"', b'"categories"')


def find_jsons(files: Survey, base: str) -> dict[str, pathlib.Path]:
    """The COCO files of a folder by split, as their own name or that of their folder tells it.

    Of several for a split the one that is called `instances_…` counts: COCO keeps captions and key
    points beside it.

    Args:
        files: what the data folder holds.
        base: the folder in it that holds the data, "" for itself.

    Raises:
        DataError: two files for one split.
    """
    found: dict[str, list[pathlib.Path]] = {}
    for name in files.others:
        path = files.root / name
        if name.lower().endswith(".json") and is_below(name, base) and _is_coco(path):
            found.setdefault(_split_of(path, files.root), []).append(path)
    chosen = {}
    for split, paths in found.items():
        instances = [path for path in paths if path.name.startswith("instances")]
        if len(instances or paths) > 1:
            both = " and ".join(path.relative_to(files.root).as_posix() for path in paths[:2])
            which = f"the {split} split" if split else "all pictures"
            raise DataError(
                f"{files.root}: {both} are both COCO files for {which}; keep one, or call them "
                "train.json and val.json"
            )
        chosen[split] = (instances or paths)[0]
    if len(chosen) > 1:
        chosen.pop(words.WHOLE, None)
    return {split: chosen[split] for split in (*words.SPLITS, words.WHOLE) if split in chosen}


def _is_coco(path: pathlib.Path) -> bool:
    """Whether a JSON file has COCO's three lists; it is searched, not parsed."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return all(data.find(key) >= 0 for key in _KEYS)
    except (OSError, ValueError):  # unreadable or empty
        return False


def _split_of(path: pathlib.Path, root: pathlib.Path) -> str:
    """The split in a file's name, such as instances_train2017.json, or in its folders'."""
    below = path.relative_to(root)
    for part in (path.stem, *reversed(below.parent.parts)):
        for word in re.findall(r"[A-Za-z]+", part):
            if split := words.split_of(word):
                return split
    return words.WHOLE


def locate(files: Survey, listed: str, path: pathlib.Path, split: str) -> str | None:
    """The picture that a COCO file calls `listed`, None if there is none.

    Its path may begin anywhere, as tools write it; of several pictures that it fits the one beside
    the file counts, else the one in a folder that is called like the split.

    Args:
        files: what the data folder holds.
        listed: `file_name`, with slashes either way.
        path: the COCO file.
        split: its split.

    Raises:
        DataError: several pictures fit.
    """
    name = unicodedata.normalize("NFC", listed.replace("\\", "/"))
    parts = name.split("/")
    by_name = files.by_name
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        fits = [p for p in by_name.get(parts[-1], ()) if _ends_with(p, end)]
        if fits:
            break
    else:
        return None
    folder = path.parent.relative_to(files.root).as_posix().removeprefix(".")
    beside = [picture for picture in fits if is_below(picture, folder)]
    for chosen in (beside if folder else [], [p for p in fits if _is_of(p, split)], fits):
        if len(chosen) == 1:
            return chosen[0]
    both = " and ".join(fits[:2])
    raise DataError(f"{path}: {listed!r} may be {both}; write it with its folder")


def _ends_with(picture: str, end: str) -> bool:
    return f"/{unicodedata.normalize('NFC', picture)}".endswith(f"/{end}")


def _is_of(picture: str, split: str) -> bool:
    """Whether one of a picture's folders is called like a split."""
    return any(words.split_of(part) == split for part in picture.split("/")[:-1])
