"""Oxford-IIIT Pet: photos of cats and dogs with trimaps.

Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs (2012),
https://www.robots.ox.ac.uk/~vgg/data/pets/. The archives hold::

    images/NAME.jpg  annotations/trimaps/NAME.png  annotations/trainval.txt  annotations/test.txt

A trimap marks the pet with 1, the background with 2 and the border between them with 3. There is no
list for validation: the notebook that `vitseg` comes from validates on the test list, and so does
the split "val" here.
"""

import pathlib

from flaxseg.data.archives import Archive
from flaxseg.data.classes import Classes
from flaxseg.data.dataset import FileDataset
from flaxseg.data.pairs import Pair, PairFolder, has_folders, inside
from flaxseg.data.problems import BadSample
from flaxseg.data.text import read_lines
from flaxseg.errors import DataError
from flaxseg.labels import LabelSet

LABELS = LabelSet(
    "pets", ("pet", "background", "border"), ((230, 60, 60), (64, 64, 64), (240, 180, 40))
)
"""What a trimap tells apart, as id + 1."""

_LISTS = {"train": "trainval.txt", "test": "test.txt"}
_IMAGES, _ANNOTATIONS = "images", "annotations"
_EXPECTED = (
    "Expected are images.tar.gz and annotations.tar.gz, or what they extract to: images/ and "
    "annotations/ with trimaps/, trainval.txt and test.txt"
)
# Decoders report "extraneous bytes before marker" for these at every reading; TFDS lists them.
_FLAWED = frozenset({"beagle_116", "chihuahua_121"})


def find_folder(root: pathlib.Path) -> PairFolder:
    """Pairs the photos and trimaps that the two lists name; reads no picture.

    Args:
        root: the folder that holds `images` and `annotations`.

    Raises:
        DataError: a folder or list is missing, a list names an image twice, or a split is empty.
    """
    lists = {split: root / _ANNOTATIONS / file for split, file in _LISTS.items()}
    if not has_folders(root, _IMAGES, f"{_ANNOTATIONS}/trimaps"):
        raise DataError(f"{root}: is no pets folder, it holds {inside(root)}. {_EXPECTED}")
    splits: dict[str, tuple[Pair, ...]] = {}
    orphans: list[BadSample] = []
    owner: dict[str, str] = {}
    for split, path in lists.items():
        pairs = []
        for line in read_lines(path):
            name = line.split(maxsplit=1)[0] if line.strip() else "#"
            if name.startswith("#"):
                continue
            if name in owner:
                raise DataError(f"{path}: {name!r} is in {owner[name]}, too; list it once")
            owner[name] = path.name
            pair = _pair(root, name)
            missing = [file for file in (pair.image, pair.label) if file and not file.is_file()]
            if missing:
                reason = f"{missing[0]}: no such file, but {path.name} lists {name}"
                orphans.append(BadSample(pair.name, reason))
            else:
                pairs.append(pair)
        splits[split] = tuple(sorted(pairs, key=lambda pair: pair.name))
    folder = PairFolder(
        root,
        "trimaps",
        Classes(LABELS, ids={1: 0, 2: 1, 3: 2}, source="Oxford-IIIT Pet", fixed=True),
        splits,
        lists=tuple(lists.values()),
        orphans=tuple(orphans),
        aliases={"val": "test"},
        published=True,
        flawed=_FLAWED,
    )
    return folder.require(tuple(_LISTS), _EXPECTED)


def _pair(root: pathlib.Path, name: str) -> Pair:
    image = f"{_IMAGES}/{name}.jpg"
    return Pair(image, root / image, root / _ANNOTATIONS / "trimaps" / f"{name}.png")


_URL = "https://thor.robots.ox.ac.uk/~vgg/data/pets/"

PETS = FileDataset(
    "pets",
    find_folder,
    _EXPECTED,
    archives=(
        Archive(
            "images.tar.gz",
            r"images/[^/.][^/]*\.jpg",
            _URL + "images.tar.gz",
            791918971,
            "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        ),
        Archive(
            "annotations.tar.gz",
            r"annotations/(trimaps/[^/.][^/]*\.png|(trainval|test)\.txt)",
            _URL + "annotations.tar.gz",
            19173078,
            "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
        ),
    ),
    folders=(_IMAGES, _ANNOTATIONS),
    labels=LABELS,
)
"""The data set, its archives with the checksums that TFDS has published."""
