"""What the published layouts of SegFormer share."""

SIZES = ("b0", "b1", "b2", "b3", "b4", "b5")

FREE_FIELDS = frozenset(
    {
        "num_classes",
        "backbone.widths",
        "backbone.depths",
        "backbone.reductions",
        "backbone.mlp_ratio",
        "backbone.drop_path",
        "backbone.conv_init",
        "backbone.linear_init",
        "channels",
        "dropout",
        "dropout_kind",
        "head_init",
        "aux_weights",
        "remat",
    }
)
"""Configuration fields that shapes reveal or that a trained network's output does not depend on."""
