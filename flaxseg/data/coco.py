"""Masks from COCO's JSON: polygons and run lengths, painted once as small PNG files of class ids.

Lin et al.: Microsoft COCO: Common Objects in Context (2014), https://cocodataset.org/#format-data.
Background is class 0, the categories follow by their numbers; a later annotation covers an earlier
one, as in the file. A picture without annotations is background throughout.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from flaxseg.data import words
from flaxseg.errors import ConfigError, DataError
from flaxseg.labels import LabelSet

INDEX = "index.json"
VERSION = "1"
"""Of what `paint` writes."""

_BACKGROUND = "background"


@dataclasses.dataclass(frozen=True)
class Painted:
    """What `paint` has written.

    Attributes:
        labels: the background and the categories.
        classes: which class is which, in words.
        masks: the mask of each picture that a file lists, by split and `file_name`.
        lines: what was assumed or left out, a sentence each.
    """

    labels: LabelSet
    classes: str
    masks: Mapping[str, Mapping[str, pathlib.Path]]
    lines: tuple[str, ...]


def read_painted(directory: pathlib.Path) -> Painted:
    """What lies in a directory that `paint` has filled."""
    index = json.loads((directory / INDEX).read_text("utf-8"))
    masks = {
        split: {name: directory / mask for name, mask in members.items()}
        for split, members in index["masks"].items()
    }
    labels = LabelSet.from_json(index["labels"])
    return Painted(labels, index["lines"][0], masks, tuple(index["lines"][1:]))


def paint(jsons: Mapping[str, pathlib.Path], target: pathlib.Path, name: str = "coco") -> None:
    """Paints the masks of COCO files, which share their classes, and an index of them.

    Args:
        jsons: the file of each split.
        target: an empty folder to write to.
        name: of the data set.

    Raises:
        DataError: no COCO file, annotations without segmentation, or a category that the first file
            lacks; faster-coco-eval is not installed.
    """
    api = _mask_api()
    contents = {split: _read(path) for split, path in jsons.items()}
    classes, lines = _classes(jsons, contents)
    masks: dict[str, dict[str, str]] = {}
    broken = 0
    for split, content in contents.items():
        ids = _class_ids(jsons[split], content, classes)
        folder = target / (split or "masks")
        folder.mkdir()
        masks[split] = {}
        for number, image in enumerate(content["images"]):
            annotations = content["of"].get(image["id"], ())
            label, skipped = _label(api, jsons[split], image, annotations, ids)
            broken += skipped
            path = folder / f"{number:06}.png"
            Image.fromarray(label).save(path)
            masks[split][image["file_name"]] = path.relative_to(target).as_posix()
    if broken:
        lines.append(f"left out: {broken} polygons of less than three points")
    try:
        labels = LabelSet(name, tuple(classes), LabelSet.generic(len(classes)).palette)
    except ConfigError as error:
        raise DataError(f"{next(iter(jsons.values()))}: {error}") from None
    index = {"labels": labels.to_json(), "masks": masks, "lines": lines}
    (target / INDEX).write_text(json.dumps(index), "utf-8")


def _read(path: pathlib.Path) -> dict[str, Any]:
    """The lists of a file, checked as far as masks need them, and the annotations of each image."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no JSON file ({error}); export it again") from error
    images = _entries(path, content, "images", {"id", "file_name", "height", "width"})
    known = {image["id"] for image in images}
    annotations = _entries(path, content, "annotations", {"image_id", "category_id"})
    boxes = [annotation for annotation in annotations if not annotation.get("segmentation")]
    if boxes:
        raise DataError(
            f"{path}: {len(boxes)} of {len(annotations)} annotations have no segmentation, only "
            f"boxes or points (the first in image {boxes[0]['image_id']}); export the data set for "
            "segmentation, with polygons or masks"
        )
    of: dict[Any, list[dict]] = {}
    for annotation in annotations:
        if annotation["image_id"] not in known:
            raise DataError(
                f"{path}: an annotation is of image {annotation['image_id']}, which is not in "
                '"images"; export it again'
            )
        of.setdefault(annotation["image_id"], []).append(annotation)
    categories = _entries(path, content, "categories", {"id", "name"})
    return {"images": images, "of": of, "categories": categories}


