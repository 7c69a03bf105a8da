"""Cityscapes: street scenes of fifty cities, 2048 x 1024, 19 classes.

Cordts et al.: The Cityscapes Dataset for Semantic Urban Scene Understanding (2016),
https://www.cityscapes-dataset.com, which asks for a login. The archives hold::

    leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png  gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png

The 19 classes that count are a choice among the 34 label ids; the others become 255. Folders in
which the published scripts have written NAME_gtFine_labelTrainIds.png are read from those where the
label ids are missing. The test split is left out: its labels are not published.
"""

import pathlib

from flaxseg.data.archives import Archive
from flaxseg.data.classes import Classes
from flaxseg.data.dataset import FileDataset
from flaxseg.data.pairs import Pair, PairFolder, has_folders, inside, match
from flaxseg.data.problems import BadSample
from flaxseg.errors import DataError
from flaxseg.labels import IGNORE, Color, LabelSet

_CLASSES: dict[int, tuple[str, Color]] = {
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
}
"""Names and colours of the classes by label id; the train ids count them in this order."""

LABELS = LabelSet(
    "cityscapes",
    tuple(name for name, _ in _CLASSES.values()),
    tuple(color for _, color in _CLASSES.values()),
)
"""The 19 classes."""

_LABEL_IDS = {**dict.fromkeys((*range(34), 255), IGNORE), **{i: t for t, i in enumerate(_CLASSES)}}
_KINDS = {
    "labelIds": Classes(LABELS, ids=_LABEL_IDS, source="Cityscapes", fixed=True),
    "labelTrainIds": Classes(LABELS, source="Cityscapes", fixed=True),
}
_IMAGES, _LABELS = "leftImg8bit", "gtFine"
_SPLITS = ("train", "val")
_EXPECTED = (
    "Expected are leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, or what they extract "
    "to: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png (or "
    "_gtFine_labelTrainIds.png) with the splits train and val"
)


def find_folder(root: pathlib.Path) -> PairFolder:
    """Pairs the pictures of all cities; reads no picture.

    Args:
        root: the folder that holds `leftImg8bit` and `gtFine`.

    Raises:
        DataError: a folder is missing, or a split is empty.
    """
    folders = [f"{kind}/{split}" for kind in (_IMAGES, _LABELS) for split in _SPLITS]
    missing = [folder for folder in folders if not has_folders(root, folder)]
    if missing:
        raise DataError(
            f"{root}: is no cityscapes folder, it holds {inside(root)} but no {missing[0]}. "
            f"{_EXPECTED}"
        )
    written = any((root / _LABELS / "train").glob("*/*_gtFine_labelIds.png"))
    kind = "labelIds" if written else "labelTrainIds"
    splits: dict[str, tuple[Pair, ...]] = {}
    orphans: list[BadSample] = []
    for split in _SPLITS:
        splits[split], lost = match(
            root,
            f"{_IMAGES}/{split}",
            f"{_LABELS}/{split}",
            image_suffix="_leftImg8bit",
            label_suffix=f"_gtFine_{kind}",
            strict=False,
            nested=True,
        )
        orphans += lost
    folder = PairFolder(root, kind, _KINDS[kind], splits, orphans=tuple(orphans), published=True)
    return folder.require(_SPLITS, _EXPECTED)


CITYSCAPES = FileDataset(
    "cityscapes",
    find_folder,
    _EXPECTED,
    archives=(
        Archive(
            "leftImg8bit_trainvaltest.zip",
            r"leftImg8bit/(train|val)/[^/]+/[^/]+_leftImg8bit\.png",
        ),
        Archive(
            "gtFine_trainvaltest.zip",
            r"gtFine/(train|val)/[^/]+/[^/]+_gtFine_label(Train)?Ids\.png",
        ),
    ),
    source="https://www.cityscapes-dataset.com (login required)",
    folders=(_IMAGES, _LABELS),
    labels=LABELS,
)
"""The data set; its archives have no public address."""
