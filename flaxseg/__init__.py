"""Semantic segmentation in JAX: networks in Flax NNX, proven equal to their PyTorch references.

>>> import flaxseg
>>> from flax import nnx
>>> model = flaxseg.create_model("ccnet", num_classes=11, rngs=nnx.Rngs(0))
"""

import importlib
from typing import TYPE_CHECKING, Any

from flaxseg.errors import CheckpointError as CheckpointError
from flaxseg.errors import ConfigError as ConfigError
from flaxseg.errors import DataError as DataError
from flaxseg.errors import FlaxsegError as FlaxsegError
from flaxseg.errors import TrainingError as TrainingError
from flaxseg.labels import LabelSet as LabelSet

if TYPE_CHECKING:
    from flaxseg.models import Output as Output
    from flaxseg.models import create_model as create_model
    from flaxseg.models import eval_view as eval_view
    from flaxseg.models import fold as fold
    from flaxseg.models import get_config as get_config
    from flaxseg.models import list_models as list_models
    from flaxseg.models import train_view as train_view
    from flaxseg.native import load as load
    from flaxseg.native import save as save
    from flaxseg.preprocess import Preprocess as Preprocess

__version__ = "0.1.0"

_PLACES = {
    "models": "Output create_model eval_view fold get_config list_models train_view".split(),
    "native": ["load", "save"],
    "preprocess": ["Preprocess"],
}
"""Modules that need JAX, with what they give: the command line is there before, and without it."""


def __getattr__(name: str) -> Any:
    for place, names in _PLACES.items():
        if name == place or name in names:
            module = importlib.import_module(f"{__name__}.{place}")
            return module if name == place else getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES, *sum(_PLACES.values(), [])})
