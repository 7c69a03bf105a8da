"""Finds the images and label maps of CamVid in the folder layouts that people have.

SegNet copy (11 classes, id 11 means unlabelled; `test` may be missing)::

    train/NAME.png  trainannot/NAME.png  val/...  valannot/...  test/...  testannot/...

Original (32 colours of label_colors.txt)::

    701_StillsRaw_full/NAME.png  LabeledApproved_full/NAME_L.png     or  images/  labels/

Tutorials (class ids in alphabetical order, 32 classes or 33 with a spare one)::

    train_images/NAME.png  train_labels/NAME.png  valid_images/...  valid_labels/...

Images may be PNG or JPEG; image and label map are matched by name without the ending.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping

from flaxseg.data import checks
from flaxseg.data.files import (
    IMAGE_SUFFIXES,
    ColorCoding,
    IndexCoding,
    check_size,
    read_training_image,
)
from flaxseg.errors import DataError
from flaxseg.labels import IGNORE, Color, LabelSet

SEGNET_LABELS = LabelSet(
    "camvid",
    (
        *("sky", "building", "pole", "road", "pavement", "tree"),
        *("sign", "fence", "car", "pedestrian", "bicyclist"),
    ),
    (
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222)),
        *((128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0)),
        (0, 128, 192),
    ),
)
"""The 11 classes of the SegNet copy, in its colours."""

_OFFICIAL_COLORS: dict[str, Color] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}

FULL_LABELS = LabelSet("camvid32", tuple(_OFFICIAL_COLORS), tuple(_OFFICIAL_COLORS.values()))
"""The 32 classes of the original, in alphabetical order and official colours."""

SPARE_LABELS = LabelSet(
    "camvid33", (*FULL_LABELS.classes, "Spare"), (*FULL_LABELS.palette, (255, 255, 255))
)
"""The 32 classes and the unused 33rd that two of the tutorials train."""

COLOR_FILE = "label_colors.txt"

_PairFolders = Mapping[str, tuple[str, str]]

_SEGNET: _PairFolders = {
    "train": ("train", "trainannot"),
    "val": ("val", "valannot"),
    "test": ("test", "testannot"),
}
_TUTORIAL: _PairFolders = {
    "train": ("train_images", "train_labels"),
    "val": ("valid_images", "valid_labels"),
}
_ORIGINAL = (("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels"))
_SPLIT_FILES = {"train": ("train.txt",), "val": ("val.txt", "valid.txt"), "test": ("test.txt",)}
_ORIGINAL_SUFFIX = "_L"
_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")
_VAL_SHARE = 5


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image file and its label map; `name` is the image's path below the data folder."""

    name: str
    image: pathlib.Path
    label: pathlib.Path


@dataclasses.dataclass(frozen=True)
class CamVidFolder:
    """A data folder whose files are paired.

    Attributes:
        root: the folder.
        layout: "segnet", "original" or "tutorial".
        labels: the classes; the tutorials' spare class is included only once `check` has met it.
        coding: how label files become class ids.
        splits: the pairs of each split, sorted by name.
        lists: text files that decide about classes and splits.
    """

    root: pathlib.Path
    layout: str
    labels: LabelSet
    coding: IndexCoding | ColorCoding
    splits: Mapping[str, tuple[Pair, ...]]
    lists: tuple[pathlib.Path, ...] = ()

    def files(self) -> list[pathlib.Path]:
        """Every file that the examples depend on."""
        pairs = [pair for split in self.splits.values() for pair in split]
        return [*self.lists, *(p.image for p in pairs), *(p.label for p in pairs)]

    def check(self) -> "CamVidFolder":
        """Reads every file.

        Returns:
            The folder with its final classes.

        Raises:
            DataError: files cannot be read or do not fit; names the first few and their number.
        """
        pairs = [pair for split in self.splits.values() for pair in split]
        highest = checks.gather(self._highest_id, pairs, f"image and label pairs of {self.root}")
        if self.layout == "tutorial" and max(highest) == FULL_LABELS.num_classes:
            return dataclasses.replace(self, labels=SPARE_LABELS)
        return self

    def _highest_id(self, pair: Pair) -> int:
        _, image = read_training_image(pair.image)
        label = self.coding.read(pair.label)
        check_size(pair.image, image, pair.label, label)
        return int(label[label != IGNORE].max(initial=0))


