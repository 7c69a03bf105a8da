"""Any folder of photos and masks, as people and labelling tools arrange them.

::

    images/NAME.jpg  masks/NAME.png  classes.txt

is flaxseg's own form. `flaxseg.data.layouts` has the others; besides there are lists that spell out
"IMAGE MASK" in each line, COCO's JSON, and zips of all this. What was recognised is told in
`PairFolder.lines`; what could mean two things is an error. No picture is read here.
"""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from flaxseg.data import words
from flaxseg.data.cache import cache_root, derived, fingerprint, forget_older, prepare_once
from flaxseg.data.class_files import FoundClasses, find_classes
from flaxseg.data.classes import JSON_FORM, Classes
from flaxseg.data.coco import VERSION, paint, read_painted
from flaxseg.data.coco_files import find_jsons, locate
from flaxseg.data.dataset import FileDataset
from flaxseg.data.layouts import find_layout
from flaxseg.data.matching import pair_layout
from flaxseg.data.pairs import Pair, PairFolder, inside, some
from flaxseg.data.problems import BadSample
from flaxseg.data.splits import Division, divide, divide_columns, find_lists
from flaxseg.data.survey import Survey, survey, upwards
from flaxseg.data.zipped import find_zip, unzipped
from flaxseg.errors import DataError

NAME = "folder"

_SHOWN = 3

_EXPECTED = (
    "Expected are images/ and masks/ with files of the same names, and classes.txt with one class "
    f"name per line or classes.json ({JSON_FORM}); splits by folders images/train masks/train "
    "images/val masks/val, by train.txt and val.txt, or else every fifth image validates. "
    "docs/data.md has the other forms: VOC, CVAT, Roboflow, COCO"
)


@dataclasses.dataclass(frozen=True)
class _Content:
    """What a layout yields, before classes are looked for and pairs divided among splits.

    Attributes:
        layout: its name.
        pairs: all pairs, sorted by name.
        lines: how the folder was understood.
        folders: the split of each pair by name, where folders tell it; else empty.
        orphans: masks without picture, and pictures that a JSON lists and the folder lacks.
        classes: what masks may hold, if the layout itself tells it.
    """

    layout: str
    pairs: Sequence[Pair]
    lines: tuple[str, ...]
    folders: Mapping[str, str] = dataclasses.field(default_factory=dict)
    orphans: Sequence[BadSample] = ()
    classes: FoundClasses | None = None


def find_folder(root: pathlib.Path, *, cache: pathlib.Path | None = None) -> PairFolder:
    """Finds photos, masks, splits and classes.

    Args:
        root: the folder, or a zip file.
        cache: where zips are unpacked and COCO's masks painted; None: `cache_root()`.

    Raises:
        DataError: no photos, masks or classes, an empty split, or what could mean two things.
    """
    archive = find_zip(root)
    place = unzipped(archive, cache or cache_root()) if archive else root
    files = survey(place)
    base = _inner(files)
    lists = next(filter(None, (find_lists(files, above) for above in upwards(base))), {})
    division = divide_columns(files, lists) if lists else None
    if division:
        pairs = [pair for split in division.splits.values() for pair in split]
        content = _Content("columns", pairs, ("layout: image and mask in each line of the lists",))
    else:
        content = _arranged(files, base, archive or root, cache)
        division = divide(place, content.pairs, content.folders, lists)
    classes = content.classes or _find_classes(files, base, content.pairs, bool(lists))
    orphans, left = content.orphans, []
    if division.lists and "train" in lists and orphans:
        orphans, left = (), [f"left out: {some([o.name for o in orphans], 'file')} in no list"]
    unpacked = [f"unpacked from {archive}"] if archive else []
    folder = PairFolder(
        place,
        content.layout,
        classes.classes,
        division.splits,
        (*classes.files, *division.lists),
        (*orphans, *division.lost),
        lines=(
            *(*unpacked, *content.lines, classes.line),
            *(_counted(division), *division.lines, *left),
        ),
    )
    return folder.require(("train", "val"), _EXPECTED)


def _counted(division: Division) -> str:
    counts = ", ".join(f"{len(pairs)} {split}" for split, pairs in division.splits.items())
    return f"splits: {counts}: {division.source}"


