"""Takes off what wrappers and the modules around a network have put into the keys.

Training scripts keep their network as a part of something else: `model.`, `net.`,
`student.backbone_net.`. No list holds all such names, so recognition leads: among the first parts
that most keys share, those are taken off without which a format knows the most keys.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from convert.changes import Shape
from convert.recognise import known_share
from convert.sources import Checkpoint
from convert.strays import layer_shapes
from convert.wrappers import distinct, without_words, words_in

MOST = 0.5
"""The first parts of more than this share of the keys may be a prefix."""


def unwrapped(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the keys of the bare network; what is taken off joins its wrappers.

    Keys outside of a prefix stay as they are.

    Raises:
        CheckpointError: two keys become one.
    """
    arrays = checkpoint.arrays
    names = without_words(arrays)
    tensors = {names[key]: array for key, array in arrays.items()}
    prefix = shared_prefix(layer_shapes(tensors))
    bare = distinct({key: name.removeprefix(prefix) for key, name in names.items()})
    content = checkpoint.content._replace(
        arrays={bare[key]: array for key, array in arrays.items()},
        wrappers=(*checkpoint.content.wrappers, *_taken_off(bare)),
    )
    return dataclasses.replace(checkpoint, content=content)


def _taken_off(bare: Mapping[str, str]) -> list[str]:
    """What stands before most keys and is gone, and the wrappers that stand elsewhere."""
    heads = Counter(key.removesuffix(name) for key, name in bare.items() if key.endswith(name))
    head = heads.most_common(1)[0][0] if heads else ""
    return [part for part in (head, *(w for w in words_in(bare) if w not in head)) if part]


def shared_prefix(shapes: Mapping[str, Shape]) -> str:
    """The first parts of most keys, with their dot, below which a format knows the most keys.

    The shortest ones of several; empty where no format knows more for it.
    """
    best, share = "", 0.0
    for prefix in majority_prefixes(shapes):
        below = {k.removeprefix(prefix): s for k, s in shapes.items() if k.startswith(prefix)}
        part = len(below) / len(shapes)
        if part <= share:
            break  # further ones hold fewer keys still
        known = part * known_share(below)
        if known > share:
            best, share = prefix, known
    return best


def majority_prefixes(keys: Iterable[str]) -> list[str]:
    """The prefixes of more than half of the keys, the empty one first: each begins the next."""
    keys = list(keys)
    least, prefix, found = MOST * len(keys), "", []
    below = keys
    while len(below) > least:
        found.append(prefix)
        rest = (key.removeprefix(prefix) for key in below)
        parts = Counter(name.partition(".")[0] for name in rest if "." in name)
        if not parts:
            break
        prefix += parts.most_common(1)[0][0] + "."
        below = [key for key in below if key.startswith(prefix)]
    return found
