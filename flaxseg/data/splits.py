"""Which pictures train and which validate: folders tell, else lists, else every fifth validates."""

import dataclasses
import pathlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from flaxseg.data import words
from flaxseg.data.pairs import Pair, some
from flaxseg.data.problems import BadSample
from flaxseg.data.survey import Survey, is_picture, without_ending
from flaxseg.data.text import read_lines
from flaxseg.errors import DataError

Splits = dict[str, tuple[Pair, ...]]

LIST_FOLDERS = ("", "ImageSets/Segmentation", "ImageSets", "splits", "lists", "split", "list")
"""Where lists are looked for, in this order; the first folder that has any counts."""

_VAL_SHARE = 5
_LIST = re.compile(r"(?:list)?(.+?)(?:list|set|ids|names|files|images)?")
_UNSPLIT = "default"  # what CVAT calls the list of a task without splits
_COLUMNS = re.compile(r"(\S.*?\.\w+)(?:\s*[,;]\s*|\s+)(\S.*\.\w+)")
_NEIGHBOURS = (
    "neighbouring frames of a film then lie on both sides; give train.txt and val.txt with one "
    "name a line"
)


@dataclasses.dataclass(frozen=True)
class Division:
    """Pairs by split.

    Attributes:
        splits: the pairs of each split.
        source: what tells the splits, in words.
        lines: what was left out or passed over, a sentence each.
        lost: lines of lists that name no picture.
        lists: the lists that were read.
    """

    splits: Splits
    source: str
    lines: tuple[str, ...] = ()
    lost: tuple[BadSample, ...] = ()
    lists: tuple[pathlib.Path, ...] = ()


def find_lists(files: Survey, base: str) -> dict[str, pathlib.Path]:
    """The list of each split in the first of `LIST_FOLDERS` that has one, in any case.

    A list of another name, such as VOC's trainval.txt, is none, but for CVAT's default.txt, which
    stands for `words.WHOLE` where it is the only one.

    Args:
        files: what the data folder holds.
        base: the folder in it that holds the data, "" for itself.

    Raises:
        DataError: two lists for one split.
    """
    texts = [name for name in files.others if name.lower().endswith(".txt")]
    for place in LIST_FOLDERS:
        folder = "/".join(part for part in (base, place) if part).lower()
        found: dict[str, pathlib.Path] = {}
        for text in texts:
            split = _split_of_list(text) if text.lower().rpartition("/")[0] == folder else None
            if split is None or (split == words.WHOLE and not place):
                continue
            if split in found:
                both = f"{found[split].name} and {pathlib.PurePosixPath(text).name}"
                raise DataError(
                    f"{(files.root / text).parent}: {both} both list the {split} split; keep one"
                )
            found[split] = files.root / text
        if found:
            return {split: found[split] for split in words.SPLITS if split in found} or found
    return {}