def find_folder(data_dir: str | pathlib.Path) -> CamVidFolder:
    """Recognises the layout of a CamVid folder and pairs its files; reads no picture.

    Splits of the original come from `train.txt`, `val.txt` (or `valid.txt`) and `test.txt` in the
    folder, one image name per line; what no file names is training data. Without such files they
    are the published ones: frames 07959 to 08159 of 0016E5 validate, 0006R0, the rest of 0016E5 and
    0001TP up to 08520 train, the rest of 0001TP and Seq05VD test. If other file names occur,
    every fifth one in alphabetical order validates and the others train.

    Args:
        data_dir: the folder.

    Raises:
        DataError: missing folder, unknown layout, files without partner, or an empty split.
    """
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give --data-dir a CamVid folder. {_expected()}")
    if _has(root, *_SEGNET["train"]):
        coding = IndexCoding(SEGNET_LABELS.num_classes, (SEGNET_LABELS.num_classes, IGNORE))
        found = CamVidFolder(root, "segnet", SEGNET_LABELS, coding, _split_pairs(root, _SEGNET))
    elif _has(root, *_TUTORIAL["train"]):
        coding = IndexCoding(SPARE_LABELS.num_classes, first_channel=True)
        found = CamVidFolder(root, "tutorial", FULL_LABELS, coding, _split_pairs(root, _TUTORIAL))
    elif folders := [pair for pair in _ORIGINAL if _has(root, *pair)]:
        found = _find_original(root, folders[0])
    else:
        inside = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
        holds = ", ".join(inside[:8]) + (", ..." if len(inside) > 8 else "") or "nothing"
        raise DataError(f"{root}: no CamVid layout found, the folder holds {holds}. {_expected()}")
    for split in ("train", "val"):
        if not found.splits.get(split):
            raise DataError(f"{root}: the {split} split has no images. {_expected()}")
    return found


def _expected() -> str:
    def pairs(folders: _PairFolders) -> str:
        return " ".join(f"{image}/ {label}/" for image, label in folders.values())

    original = " or ".join(f"{image}/ {label}/" for image, label in _ORIGINAL)
    return (
        f"Expected is one of: {pairs(_SEGNET)} (SegNet copy, test optional; index masks); "
        f"{original} (original; colour masks NAME{_ORIGINAL_SUFFIX}.png, {COLOR_FILE}); "
        f"{pairs(_TUTORIAL)} (tutorials; index masks)"
    )


def _has(root: pathlib.Path, *names: str) -> bool:
    return all((root / name).is_dir() for name in names)


def _split_pairs(root: pathlib.Path, folders: _PairFolders) -> dict[str, tuple[Pair, ...]]:
    present = {
        split: pair for split, pair in folders.items() if any(_has(root, name) for name in pair)
    }
    for pair in present.values():
        for name in pair:
            if not _has(root, name):
                raise DataError(f"{root / name}: no such folder. {_expected()}")
    return {split: _match(root, *pair) for split, pair in present.items()}


def _match(root: pathlib.Path, images: str, labels: str, suffix: str = "") -> tuple[Pair, ...]:
    image_files, label_files = _by_stem(root / images), _by_stem(root / labels, suffix)
    problems = [
        f"{path}: has no label map, expected {root / labels / (stem + suffix)}.png"
        for stem, path in image_files.items()
        if stem not in label_files
    ] + [
        f"{path}: has no image, expected {root / images / stem} with {' or '.join(IMAGE_SUFFIXES)}"
        for stem, path in label_files.items()
        if stem not in image_files
    ]
    checks.raise_problems(problems, f"files in {root} have no partner; add it or remove the file")
    return tuple(
        Pair(path.relative_to(root).as_posix(), path, label_files[stem])
        for stem, path in sorted(image_files.items())
    )


