"""What the published layouts of CCNet share."""

FREE_FIELDS = frozenset(
    {
        "num_classes",
        "backbone.blocks",
        "backbone.width",
        "backbone.stem_channels",
        "backbone.conv_init",
        "backbone.zero_init_residual",
        "channels",
        "reduction",
        "dropout",
        "aux_channels",
        "aux_weights",
        "head_init",
        "remat",
    }
)
"""Configuration fields that shapes reveal or that a trained network's output does not depend on."""
