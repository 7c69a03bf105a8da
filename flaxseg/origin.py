"""Where weights come from: every checkpoint and training on their way, with the licences."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from flaxseg.errors import CheckpointError

NON_COMMERCIAL = "non-commercial use only"

_SHOWN_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Origin:
    """One step on the way of weights: a checkpoint that was read, or a training.

    What does not apply is empty.

    Attributes:
        source: the checkpoint: name of its file or folder, or hf:owner/name[@revision].
        files: name -> SHA-256 of each of its files, in hexadecimal.
        layout: name of the format that it was stored in.
        licence: of the weights, in words.
        non_commercial: the licence forbids commercial use.
        data: name of the data set that the weights were trained on.
        fingerprint: of its training pictures, see `flaxseg.data.content_fingerprint`.
        recipe: of the training.
        scores: of the validation pictures, shares of 1.
        more: what a later release has written, kept as it is.
    """

    source: str = ""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    layout: str = ""
    licence: str = ""
    non_commercial: bool = False
    data: str = ""
    fingerprint: str = ""
    recipe: str = ""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        trained = f"trained on {self.data}" if self.data else ""
        told = [
            self.source + (f" as {self.layout} stores it" if self.layout else ""),
            trained + (f" by recipe {self.recipe}" if self.recipe else ""),
            self.licence,
            NON_COMMERCIAL if self.non_commercial and "commercial" not in self.licence else "",
            *(f"{name} SHA-256 {digest[:_SHOWN_DIGITS]}…" for name, digest in self.files.items()),
            f"data {self.fingerprint[:_SHOWN_DIGITS]}…" if self.fingerprint else "",
            scores,
        ]
        return "; ".join(part for part in told if part)

    def to_json(self) -> dict[str, Any]:
        """What is known, as plain JSON values."""
        values = {field: getattr(self, field) for field in _TYPES}
        plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items() if v}
        return plain | dict(self.more)

    @classmethod
    def from_json(cls, values: Any) -> "Origin":
        """Rebuilds what `to_json` gave.

        Raises:
            CheckpointError: a value of another type.
        """
        if not isinstance(values, dict):
            raise CheckpointError(f"a step of 'origin' is {values!r}, it must be a JSON object")
        known = {name: value for name, value in values.items() if name in _TYPES}
        for name, value in known.items():
            if not _fits(name, value):
                wanted = _WORDS.get(name) or _WORDS[_TYPES[name]]
                raise CheckpointError(f"{name} in 'origin' is {value!r}, it must be {wanted}")
        return cls(**known, more={k: v for k, v in values.items() if k not in known})


_INNER: dict[str, Any] = {"files": str, "scores": int | float}
_WORDS = {
    str: "text",
    bool: "true or false",
    "files": "a JSON object of texts",
    "scores": "a JSON object of numbers",
}
_TYPES: dict[str, type] = {
    **dict.fromkeys(("source", "layout", "licence", "data", "fingerprint", "recipe"), str),
    "non_commercial": bool,
    **dict.fromkeys(_INNER, dict),
}


def _fits(name: str, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else ()
    return isinstance(value, _TYPES[name]) and all(isinstance(v, _INNER[name]) for v in inner)


Chain = tuple[Origin, ...]
"""All steps, the oldest first; whoever changes the weights adds one and drops none."""


def chain_from_json(values: Any) -> Chain:
    """The steps of a JSON list.

    Raises:
        CheckpointError: it is none, or a step is damaged.
    """
    if not isinstance(values, list):
        raise CheckpointError(f"'origin' is {values!r}, it must be a list of steps")
    return tuple(Origin.from_json(step) for step in values)


def chain_to_json(chain: Chain) -> list[dict[str, Any]]:
    """The steps as plain JSON values."""
    return [step.to_json() for step in chain]


def licences(chain: Iterable[Origin]) -> tuple[str, ...]:
    """Every licence on the way once, in words."""
    told = (step.licence or (NON_COMMERCIAL if step.non_commercial else "") for step in chain)
    return tuple(dict.fromkeys(words for words in told if words))
