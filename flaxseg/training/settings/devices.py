"""What the run is spread over."""

import dataclasses
from typing import ClassVar

from flaxseg.training.settings.limits import Limit, at_least


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """What the run is spread over."""

    devices: int | None = None
    """How many devices share the batch. None: all there are."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "devices": at_least(1),
    }
    FREE: ClassVar[frozenset[str]] = frozenset({"devices"})
