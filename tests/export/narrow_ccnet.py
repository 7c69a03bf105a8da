"""The network that the tests of exports share."""

TINY = {
    "backbone.blocks": (1, 1),
    "backbone.strides": (1, 2),
    "backbone.dilations": (1, 1),
    "backbone.first_dilations": (1, 1),
    "backbone.width": 4,
    "channels": 8,
}
"""A CCNet of two stages, which keeps its stride of 8."""
