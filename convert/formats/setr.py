"""What the published layouts of SETR share."""

FREE_FIELDS = frozenset(
    {
        "num_classes",
        "backbone.image_size",
        "backbone.patch_size",
        "backbone.width",
        "backbone.depth",
        "backbone.out_indices",
        "backbone.mlp_dim",
        "backbone.embed_dropout",
        "backbone.dropout",
        "backbone.attn_dropout",
        "backbone.init",
        "channels",
        "level_channels",
        "aux_weights",
        "head_init",
        "remat",
    }
)
"""Configuration fields that shapes reveal or that a trained network's output does not depend on.

Which blocks the heads read goes with the depth. The number of attention heads is not free: any
fits the shapes, and each is another function."""
