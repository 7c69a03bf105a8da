"""What the published layouts of BiSeNetV2 share."""

from convert.rules import Rule, rename

FREE_FIELDS = frozenset(
    {
        "num_classes",
        "backbone.detail_channels",
        "backbone.detail_layers",
        "backbone.semantic_channels",
        "backbone.semantic_layers",
        "backbone.expansion",
        "backbone.conv_init",
        "backbone.zero_init_residual",
        "head_channels",
        "aux_channels",
        "dropout",
        "dropout_kind",
        "classifier_init",
        "aux_weights",
        "remat",
    }
)
"""Configuration fields that shapes reveal or that a trained network's output does not depend on."""

SEMANTIC = "backbone.semantic."
AGGREGATION = "backbone.aggregation."


def conv_bn(native: str, conv: str, bn: str | None = None) -> tuple[Rule, Rule]:
    """A convolution and its norm.

    Args:
        native: the module that holds both.
        conv: the peer's convolution; the module that holds both if `bn` is None.
        bn: the peer's norm.
    """
    if bn is None:
        conv, bn = f"{conv}.conv", f"{conv}.bn"
    return rename(f"{native}.conv.*", f"{conv}.*"), rename(f"{native}.bn.*", f"{bn}.*")


def in_sequence(native: str, foreign: str, index: int = 0) -> tuple[Rule, ...]:
    """A convolution and its norm at neighbouring places of a sequence."""
    return conv_bn(native, f"{foreign}.{index}", f"{foreign}.{index + 1}")