def split_lists(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The list of each split that has one in a folder itself."""
    names = tuple(sorted(path.name for path in root.iterdir() if path.is_file()))
    return find_lists(Survey(root, (), names), "")


def _split_of_list(name: str) -> str | None:
    stem = words.plain(pathlib.PurePosixPath(name).stem)
    match = _LIST.fullmatch(stem)
    return words.WHOLE if stem == _UNSPLIT else match and words.split_of(match[1])


def divide(
    root: pathlib.Path,
    pairs: Sequence[Pair],
    folders: Mapping[str, str],
    lists: Mapping[str, pathlib.Path],
) -> Division:
    """Divides pairs among splits.

    Args:
        root: the data folder.
        pairs: all pairs, sorted by name.
        folders: the split of each pair by name, as folders tell it; empty if they tell none.
        lists: the list of each split that has one.

    Raises:
        DataError: nothing trains or validates, or the lists contradict each other.
    """
    folders = folders or _inner_folders(pairs)
    if folders:
        over = (f"{_shown(root, lists)} passed over: the folders tell the splits",) if lists else ()
        return _complete(root, Division(group(pairs, folders), "split folders", over))
    if not lists:
        source = f"no lists and no split folders: every fifth picture validates; {_NEIGHBOURS}"
        return Division(every_fifth(pairs), source)
    owner, lost = _owners(pairs, lists)
    if words.WHOLE in lists:
        pairs = [pair for pair in pairs if pair.name in owner]
        source = f"{_shown(root, lists)} tells none: every fifth picture validates; {_NEIGHBOURS}"
        return Division(every_fifth(pairs), source, (), lost, (*lists.values(),))
    rest = [pair.name for pair in pairs if pair.name not in owner]
    lines = []
    if rest and "train" in lists:
        lines.append(f"left out: {some(rest, 'picture')} that no list names")
    elif rest:
        owner |= dict.fromkeys(rest, "train")
        lines.append("what no list names is training data")
    files = tuple(lists.values())
    found = Division(group(pairs, owner), _shown(root, lists), tuple(lines), lost, files)
    return _complete(root, found)


def divide_columns(files: Survey, lists: Mapping[str, pathlib.Path]) -> Division | None:
    """The pairs that lists spell out, "IMAGE MASK" in each line; None if they have one column.

    A line with an image alone is a picture without mask.

    Args:
        files: what the data folder holds.
        lists: the list of each split that has one.

    Raises:
        DataError: nothing trains or validates, or an image is in two lists.
    """
    entries = {split: _entries(path) for split, path in lists.items()}
    if not any(_columns(line) for lines in entries.values() for line in lines):
        return None
    known = _by_ending(files.pictures, str)
    splits: dict[str, dict[str, Pair]] = {}
    owner: dict[str, str] = {}
    lost = []
    for split, lines in entries.items():
        members = splits.setdefault(split, {})
        for line in lines:
            parts = _columns(line) or (line,)
            ends = [_only_one(lists[split], part, _candidates(part, known)) for part in parts]
            if None in ends:
                lost.append(_lost(lists[split], parts[ends.index(None)], files.root))
                continue
            image, *masks = (name for name in ends if name)
            _own(owner, image, split, lists[split], parts[0])
            mask = files.root / masks[0] if masks else None
            members[image] = Pair(image, files.root / image, mask)
    ordered = {
        split: tuple(sorted(members.values(), key=lambda pair: pair.name))
        for split, members in splits.items()
    }
    source = _shown(files.root, lists)
    if words.WHOLE in ordered:
        ordered = every_fifth(ordered[words.WHOLE])
        source += f" tells none: every fifth picture validates; {_NEIGHBOURS}"
    return _complete(files.root, Division(ordered, source, (), tuple(lost), (*lists.values(),)))


def _complete(root: pathlib.Path, division: Division) -> Division:
    """The division with a train and a val split, and a test split only if it can be scored."""
    splits, lines = dict(division.splits), list(division.lines)
    source = " and ".join(path.name for path in division.lists) or "the folder"
    if "test" in splits and not any(pair.label for pair in splits["test"]):
        bare = some([pair.name for pair in splits.pop("test")], "picture")
        lines.append(f"left out: the test split, {bare} without any mask; flaxseg predict reads it")
    has = " and ".join(split for split, pairs in splits.items() if pairs) or "none"
    if not splits.get("train"):
        raise DataError(
            f"{root}: the train split has no images, {source} has {has}; splits are called "
            "train and val"
        )
    if not splits.get("val"):
        if division.lists or splits.get("test"):
            raise DataError(
                f"{root}: the val split has no images, {source} has {has}; name those that "
                "validate in val.txt, or call a folder val"
            )
        lines.append(f"no val split: every fifth picture of train validates; {_NEIGHBOURS}")
        splits = every_fifth(splits["train"])
    return dataclasses.replace(division, splits=splits, lines=tuple(lines))


def _inner_folders(pairs: Sequence[Pair]) -> dict[str, str]:
    """The split of each pair, if the path of every one has exactly one split's name in it."""
    found = {}
    for pair in pairs:
        parts = pair.name.split("/")[:-1]
        splits = {split for part in parts if (split := words.split_of(part))}
        if len(splits) != 1:
            return {}
        (found[pair.name],) = splits
    return found


def listed_splits(pairs: Sequence[Pair], lists: Mapping[str, pathlib.Path]) -> Splits:
    """Splits as list files tell; what no file names is training data if there is no `train.txt`.

    A line names an image with or without folders and ending.

    Args:
        pairs: all pairs.
        lists: the list file of each split that has one.

    Raises:
        DataError: a list names no image, several ones, or one that another list names, too.
    """
    owner, lost = _owners(pairs, lists)
    if lost:
        raise DataError(lost[0].reason)
    rest = "" if "train" in lists else "train"
    return group(pairs, {pair.name: owner.get(pair.name, rest) for pair in pairs})


def _owners(
    pairs: Sequence[Pair], lists: Mapping[str, pathlib.Path]
) -> tuple[dict[str, str], tuple[BadSample, ...]]:
    """The split of each name that a list has, and the lines that name no picture."""
    known = _by_ending([pair.name for pair in pairs], without_ending)
    owner: dict[str, str] = {}
    lost = []
    for split, path in lists.items():
        for line in _entries(path):
            name = _only_one(path, line, _candidates(without_ending(line), known))
            if name is None:
                lost.append(_lost(path, line, pairs[0].image.parent))
            else:
                _own(owner, name, split, path, line)
    return owner, tuple(lost)


def _entries(path: pathlib.Path) -> list[str]:
    """The lines of a list, without quotes, empty lines and remarks."""
    lines = (line.strip().strip('"') for line in read_lines(path))
    return [_slashed(line) for line in lines if line and not line.startswith("#")]


def _columns(line: str) -> tuple[str, str] | None:
    match = _COLUMNS.fullmatch(line)
    return (match[1], match[2]) if match and all(map(is_picture, match.groups())) else None


def _slashed(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("\\", "/"))


def _by_ending(names: Iterable[str], bare: Callable[[str], str]) -> dict[str, set[str]]:
    """Names by every end of their path: a/b/c, b/c and c."""
    known: dict[str, set[str]] = {}
    for name in names:
        parts = _slashed(bare(name)).split("/")
        for start in range(len(parts)):
            known.setdefault("/".join(parts[start:]), set()).add(name)
    return known


def _candidates(line: str, known: Mapping[str, set[str]]) -> set[str]:
    """The names that the longest known end of a line's path stands for."""
    parts = line.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((known[end] for end in ends if end in known), set())


def _only_one(path: pathlib.Path, line: str, candidates: set[str]) -> str | None:
    if len(candidates) > 1:
        names = " and ".join(sorted(candidates)[:2])
        raise DataError(f"{path}: {line!r} may be {names}; write it with its folder")
    return next(iter(candidates), None)


def _own(owner: dict[str, str], name: str, split: str, path: pathlib.Path, line: str) -> None:
    if owner.setdefault(name, split) != split:
        raise DataError(f"{path}: {line!r} is in the {owner[name]} list, too")


def _lost(path: pathlib.Path, line: str, place: pathlib.Path) -> BadSample:
    return BadSample(line, f"{path}: {line!r} is no image of {place}")


def _shown(root: pathlib.Path, lists: Mapping[str, pathlib.Path]) -> str:
    first, *others = lists.values()
    return " and ".join([first.relative_to(root).as_posix(), *(path.name for path in others)])


def every_fifth(pairs: Sequence[Pair]) -> Splits:
    """Splits for want of better knowledge: every fifth pair validates, the others train."""
    val = {pair.name: i % _VAL_SHARE == _VAL_SHARE - 1 for i, pair in enumerate(pairs)}
    return group(pairs, {name: "val" if chosen else "train" for name, chosen in val.items()})


def group(pairs: Sequence[Pair], owner: Mapping[str, str]) -> Splits:
    """The pairs of each split by the split of each name; without empty splits."""
    splits = {
        split: tuple(pair for pair in pairs if owner.get(pair.name) == split)
        for split in words.SPLITS
    }
    return {split: members for split, members in splits.items() if members}
