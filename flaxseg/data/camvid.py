"""CamVid: road scenes of the Cambridge-driving Labeled Video Database.

Brostow, Fauqueur, Cipolla: Semantic object classes in video (2009),
http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/. It comes in three folder layouts:

SegNet copy (11 classes, id 11 means unlabelled; `test` may be missing)::

    train/NAME.png  trainannot/NAME.png  val/...  valannot/...  test/...  testannot/...

Original (32 colours of label_colors.txt)::

    701_StillsRaw_full/NAME.png  LabeledApproved_full/NAME_L.png     or  images/  labels/

Tutorials (class ids in alphabetical order, 32 classes or 33 with a spare one)::

    train_images/NAME.png  train_labels/NAME.png  valid_images/...  valid_labels/...

Images may be PNG or JPEG; image and label map are matched by name without the ending.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence

from flaxseg.data.classes import COLOR_FILE, Classes, read_colors
from flaxseg.data.dataset import FileDataset
from flaxseg.data.pairs import Matched, Pair, PairFolder, has_folders, inside, match
from flaxseg.data.splits import every_fifth, group, listed_splits, split_lists
from flaxseg.errors import DataError
from flaxseg.labels import Color, LabelSet

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
_ORIGINAL_SUFFIX = "_L"
_SOURCE = "CamVid"
_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")


def find_folder(root: pathlib.Path) -> PairFolder:
    """Recognises the layout of a CamVid folder and pairs its files; reads no picture.

    Splits of the original come from `train.txt`, `val.txt` (or `valid.txt`) and `test.txt` in the
    folder, one image name per line; what no file names is training data. Without such files they
    are the published ones: frames 07959 to 08159 of 0016E5 validate, 0006R0, the rest of 0016E5 and
    0001TP up to 08520 train, the rest of 0001TP and Seq05VD test. If other file names occur,
    every fifth one in alphabetical order validates and the others train.

    Args:
        root: the folder.

    Raises:
        DataError: unknown layout, or an empty split.
    """
    if has_folders(root, *_SEGNET["train"]):
        ignore = (SEGNET_LABELS.num_classes,)
        classes = Classes(SEGNET_LABELS, ignore=ignore, source=_SOURCE, fixed=True)
        splits, orphans = _split_pairs(root, _SEGNET)
        found = PairFolder(root, "segnet", classes, splits, orphans=orphans)
    elif has_folders(root, *_TUTORIAL["train"]):
        classes = Classes(SPARE_LABELS, source=_SOURCE, fixed=True)
        splits, orphans = _split_pairs(root, _TUTORIAL)
        found = PairFolder(root, "tutorial", classes, splits, orphans=orphans, narrower=FULL_LABELS)
    elif folders := [pair for pair in _ORIGINAL if has_folders(root, *pair)]:
        found = _find_original(root, folders[0])
    else:
        raise DataError(
            f"{root}: no CamVid layout found, the folder holds {inside(root)}. {_EXPECTED}"
        )
    return found.require(("train", "val"), _EXPECTED)


def _expected() -> str:
    def pairs(folders: _PairFolders) -> str:
        return " ".join(f"{image}/ {label}/" for image, label in folders.values())

    original = " or ".join(f"{image}/ {label}/" for image, label in _ORIGINAL)
    return (
        f"Expected is one of: {pairs(_SEGNET)} (SegNet copy, test optional; index masks); "
        f"{original} (original; colour masks NAME{_ORIGINAL_SUFFIX}.png, {COLOR_FILE}); "
        f"{pairs(_TUTORIAL)} (tutorials; index masks)"
    )


_EXPECTED = _expected()


def _split_pairs(
    root: pathlib.Path, folders: _PairFolders
) -> tuple[dict[str, tuple[Pair, ...]], tuple]:
    """The pairs of each split that has a folder, and all orphans."""
    present = {
        split: pair
        for split, pair in folders.items()
        if any(has_folders(root, name) for name in pair)
    }
    for pair in present.values():
        for name in pair:
            if not has_folders(root, name):
                raise DataError(f"{root / name}: no such folder. {_EXPECTED}")
    matched: dict[str, Matched] = {
        split: match(root, *pair, keep_bare=True) for split, pair in present.items()
    }
    orphans = tuple(orphan for found in matched.values() for orphan in found.orphans)
    return {split: found.pairs for split, found in matched.items()}, orphans


def _find_original(root: pathlib.Path, folders: tuple[str, str]) -> PairFolder:
    pairs, orphans = match(root, *folders, label_suffix=_ORIGINAL_SUFFIX, keep_bare=True)
    color_file = root / COLOR_FILE
    lists = split_lists(root)
    splits = listed_splits(pairs, lists) if lists else _default_splits(pairs)
    files = [*lists.values()]
    if color_file.is_file():
        labels, colors = read_colors(color_file, "camvid")
        classes = Classes(labels, colors=colors, source=str(color_file), fixed=True)
        files.append(color_file)
    else:
        colors = {color: index for index, color in enumerate(FULL_LABELS.palette)}
        table = "CamVid's official colour table"
        classes = Classes(FULL_LABELS, colors=colors, source=table, fixed=True)
    return PairFolder(root, "original", classes, splits, tuple(files), orphans)


def _default_splits(pairs: Sequence[Pair]) -> dict[str, tuple[Pair, ...]]:
    frames = {pair.name: _FRAME.fullmatch(pair.image.stem) for pair in pairs}
    if all(frames.values()):
        return group(pairs, {s: _published(m[1], int(m[2])) for s, m in frames.items() if m})
    return every_fifth(pairs)


def _published(sequence: str, frame: int) -> str:
    if sequence == "0016E5":
        return "val" if 7959 <= frame <= 8159 else "train"
    if sequence == "0001TP":
        return "train" if frame <= 8520 else "test"
    return "train" if sequence == "0006R0" else "test"


CAMVID = FileDataset("camvid", find_folder, _EXPECTED)
"""The data set; it has no public address."""