def _inner(files: Survey) -> str:
    """The folder that holds the data: where one holds nothing but another, it is looked into."""
    base = ""
    while True:
        below = {
            folder
            for folder in files.folders
            if folder and folder.rpartition("/")[0] == base and folder != base
        }
        texts = (".txt", ".md", ".csv", ".xml", ".html", ".pdf")
        data = [name for name in files.directly_in(base) if not name.lower().endswith(texts)]
        photos = any(picture.rpartition("/")[0] == base for picture in files.pictures)
        if len(below) != 1 or data or photos or _is_word(*below):
            return base
        (base,) = below


def _is_word(folder: str) -> bool:
    """Whether a folder's name tells a split or what it holds."""
    name = words.plain(folder.rpartition("/")[2])
    return name in (*words.IMAGES, *words.MASKS) or words.split_of(name) is not None


def _arranged(
    files: Survey, base: str, source: pathlib.Path, cache: pathlib.Path | None
) -> _Content:
    """The pairs of a layout of folders, else of COCO's JSON, else of one folder for all files."""
    found = find_layout(files, base)
    jsons = find_jsons(files, base) if found is None or found.layout.beside else {}
    if jsons:
        return _painted(files, jsons, cache or cache_root(), source)
    if found is None:
        place = files.root / base
        raise DataError(
            f"{place}: has no images/ and masks/, nor what may stand for them; it holds "
            f"{inside(place)}. {_EXPECTED}"
        )
    paired = pair_layout(files.root, found)
    rules = dict.fromkeys(rule for rule in (found.rule, paired.rule) if rule)
    lines = [f"layout: {found.shown()}", *([f"names: {'; '.join(rules)}"] if rules else [])]
    lines += _passed_over(files, itertools.chain(*found.images.values(), *found.masks.values()))
    return _Content(found.layout.name, paired.pairs, tuple(lines), paired.folders, paired.orphans)


def _painted(
    files: Survey, jsons: Mapping[str, pathlib.Path], cache: pathlib.Path, source: pathlib.Path
) -> _Content:
    """The pictures that COCO files list, with masks painted in the cache."""
    key = fingerprint(files.root, jsons.values(), " ".join((VERSION, *jsons)))
    directory = derived(cache, "coco", source, key)
    prepare_once(directory, lambda target: paint(jsons, target, NAME))
    forget_older(directory, source)
    painted = read_painted(directory)
    pairs, orphans, folders = [], [], {}
    for split, masks in painted.masks.items():
        for listed, mask in masks.items():
            name = locate(files, listed, jsons[split], split)
            if name is None:
                reason = f"{jsons[split]}: {listed!r} is no picture of {files.root}"
                orphans.append(BadSample(listed, reason))
                continue
            pairs.append(Pair(name, files.root / name, mask))
            if split:
                folders[name] = split
    pairs.sort(key=lambda pair: pair.name)
    shown = ", ".join(path.relative_to(files.root).as_posix() for path in jsons.values())
    lines = [f"layout: masks painted from {shown}", *painted.lines]
    lines += _passed_over(files, (pair.name for pair in pairs))
    classes = FoundClasses(
        Classes(painted.labels, source=shown), (*jsons.values(),), painted.classes
    )
    return _Content("coco", pairs, tuple(lines), folders, orphans, classes)


def _find_classes(files: Survey, base: str, pairs: Sequence[Pair], listed: bool) -> FoundClasses:
    """The class file; Pascal VOC itself, told by its three folders, has none."""
    places = {"images": set(), "masks": set()}
    for pair in pairs:
        places["images"].add(pair.name.rpartition("/")[0])
        if pair.label:
            places["masks"].add(pair.label.parent.relative_to(files.root).as_posix())
    is_voc = listed and all(
        pathlib.PurePosixPath(place).name.startswith(word)
        for kind, word in {"images": "JPEGImages", "masks": "SegmentationClass"}.items()
        for place in places[kind]
    )
    searched = [*sorted(places["masks"]), *sorted(places["images"])]
    return find_classes(files, base, searched, name=NAME, is_voc=is_voc, expected=_EXPECTED)


def _passed_over(files: Survey, used: Iterable[str]) -> list[str]:
    """A line about pictures that belong to nothing that was recognised."""
    known = set(used)
    names = [name for name in files.pictures if name not in known]
    counts = collections.Counter(name.rpartition("/")[0] for name in names)
    shown = [f"{count} in {folder or '.'}/" for folder, count in counts.most_common(_SHOWN)]
    more = ", ..." * (len(counts) > _SHOWN)
    return [f"passed over: {some(names, 'picture')}: {', '.join(shown)}{more}"] if names else []


FOLDER = FileDataset(NAME, find_folder, _EXPECTED, own=True)
"""A data set of one's own."""
