"""Finds the sets of tensors in what a checkpoint file holds, and chooses one.

Training scripts keep weights under any name, beside averages of them, optimisers and settings. A
set of tensors is a mapping from names to tensors, wherever it stands among nested mappings and
lists; what stands inside objects is not looked at, for only their own code knows what it means.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from convert.pickles import Inert
from convert.torch_files import axes, is_tensor
from flaxseg.errors import CheckpointError

DEEPEST = 12
SHOWN = 10
TOP = "."
"""The name of a set that the file holds without anything around it."""

AVERAGED = frozenset(
    "ema avg swa teacher shadow target momentum polyak average averaged averages averaging".split()
)
"""Words in the name of a set that is no plain one: an average of the weights, or their teacher."""

OPTIMIZERS = frozenset("optimizer optimizers optimiser optimisers optim".split())
OTHERS = OPTIMIZERS | frozenset(
    "scheduler schedulers scaler criterion loss losses grads gradients rng".split()
)
"""Words in the name of what is no network."""

MOMENTS = frozenset("exp_avg exp_avg_sq exp_inf momentum_buffer square_avg".split())
"""What optimisers keep for each tensor."""

OPTIMIZER = "param_groups"
"""An entry of every optimiser's state."""

CONTAINERS = (dict, list, tuple)


class TensorSet(NamedTuple):
    """A mapping from names to tensors.

    Attributes:
        path: the entries on the way to it.
        tensors: of the mapping, in its order; what else it holds is left out.
        around: the mappings on the way, from the outside.
    """

    path: tuple[str, ...]
    tensors: dict[str, Inert]
    around: tuple[Mapping[Any, Any], ...]

    @property
    def name(self) -> str:
        """The path as one word."""
        return ".".join(map(_printable, self.path)) or TOP

    @property
    def meta(self) -> dict[str, Any]:
        """What mmsegmentation has noted on the way, such as class names."""
        notes = [as_mapping(mapping.get("meta")) or {} for mapping in self.around]
        entries = [item for note in notes for item in note.items()]
        return {key: as_mapping(v) or v for key, v in entries if isinstance(key, str)}

    def is_plain(self) -> bool:
        """Whether its name tells of no average."""
        return not any(AVERAGED & _words(part) for part in self.path)


class Found(NamedTuple):
    """What was chosen.

    Attributes:
        chosen: the set of the network.
        others: names of the sets that `weights` chooses instead.
    """

    chosen: TensorSet
    others: tuple[str, ...]


def choose(path: Path, content: Any, weights: str | None = None) -> Found:
    """The set of tensors in a file that is the network's.

    Args:
        path: of the file.
        content: of `convert.pickles`.
        weights: name of the set; if None, it must be the only one that is no average of another.

    Raises:
        CheckpointError: there is none, or several, all of them named.
    """
    sets = find(content)
    if not sets:
        raise _without_tensors(path, content)
    if weights is not None:
        wanted = [found for found in sets if found.name == weights]
        problem = f"no set of tensors {weights!r}, but"
    else:
        wanted = [found for found in sets if found.is_plain()] or sets
        problem = "several sets of tensors"
    if len({id(found.tensors) for found in wanted}) == 1:
        others = dict.fromkeys(found.name for found in sets if found is not wanted[0])
        return Found(wanted[0], tuple(others))
    listed = [f"{found.name} ({len(found.tensors)} tensors)" for found in sets]
    more = [f"{len(listed) - SHOWN} more"] if len(listed) > SHOWN else []
    raise CheckpointError(
        f"{path} holds {problem} {', '.join(listed[:SHOWN] + more)}: flaxseg convert import "
        "--weights NAME (in Python weights=) takes one that is a whole network"
    )


def find(content: Any) -> list[TensorSet]:
    """Every set of tensors that may be a network's, the least nested first.

    One mapping under two names comes twice, with the same `tensors`.
    """
    tensors_of: dict[int, dict[str, Inert]] = {}
    found: list[TensorSet] = []
    below: dict[tuple[str, ...], int] = {}  # path -> most tensors in a set somewhere under it
    for path, mapping, around in _mappings(content):
        if id(mapping) not in tensors_of:
            tensors_of[id(mapping)] = _tensors(mapping)
        if tensors := tensors_of[id(mapping)]:
            found += _copies(TensorSet(path, tensors, around))
            for end in range(len(path)):
                below[path[:end]] = max(below.get(path[:end], 0), len(tensors))
    # Tensors that stand loose beside a set, such as a score, are none.
    found = [one for one in found if 2 * len(one.tensors) > below.get(one.path, 0)]
    # Scores, class weights and the like come as sets of a few vectors.
    matrices = {id(one.tensors) for one in found if max(map(axes, one.tensors.values())) > 1}
    return [one for one in found if id(one.tensors) in matrices] or found


