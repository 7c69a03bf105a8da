"""Segmentation networks in Flax NNX, and the registry that builds them by name."""

from flaxseg.models.blocks import Output as Output
from flaxseg.models.blocks import eval_view as eval_view
from flaxseg.models.blocks import train_view as train_view
from flaxseg.models.ccnet import CCNet as CCNet
from flaxseg.models.ccnet import CCNetConfig as CCNetConfig
from flaxseg.models.registry import Config as Config
from flaxseg.models.registry import Model as Model
from flaxseg.models.registry import abstract_model as abstract_model
from flaxseg.models.registry import build as build
from flaxseg.models.registry import config_from_json as config_from_json
from flaxseg.models.registry import config_to_json as config_to_json
from flaxseg.models.registry import create_model as create_model
from flaxseg.models.registry import get_config as get_config
from flaxseg.models.registry import list_models as list_models
from flaxseg.models.registry import name_of as name_of
from flaxseg.models.registry import override as override
from flaxseg.models.resnet import ResNet as ResNet
from flaxseg.models.resnet import ResNetConfig as ResNetConfig
