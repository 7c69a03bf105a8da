"""What a recipe is."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings for one network and one data set.

    Attributes:
        source: who published them, or what they were derived from.
        fields: fields of `TrainConfig`.
        start: what `--init` names in that source; None where training starts from random numbers.
    """

    source: str
    fields: dict[str, Any]
    start: str | None = None

    def but(self, source: str, **fields: Any) -> "Recipe":
        """The recipe with some fields replaced."""
        return dataclasses.replace(self, source=source, fields=self.fields | fields)
