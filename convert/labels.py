"""Class names and colours that travel with published checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

from convert.formats import Format
from convert.sources import Checkpoint
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.labels import LabelSet

MMSEG = "mmseg"


def from_checkpoint(checkpoint: Checkpoint, num_classes: int) -> tuple[LabelSet, tuple[str, ...]]:
    """The classes that a file names, or numbered ones; and what to note about it.

    Raises:
        CheckpointError: the config.json beside the file is that of another number of classes.
    """
    generic = LabelSet.generic(num_classes)
    names, palette = _noted(checkpoint.content.meta)
    configured = _of_hugging_face(checkpoint.config)
    if configured is not None and len(configured) != num_classes:
        raise CheckpointError(
            f"its config.json names {len(configured)} classes (id2label), the weights are for "
            f"{num_classes}: put the config.json beside it that it was saved with"
        )
    names = names or configured
    if names is None:
        return generic, ()
    if len(names) != num_classes:
        note = f"the file names {len(names)} classes for {num_classes} outputs: numbered instead"
        return generic, (note,)
    fits = palette is not None and len(palette) == num_classes
    colours = tuple(map(tuple, palette)) if fits and palette else generic.palette
    try:
        return LabelSet("imported", _distinct(names), colours), ()
    except (ConfigError, TypeError) as error:
        return generic, (f"class names and colours of the file do not fit: {error}",)


def to_meta(layout: Format, labels: LabelSet | None) -> dict[str, Any] | None:
    """What a training script of the peer notes beside the weights about classes."""
    if layout.name != MMSEG or labels is None:
        return None
    palette = [list(colour) for colour in labels.palette]
    meta = {"classes": list(labels.classes), "palette": palette}
    return {"CLASSES": meta["classes"], "PALETTE": palette, "dataset_meta": meta}


def _noted(meta: Mapping[str, Any]) -> tuple[list[str] | None, Sequence[Any] | None]:
    """mmsegmentation's names: of 1.x under `dataset_meta`, of 0.x in capitals."""
    inner = meta.get("dataset_meta")
    if isinstance(inner, dict):
        names, palette = inner.get("classes"), inner.get("palette")
    else:
        names, palette = meta.get("CLASSES"), meta.get("PALETTE")
    named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return list(names) if named and names else None, palette if _colours(palette) else None


def _colours(palette: Any) -> bool:
    return isinstance(palette, list | tuple) and all(
        isinstance(colour, list | tuple) and all(isinstance(part, int) for part in colour)
        for colour in palette
    )


def _of_hugging_face(config: Mapping[str, Any]) -> list[str] | None:
    names = config.get("id2label")
    if not isinstance(names, dict) or not names:
        return None
    try:
        return [str(names[str(index)]) for index in range(len(names))]
    except KeyError:
        return None


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Two classes of one name are told apart by their number."""
    seen = [name for name in names if names.count(name) > 1]
    return tuple(f"{name} {i}" if name in seen else name for i, name in enumerate(names))
