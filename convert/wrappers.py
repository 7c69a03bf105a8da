"""What wrapping a module, or a part of it, in PyTorch leaves in the keys of its tensors."""

from collections.abc import Iterable

from flaxseg.errors import CheckpointError

WORDS = frozenset(
    {
        "module",  # DataParallel, DistributedDataParallel, AveragedModel
        "_orig_mod",  # torch.compile
        "_fsdp_wrapped_module",
        "_fpw_module",  # FairScale's FSDP
        "_checkpoint_wrapped_module",
        "_forward_module",  # Lightning Fabric
    }
)
"""Parts of keys that name a wrapper. None of the known formats has one of them."""


def without_words(keys: Iterable[str]) -> dict[str, str]:
    """Key -> the same without the names of wrappers, wherever they stand before its last part.

    Raises:
        CheckpointError: two keys become one.
    """
    return distinct({key: _without(key) for key in keys})


def distinct(names: dict[str, str]) -> dict[str, str]:
    """The new names of keys, which must differ.

    Raises:
        CheckpointError: two keys become one.
    """
    owners: dict[str, str] = {}
    for key, name in names.items():
        if name in owners:
            raise CheckpointError(
                f"{owners[name]} and {key} are both {name} once wrappers are taken off: save the "
                "state dict of one network alone"
            )
        owners[name] = key
    return names


def words_in(keys: Iterable[str]) -> tuple[str, ...]:
    """The names of wrappers that stand in keys, as they come, each with its dot."""
    found = (part for key in keys for part in key.split(".")[:-1] if part in WORDS)
    return tuple(f"{word}." for word in dict.fromkeys(found))


def _without(key: str) -> str:
    *path, last = key.split(".")
    return ".".join([*(part for part in path if part not in WORDS), last])
