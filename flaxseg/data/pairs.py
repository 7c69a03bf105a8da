"""Image files and their label maps: what a folder of any data set becomes before it is read."""

import dataclasses
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from flaxseg.data.problems import BadSample, raise_problems
from flaxseg.errors import DataError
from flaxseg.labels import LabelSet
from flaxseg.pictures.open import IMAGE_SUFFIXES

SPLIT_FILES = {"train": ("train.txt",), "val": ("val.txt", "valid.txt"), "test": ("test.txt",)}
"""Lists in a data folder that decide about its splits, one image name per line."""

_VAL_SHARE = 5
_OTHER_PICTURES = {".bmp", ".gif", ".heic", ".jfif", ".tif", ".tiff", ".webp"}


class Coding(Protocol):
    """How label files become class ids."""

    def read(self, path: pathlib.Path) -> np.ndarray:
        """The class ids of a file, (H, W) uint8, 255 where unlabelled."""
        ...


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image file and its label map; `name` is the image's path below the data folder."""

    name: str
    image: pathlib.Path
    label: pathlib.Path


@dataclasses.dataclass(frozen=True)
class PairFolder:
    """A data folder whose files are paired; nothing has been read yet.

    Attributes:
        root: the folder.
        layout: which of the known layouts it has, such as "segnet".
        labels: the classes.
        coding: how label files become class ids.
        splits: the pairs of each split, sorted by name.
        lists: text files that decide about classes and splits.
        orphans: files that lack their partner.
        wider: the classes, if a label map holds an id beyond `labels`.
        aliases: further names of splits.
        published: the pictures are a benchmark's: taken as they are stored, as all others do, with
            flaws that a file of one's own would be refused for.
        flawed: stems of images whose JPEG data make decoders complain; they are kept as PNG.
    """

    root: pathlib.Path
    layout: str
    labels: LabelSet
    coding: Coding
    splits: Mapping[str, tuple[Pair, ...]]
    lists: tuple[pathlib.Path, ...] = ()
    orphans: tuple[BadSample, ...] = ()
    wider: LabelSet | None = None
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    published: bool = False
    flawed: frozenset[str] = frozenset()

    def pairs(self) -> list[Pair]:
        """The pairs of all splits."""
        return [pair for split in self.splits.values() for pair in split]

    def files(self) -> list[pathlib.Path]:
        """Every file that the examples depend on."""
        pairs = self.pairs()
        return [*self.lists, *(p.image for p in pairs), *(p.label for p in pairs)]

    def require(self, splits: Sequence[str], expected: str) -> "PairFolder":
        """Returns the folder if these splits have images.

        Raises:
            DataError: an empty split; says what is expected, or which files have no partner.
        """
        for split in splits:
            if not self.splits.get(split):
                self.refuse_orphans()
                raise DataError(f"{self.root}: the {split} split has no images. {expected}")
        return self

    def refuse_orphans(self) -> None:
        """Raises `DataError` if files lack their partner."""
        reasons = [orphan.reason for orphan in self.orphans]
        raise_problems(reasons, f"files in {self.root} have no partner; add it or remove the file")


class Matched(NamedTuple):
    """Pairs, sorted by name, and the files that have no partner."""

    pairs: tuple[Pair, ...]
    orphans: tuple[BadSample, ...]


def match(
    root: pathlib.Path,
    images: str,
    labels: str,
    *,
    image_suffix: str = "",
    label_suffix: str = "",
    strict: bool = True,
    nested: bool = False,
) -> Matched:
    """Pairs the pictures of two folders by name without ending.

    Names that differ only in how an accent is encoded, as they do after a copy from macOS, match.

    Args:
        root: the data folder.
        images: folder of the images below `root`.
        labels: folder of the label maps below `root`.
        image_suffix: what follows the common part of an image's name, before the ending.
        label_suffix: the same for label maps.
        strict: label maps of another name are refused, not overlooked.
        nested: folders below are searched, too; the common part includes them.

    Raises:
        DataError: two pictures of the same name, one whose name is no text, or a label map of
            another name.
    """
    image_files = _by_stem(root / images, image_suffix, strict=False, nested=nested)
    label_files = _by_stem(root / labels, label_suffix, strict=strict, nested=nested)

    endings = " or ".join(IMAGE_SUFFIXES)
    orphans = [
        _orphan(root, path, "label map", f"{root / labels / (stem + label_suffix)}.png")
        for stem, path in image_files.items()
        if stem not in label_files
    ] + [
        _orphan(root, path, "image", f"{root / images / (stem + image_suffix)} with {endings}")
        for stem, path in label_files.items()
        if stem not in image_files
    ]
    pairs = tuple(
        Pair(path.relative_to(root).as_posix(), path, label_files[stem])
        for stem, path in image_files.items()
        if stem in label_files
    )
    return Matched(tuple(sorted(pairs, key=lambda pair: pair.name)), tuple(orphans))


