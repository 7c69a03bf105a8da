"""Semantic segmentation in JAX: networks in Flax NNX, proven equal to their PyTorch references.

>>> import flaxseg
>>> from flax import nnx
>>> model = flaxseg.create_model("ccnet", num_classes=11, rngs=nnx.Rngs(0))
"""

from flaxseg.errors import CheckpointError as CheckpointError
from flaxseg.errors import ConfigError as ConfigError
from flaxseg.errors import DataError as DataError
from flaxseg.errors import FlaxsegError as FlaxsegError
from flaxseg.errors import TrainingError as TrainingError
from flaxseg.labels import LabelSet as LabelSet
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
