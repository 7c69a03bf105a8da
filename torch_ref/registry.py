"""Networks by name or configuration."""

from collections.abc import Callable
from typing import Any

from flaxseg.models import (
    BiSeNetV2Config,
    CCNetConfig,
    Config,
    SegFormerConfig,
    SETRConfig,
    ViTSegConfig,
    get_config,
    override,
)
from torch_ref.bisenetv2 import BiSeNetV2
from torch_ref.ccnet import CCNet
from torch_ref.segformer import SegFormer
from torch_ref.setr import SETR
from torch_ref.vitseg import ViTSeg

Network = BiSeNetV2 | CCNet | SegFormer | SETR | ViTSeg
"""Any network of this package."""

NETWORKS: dict[type[Config], Callable[..., Network]] = {
    BiSeNetV2Config: BiSeNetV2,
    CCNetConfig: CCNet,
    SegFormerConfig: SegFormer,
    SETRConfig: SETR,
    ViTSegConfig: ViTSeg,
}
"""The network that each configuration class describes."""


def create_model(
    name_or_config: str | Config, num_classes: int | None = None, **overrides: Any
) -> Network:
    """Builds a freshly initialised network in train mode, float32.

    Args:
        name_or_config: one of `flaxseg.list_models()`, or a configuration.
        num_classes: classes to tell apart; the configuration's number if None.
        **overrides: configuration fields; dotted names such as "backbone.width" reach nested ones.

    Raises:
        ConfigError: unknown name or field.
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if isinstance(name_or_config, str):
        config = get_config(name_or_config, **overrides)
    else:
        config = override(name_or_config, overrides)
    return NETWORKS[type(config)](config)