def _by_stem(folder: pathlib.Path, suffix: str = "") -> dict[str, pathlib.Path]:
    """The pictures of a folder by name without `suffix` and ending."""
    found: dict[str, pathlib.Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if not path.stem.endswith(suffix):
            raise DataError(f"{path}: a label map is expected to be named NAME{suffix}.png")
        stem = path.stem.removesuffix(suffix)
        if stem in found:
            raise DataError(f"{path}: {found[stem].name} has the same name; remove one of them")
        found[stem] = path
    return found


def _find_original(root: pathlib.Path, folders: tuple[str, str]) -> CamVidFolder:
    pairs = _match(root, *folders, suffix=_ORIGINAL_SUFFIX)
    color_file = root / COLOR_FILE
    lists = [path for split in _SPLIT_FILES if (path := _split_file(root, split))]
    splits = _listed_splits(pairs, root) if lists else _default_splits(pairs)
    if color_file.is_file():
        labels, colors = read_colors(color_file)
        coding = ColorCoding(colors, str(color_file))
        lists.append(color_file)
    else:
        labels = FULL_LABELS
        colors = {color: index for index, color in enumerate(labels.palette)}
        coding = ColorCoding(colors, "CamVid's official colour table")
    return CamVidFolder(root, "original", labels, coding, splits, tuple(lists))


def _split_file(root: pathlib.Path, split: str) -> pathlib.Path | None:
    return next((root / n for n in _SPLIT_FILES[split] if (root / n).is_file()), None)


def _listed_splits(pairs: tuple[Pair, ...], root: pathlib.Path) -> dict[str, tuple[Pair, ...]]:
    stems = {pair.image.stem for pair in pairs}
    owner: dict[str, str] = {}
    for split in _SPLIT_FILES:
        path = _split_file(root, split)
        for line in _lines(path) if path else ():
            stem = _stem(line)
            if not stem:
                continue
            if stem not in stems:
                raise DataError(f"{path}: {line.strip()!r} is no image of {pairs[0].image.parent}")
            if owner.setdefault(stem, split) != split:
                raise DataError(f"{path}: {line.strip()!r} is in the {owner[stem]} list, too")
    rest = "" if _split_file(root, "train") else "train"
    return _group(pairs, {stem: owner.get(stem, rest) for stem in stems})


def _stem(line: str) -> str:
    """The image that a line names by its file name, with or without folder and ending."""
    name = line.strip().replace("\\", "/").rsplit("/", 1)[-1]
    base, dot, ending = name.rpartition(".")
    return base if dot and f".{ending.lower()}" in IMAGE_SUFFIXES else name


def _default_splits(pairs: tuple[Pair, ...]) -> dict[str, tuple[Pair, ...]]:
    frames = {pair.image.stem: _FRAME.fullmatch(pair.image.stem) for pair in pairs}
    if all(frames.values()):
        return _group(pairs, {s: _published(m[1], int(m[2])) for s, m in frames.items() if m})
    every = {pair.image.stem: i % _VAL_SHARE == _VAL_SHARE - 1 for i, pair in enumerate(pairs)}
    return _group(pairs, {stem: "val" if val else "train" for stem, val in every.items()})


def _published(sequence: str, frame: int) -> str:
    if sequence == "0016E5":
        return "val" if 7959 <= frame <= 8159 else "train"
    if sequence == "0001TP":
        return "train" if frame <= 8520 else "test"
    return "train" if sequence == "0006R0" else "test"


def _group(pairs: tuple[Pair, ...], owner: Mapping[str, str]) -> dict[str, tuple[Pair, ...]]:
    splits = {
        split: tuple(pair for pair in pairs if owner[pair.image.stem] == split)
        for split in _SPLIT_FILES
    }
    return {split: members for split, members in splits.items() if members}


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no UTF-8 text file ({error}); save it as one") from error


def read_colors(path: pathlib.Path) -> tuple[LabelSet, dict[Color, int]]:
    """Reads a label_colors.txt: lines "R G B Name", one class per name, in the file's order.

    Args:
        path: the file. A name may come on several lines to give its class further colours.

    Returns:
        The classes, each in its first colour, and the class id of every colour.

    Raises:
        DataError: no UTF-8 text, a line of another form, or a colour that has two names.
    """
    palette: dict[str, Color] = {}
    names: dict[Color, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        fields = line.split(maxsplit=3)
        if len(fields) != 4 or not all(f.isdecimal() and int(f) < 256 for f in fields[:3]):
            raise DataError(f"{path}, line {number}: {line!r}, expected R G B Name, 0 to 255 each")
        color, name = (int(fields[0]), int(fields[1]), int(fields[2])), fields[3].strip()
        if names.setdefault(color, name) != name:
            raise DataError(f"{path}, line {number}: {names[color]} has the colour {color}, too")
        palette.setdefault(name, color)
    if not palette:
        raise DataError(f"{path}: is empty, expected lines R G B Name")
    ids = {name: index for index, name in enumerate(palette)}
    labels = LabelSet(f"camvid{len(ids)}", tuple(palette), tuple(palette.values()))
    return labels, {color: ids[name] for color, name in names.items()}