def _entries(path: pathlib.Path, content: Any, key: str, needed: set[str]) -> list[dict]:
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f'{path}: has no list "{key}", it is no COCO file; export it again')
    for entry in entries:
        lacking = sorted(needed - set(entry)) if isinstance(entry, dict) else sorted(needed)
        if lacking:
            raise DataError(f'{path}: {str(entry)[:80]} in "{key}" has no {lacking[0]!r}')
    return entries


def _classes(
    jsons: Mapping[str, pathlib.Path], contents: Mapping[str, dict]
) -> tuple[list[str], list[str]]:
    """The names of the classes, the background first, and what is to be said of them."""
    path, content = next(iter(jsons.values())), next(iter(contents.values()))
    categories = sorted(content["categories"], key=lambda category: category["id"])
    used = {
        annotation["category_id"]
        for other in contents.values()
        for annotations in other["of"].values()
        for annotation in annotations
    }
    groups = [category for category in categories if _is_group(category, categories, used)]
    names = [str(category["name"]) for category in categories if category not in groups]
    background = next((name for name in names if words.plain(name) == _BACKGROUND), _BACKGROUND)
    classes = list(dict.fromkeys([background, *names]))
    lines = [f"classes: 0 is {background}, {path.name}'s categories follow by their numbers"]
    for group in groups:
        lines.append(
            f"category {group['id']} {group['name']!r} is no class: it is what the others are "
            "grouped under, and no annotation is of it"
        )
    return classes, lines


def _is_group(category: dict, categories: Sequence[dict], used: Iterable[int]) -> bool:
    """Whether a category is only the group that all the others belong to, as Roboflow writes it."""
    others = [other for other in categories if other is not category]
    grouped = all(other.get("supercategory") == category["name"] for other in others)
    return bool(others) and grouped and category["id"] not in used


def _class_ids(path: pathlib.Path, content: dict, classes: Sequence[str]) -> dict[Any, int]:
    """The class of each category that an annotation is of."""
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    ids = {}
    for annotations in content["of"].values():
        for number in {annotation["category_id"] for annotation in annotations}:
            name = names.get(number)
            if name not in classes:
                known = ", ".join(classes[:8])
                raise DataError(
                    f"{path}: an annotation is of category {number} ({name}), which is none of "
                    f"{known}; all files of a data set need the same categories"
                )
            ids[number] = classes.index(name)
    return ids


def _label(
    api: Any,
    path: pathlib.Path,
    image: dict,
    annotations: Iterable[dict],
    ids: Mapping[Any, int],
) -> tuple[np.ndarray, int]:
    """The class ids of an image, (H, W) uint8, and the number of polygons that are none."""
    height, width = image["height"], image["width"]
    label = np.zeros((height, width), np.uint8)
    broken = 0
    for annotation in annotations:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            polygons = [part for part in segmentation if len(part) >= 6 and len(part) % 2 == 0]
            broken += len(segmentation) - len(polygons)
            if not polygons:
                continue
            segmentation = polygons
        elif segmentation.get("size") != [height, width]:
            raise DataError(
                f"{path}: a mask of {image['file_name']} is {segmentation.get('size')}, but the "
                f"image is {[height, width]} (height, width)"
            )
        try:
            runs = api.segmToRle(segmentation, width, height)
            inside = api.decode(runs).astype(bool)
        except (ValueError, RuntimeError, TypeError) as error:  # what it raises for damaged ones
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"{path}: a mask of {image['file_name']} cannot be read ({reason}); export it again"
            ) from error
        label[inside] = ids[annotation["category_id"]]
    return label, broken


def _mask_api() -> Any:
    """The package that paints polygons and run lengths as COCO's own does."""
    try:
        from faster_coco_eval.core import mask
    except ImportError:
        raise DataError(
            "COCO annotations need faster-coco-eval: pip install 'flaxseg[coco]'"
        ) from None
    return mask
