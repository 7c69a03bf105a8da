"""Image files and their label maps: what a folder of any data set becomes before it is read."""

import dataclasses
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flaxseg.data.classes import Classes
from flaxseg.data.problems import BadSample, raise_problems
from flaxseg.data.survey import check_name, is_picture
from flaxseg.errors import DataError
from flaxseg.labels import LabelSet

_SHOWN = 3
_ENDINGS = ".png or .jpg or another ending of pictures"


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image file and its label map, None if it has none.

    `name` is the image's path below the data folder.
    """

    name: str
    image: pathlib.Path
    label: pathlib.Path | None


@dataclasses.dataclass(frozen=True)
class PairFolder:
    """A data folder whose files are paired; nothing has been read yet.

    Attributes:
        root: the folder.
        layout: which of the known layouts it has, such as "segnet".
        classes: the classes, and which numbers and colours of a label map belong to them.
        splits: the pairs of each split, sorted by name; images without label map are among them.
        lists: text files that decide about classes and splits.
        orphans: label maps that lack their image, images that a list names and the folder lacks,
            and, in published data sets, images that lack their label map.
        narrower: the classes, if no label map holds an id beyond these.
        aliases: further names of splits.
        published: the pictures are a benchmark's: taken as they are stored, as all others do, with
            flaws that a file of one's own would be refused for.
        lines: how the folder was understood and what was assumed, a sentence each.
        flawed: stems of images whose JPEG data make decoders complain; Pillow alone reads them.
    """

    root: pathlib.Path
    layout: str
    classes: Classes
    splits: Mapping[str, tuple[Pair, ...]]
    lists: tuple[pathlib.Path, ...] = ()
    orphans: tuple[BadSample, ...] = ()
    narrower: LabelSet | None = None
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    published: bool = False
    flawed: frozenset[str] = frozenset()
    lines: tuple[str, ...] = ()

    def pairs(self) -> list[Pair]:
        """The pairs of all splits."""
        return [pair for split in self.splits.values() for pair in split]

    def files(self) -> list[pathlib.Path]:
        """Every file that the examples depend on."""
        pairs = self.pairs()
        return [*self.lists, *(p.image for p in pairs), *(p.label for p in pairs if p.label)]

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

    def without_bare(self) -> "PairFolder":
        """The folder without the images that have no label map, and a line about them."""
        bare = [pair.name for pair in self.pairs() if pair.label is None]
        if not bare:
            return self
        splits = {
            split: tuple(pair for pair in pairs if pair.label)
            for split, pairs in self.splits.items()
        }
        line = f"left out: {some(bare, 'picture')} without mask"
        return dataclasses.replace(self, splits=splits, lines=(*self.lines, line))

    def refuse_orphans(self, *, bare: bool = True) -> None:
        """Raises `DataError` if files lack their partner; `bare`: images their label map, too."""
        if bare and (missing := missing_masks(self)):
            raise missing
        reasons = [orphan.reason for orphan in self.orphans]
        raise_problems(reasons, f"files in {self.root} have no partner; add it or remove the file")


def missing_masks(folder: PairFolder) -> DataError | None:
    """The error about images without label map, if there are any.

    Label maps without image are named, too: mostly both are there because their names differ.
    """
    pairs = folder.pairs()
    bare = sorted(pair.name for pair in pairs if pair.label is None)
    if not bare:
        return None
    lost = [orphan.name for orphan in folder.orphans]
    also = f"; {some(lost, 'mask')} without picture" if lost else ""
    has = "has" if len(bare) == 1 else "have"
    return DataError(
        f"{len(bare)} of {len(pairs)} pictures in {folder.root} {has} no mask ({shorten(bare)})"
        f"{also}; --missing-mask CLASS makes every pixel of them that class, --missing-mask skip "
        "leaves them out"
    )


def some(names: Sequence[str], noun: str) -> str:
    """A number of things with the first few, such as "4 masks (a.png, b.png, c.png, ...)"."""
    return f"{len(names)} {noun}{'s' * (len(names) != 1)} ({shorten(names)})"


def shorten(names: Sequence[str]) -> str:
    """The first few names, in words."""
    return ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


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
    keep_bare: bool = False,
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
        keep_bare: images without label map are pairs without one, not orphans.

    Raises:
        DataError: two pictures of the same name, one whose name is no text, or a label map of
            another name.
    """
    image_files = _by_stem(root / images, image_suffix, strict=False, nested=nested)
    label_files = _by_stem(root / labels, label_suffix, strict=strict, nested=nested)

    orphans = [
        _orphan(root, path, "label map", f"{root / labels / (stem + label_suffix)}.png")
        for stem, path in image_files.items()
        if stem not in label_files and not keep_bare
    ] + [
        _orphan(root, path, "image", f"{root / images / (stem + image_suffix)} with {_ENDINGS}")
        for stem, path in label_files.items()
        if stem not in image_files
    ]
    pairs = tuple(
        Pair(path.relative_to(root).as_posix(), path, label_files.get(stem))
        for stem, path in image_files.items()
        if stem in label_files or keep_bare
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
        if not is_picture(path.name):
            continue
        if not path.stem.endswith(suffix):
            if not strict:
                continue
            raise DataError(f"{path}: a label map is expected to be named NAME{suffix}.png")
        check_name(path)
        below = path.relative_to(folder).with_name(path.stem.removesuffix(suffix))
        stem = unicodedata.normalize("NFC", below.as_posix())
        if stem in found:
            raise DataError(f"{path}: {found[stem].name} has the same name; remove one of them")
        found[stem] = path
    return found


def has_folders(root: pathlib.Path, *names: str) -> bool:
    """Whether all these folders are below `root`."""
    return all((root / name).is_dir() for name in names)


def inside(root: pathlib.Path) -> str:
    """The first few things that a folder holds, in words."""
    names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
