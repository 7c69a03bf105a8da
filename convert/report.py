"""What an import found, used and left out."""

import dataclasses
from collections.abc import Mapping, Sequence

from flaxseg import models
from flaxseg.labels import LabelSet
from flaxseg.model_dir import Tensor
from flaxseg.origin import Chain, licences
from flaxseg.preprocess import Preprocess

SHOWN = 6
"""Keys that are listed one by one; of more only the number is told."""

FEW = 3
"""Class names in one line about a checkpoint."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What an import found, used and left out; `str` makes a short table.

    Attributes:
        source: where the checkpoint lies.
        format: name of its layout.
        origin: whose files these are.
        model_name: registry name of the network.
        config: its configuration.
        labels: names and colours of its classes, numbered ones if the file has none.
        used: how many of its tensors hold values that the network has now.
        left_out: key -> why nothing is lost without it.
        fresh: native keys that the file has not given and that start from random numbers.
        notes: what was resized, derived or could not be told from the file.
        assumed: what no file tells, and what is taken for it.
        dtypes: of the floating-point tensors in the file.
        taken_off: what stood around the state dict and before its keys, from the outside.
        others: further sets of weights in the file, which were not read.
        spares: the tensors left out that `convert.save` writes back, and the weights of norms that
            the network holds as those of other layers.
        keys: those of the file in its order, which `convert.save` keeps; without strangers.
        inplace_abn: its norms are InPlaceABN layers.
        one_output: it has one output, of which the network has made two classes.
        preprocess: normalisation of the images that it was trained on.
        chain: where the weights come from, with their licences.
        temperature: of a model directory that was calibrated.
    """

    source: str
    format: str
    origin: str
    model_name: str
    config: models.Config
    labels: LabelSet
    used: int
    left_out: Mapping[str, str]
    fresh: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    taken_off: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    spares: Mapping[str, Tensor] = dataclasses.field(default_factory=dict, repr=False)
    keys: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    inplace_abn: bool = False
    one_output: bool = False
    preprocess: Preprocess = Preprocess()
    chain: Chain = ()
    temperature: float | None = None

    @property
    def licence(self) -> str:
        """Of the weights, with those of all that they were made from, where known."""
        return "; ".join(licences(self.chain))

    def __str__(self) -> str:
        rows = {
            "source": self.source,
            "format": f"{self.format}: {self.origin}",
            "network": f"{self.model_name}, {self.config.num_classes} classes",
            "classes": _classes(self.labels),
            "images": str(self.preprocess),
            "tensors": f"{self.used} used, {len(self.left_out)} left out",
            "stored as": ", ".join(self.dtypes),
            "licence": self.licence,
            "taken off": " > ".join(self.taken_off),
            "others": self.others and f"{short_list(self.others)}: --weights chooses them",
        }
        lines = [f"{name:<10} {value}" for name, value in rows.items() if value]
        lines += [f"left out   {line}" for line in _grouped(self.left_out)]
        lines += [f"fresh      {line}" for line in _listed(self.fresh)]
        lines += [f"assumed    {line}" for line in self.assumed]
        lines += [f"note       {note}" for note in self.notes]
        return "\n".join(lines)

    def in_one_line(self) -> str:
        """What the network and its images are, and all that was derived or assumed."""
        named = self.labels.classes != LabelSet.generic(self.labels.num_classes).classes
        classes = _classes(self.labels, FEW) if named else "not named by the file"
        rows = {
            "classes": f"{self.labels.num_classes} ({classes})",
            "images": str(self.preprocess),
            "licence": self.licence,
            "other weights": self.others and f"{short_list(self.others)}: --weights chooses them",
            "fresh": "".join(_listed(self.fresh)),
            "assumed": "; ".join(self.assumed),
            "note": "; ".join(self.notes),
        }
        told = [f"{name}: {value}" for name, value in rows.items() if value]
        return "; ".join([f"{self.model_name} as {self.format} stores it", *told])


def _classes(labels: LabelSet, shown: int = SHOWN) -> str:
    names = ", ".join(labels.classes[:shown])
    return names + (", ..." if labels.num_classes > shown else "")


def _grouped(left_out: Mapping[str, str]) -> list[str]:
    """One line for each reason."""
    keys_by_reason: dict[str, list[str]] = {}
    for key, reason in left_out.items():
        keys_by_reason.setdefault(reason, []).append(key)
    return [f"{short_list(keys)}: {reason}" for reason, keys in keys_by_reason.items()]


def _listed(keys: tuple[str, ...]) -> list[str]:
    return [short_list(keys)] if keys else []


def short_list(keys: Sequence[str]) -> str:
    """The keys, or the first one and how many more."""
    return ", ".join(keys) if len(keys) <= SHOWN else f"{keys[0]} and {len(keys) - 1} more"
