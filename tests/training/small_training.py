"""The smallest network that still has every part."""

OVERRIDES = {"backbone.width": 8, "backbone.blocks": (1, 1, 1, 1), "channels": 16}
FLAGS = ("backbone.width=8", "backbone.blocks=1,1,1,1", "channels=16")