def _copies(whole: TensorSet) -> list[TensorSet]:
    """The networks that a state dict holds side by side: `net.` and its average `net_ema.`.

    They are told by the same keys below two first parts, one of which tells of an average. What
    else the state dict holds stays with each. A state dict of one network is that alone.
    """
    below: dict[str, dict[str, Inert]] = {}
    for key, value in whole.tensors.items():
        part, dot, rest = key.partition(".")
        if dot:
            below.setdefault(part, {})[rest] = value
    largest = max(below.values(), key=len, default={})
    parts = [part for part, tensors in below.items() if tensors.keys() == largest.keys()]
    if len(parts) < 2 or not any(AVERAGED & _words(part) for part in parts):
        return [whole]
    loose = {k: v for k, v in whole.tensors.items() if k.partition(".")[0] not in parts}
    return [
        TensorSet((*whole.path, part), {**below[part], **loose}, whole.around) for part in parts
    ]


def _tensors(mapping: Mapping[Any, Any]) -> dict[str, Inert]:
    """The tensors of a mapping, none if it is not a network's."""
    tensors = {key: value for key, value in mapping.items() if is_tensor(value)}
    named = all(isinstance(key, str) for key in tensors)
    return tensors if named and not MOMENTS & tensors.keys() else {}


def _mappings(
    content: Any,
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any], tuple[Mapping[Any, Any], ...]]]:
    """Every mapping that may lead to weights, with its path and the mappings on the way.

    Each is looked into once, so that structures that contain themselves, or one part a thousand
    times, cost no more than others.
    """
    waiting: deque[tuple[tuple[str, ...], Any, tuple[Mapping[Any, Any], ...]]] = deque()
    waiting.append(((), content, ()))
    seen: dict[int, Mapping[Any, Any] | None] = {}
    while waiting:
        path, value, around = waiting.popleft()
        value = _within(value)
        if not isinstance(value, CONTAINERS):
            continue
        known = id(value) in seen
        mapping = seen.setdefault(id(value), None if known else as_mapping(value))
        if mapping is not None:
            yield path, mapping, around
        if known or len(path) >= DEEPEST or (mapping and OPTIMIZER in mapping):
            continue
        entries = enumerate(value) if mapping is None else mapping.items()
        around = around if mapping is None else (*around, mapping)
        for key, child in entries:
            name = key if mapping is not None else str(key)
            leads_on = isinstance(_within(child), CONTAINERS) and not is_tensor(child)
            if leads_on and isinstance(name, str) and not OTHERS & _words(name):
                waiting.append(((*path, name), child, around))


def as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """The entries of a mapping of any class, such as an OrderedDict; None for other values."""
    value = _within(value)
    if isinstance(value, dict):
        return None if is_tensor(value) else value
    # What Python 2 makes an OrderedDict from.
    pairs = isinstance(value, list) and value and all(map(_is_named, value))
    return dict(value) if pairs else None


def _is_named(pair: Any) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)


def _within(value: Any) -> Any:
    """What a mapping of a class of its own was made from, where it was made from one value."""
    for _ in range(DEEPEST):
        bare = isinstance(value, Inert) and not value and len(value.args) == 1
        if not bare or not isinstance(value.args[0], CONTAINERS) or is_tensor(value):
            break
        value = value.args[0]
    return value


def _without_tensors(path: Path, content: Any) -> CheckpointError:
    """What to tell of a file without a set of tensors."""
    owner = _object_with_tensors(content)
    if owner is not None:
        return CheckpointError(
            f"{path} holds a pickled {_printable(owner.kind)}, whose tensors cannot be read "
            "without running code of its class: where you trust it, load it once with its own "
            "program and save model.state_dict()"
        )
    mapping = as_mapping(content)
    if mapping is None:
        kind = type(content).__name__ if not isinstance(content, Inert) else content.kind
        return CheckpointError(f"{path} holds a {_printable(kind)}, expected a state dict")
    keys = [_printable(key) for key in mapping if isinstance(key, str)]
    if any(word in _words(key) for key in keys for word in OPTIMIZERS) or OPTIMIZER in mapping:
        return CheckpointError(
            f"{path} holds the state of an optimiser and no weights: give the file of the model"
        )
    listed = f"entries that are no tensors: {', '.join(keys[:5])}" if keys else "no tensors"
    return CheckpointError(f"{path} holds {listed}; expected a state dict, alone or in an entry")


def _object_with_tensors(content: Any) -> Inert | None:
    """The outermost object that keeps tensors to itself, such as a pickled module."""
    waiting: deque[tuple[Any, Inert | None]] = deque([(content, None)])
    seen = set()
    while waiting:
        value, owner = waiting.popleft()
        if is_tensor(value):
            if owner is not None:
                return owner
        elif isinstance(value, CONTAINERS) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Inert):
                hidden = (value.state, value.args, value.elements)
                waiting.extend((part, value if owner is None else owner) for part in hidden)
            inner = value.values() if isinstance(value, dict) else value
            waiting.extend((v, owner) for v in inner if isinstance(v, CONTAINERS))
    return None


def _words(name: str) -> set[str]:
    """`modelEMA_state` -> model, ema, state."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