def _orphan(root: pathlib.Path, path: pathlib.Path, partner: str, expected: str) -> BadSample:
    reason = f"{path}: has no {partner}, expected {expected}"
    return BadSample(path.relative_to(root).as_posix(), reason)


def _by_stem(
    folder: pathlib.Path, suffix: str, *, strict: bool, nested: bool
) -> dict[str, pathlib.Path]:
    """The pictures of a folder by name without `suffix` and ending."""
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.rglob("*") if nested else folder.iterdir()):
        if path.name.startswith("."):
            continue
        ending = path.suffix.lower()
        if strict and ending in _OTHER_PICTURES:
            raise DataError(f"{path}: is no {' or '.join(IMAGE_SUFFIXES)} file; save it as PNG")
        if ending not in IMAGE_SUFFIXES:
            continue
        if not path.stem.endswith(suffix):
            if not strict:
                continue
            raise DataError(f"{path}: a label map is expected to be named NAME{suffix}.png")
        _check_name(path)
        below = path.relative_to(folder).with_name(path.stem.removesuffix(suffix))
        stem = unicodedata.normalize("NFC", below.as_posix())
        if stem in found:
            raise DataError(f"{path}: {found[stem].name} has the same name; remove one of them")
        found[stem] = path
    return found


def _check_name(path: pathlib.Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(f"{ascii(str(path))}: the name is not UTF-8; rename the file") from None


def split_lists(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The list file of each split that has one."""
    found = {
        split: next((root / name for name in names if (root / name).is_file()), None)
        for split, names in SPLIT_FILES.items()
    }
    return {split: path for split, path in found.items() if path}


def listed_splits(
    pairs: Sequence[Pair], lists: Mapping[str, pathlib.Path]
) -> dict[str, tuple[Pair, ...]]:
    """Splits as list files tell; what no file names is training data if there is no `train.txt`.

    A line names an image with or without folders and ending.

    Args:
        pairs: all pairs.
        lists: the list file of each split that has one.

    Raises:
        DataError: a list names no image, several ones, or one that another list names, too.
    """
    known = _by_ending(pairs)
    owner: dict[str, str] = {}
    for split, path in lists.items():
        for line in read_lines(path):
            if not line.strip():
                continue
            shown, candidates = repr(line.strip()), _candidates(line, known)
            if not candidates:
                raise DataError(f"{path}: {shown} is no image of {pairs[0].image.parent}")
            if len(candidates) > 1:
                names = " and ".join(sorted(candidates)[:2])
                raise DataError(f"{path}: {shown} may be {names}; write it with its folder")
            (name,) = candidates
            if owner.setdefault(name, split) != split:
                raise DataError(f"{path}: {shown} is in the {owner[name]} list, too")
    rest = "" if "train" in lists else "train"
    return group(pairs, {pair.name: owner.get(pair.name, rest) for pair in pairs})


def _by_ending(pairs: Sequence[Pair]) -> dict[str, set[str]]:
    """The names of pairs by every end of their path, without ending: a/b/c, b/c and c."""
    known: dict[str, set[str]] = {}
    for pair in pairs:
        parts = _bare(pair.name).split("/")
        for start in range(len(parts)):
            known.setdefault("/".join(parts[start:]), set()).add(pair.name)
    return known


def _candidates(line: str, known: Mapping[str, set[str]]) -> set[str]:
    """The names that the longest known end of a line's path stands for."""
    parts = _bare(line.strip().replace("\\", "/")).split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((known[end] for end in ends if end in known), set())


def _bare(name: str) -> str:
    base, dot, ending = unicodedata.normalize("NFC", name).rpartition(".")
    return base if dot and f".{ending.lower()}" in IMAGE_SUFFIXES else f"{base}{dot}{ending}"


def every_fifth(pairs: Sequence[Pair]) -> dict[str, tuple[Pair, ...]]:
    """Splits for want of better knowledge: every fifth pair validates, the others train."""
    val = {pair.name: i % _VAL_SHARE == _VAL_SHARE - 1 for i, pair in enumerate(pairs)}
    return group(pairs, {name: "val" if chosen else "train" for name, chosen in val.items()})


def group(pairs: Sequence[Pair], owner: Mapping[str, str]) -> dict[str, tuple[Pair, ...]]:
    """The pairs of each split by the split of each name; without empty splits."""
    splits = {
        split: tuple(pair for pair in pairs if owner[pair.name] == split) for split in SPLIT_FILES
    }
    return {split: members for split, members in splits.items() if members}


def read_lines(path: pathlib.Path) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: it cannot be read as UTF-8.
    """
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no UTF-8 text file ({error}); save it as one") from error


def has_folders(root: pathlib.Path, *names: str) -> bool:
    """Whether all these folders are below `root`."""
    return all((root / name).is_dir() for name in names)


def inside(root: pathlib.Path) -> str:
    """The first few things that a folder holds, in words."""
    names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
