"""torchvision's ResNets: https://github.com/pytorch/vision, models/resnet.py.

The encoder alone. Dilation changes no shape, so the files fit every encoder with a 7x7 stem.
"""

from convert.formats.format import Format
from convert.rules import Extra, Rule, rename

STAGES = (
    rename("backbone.stages.{s}.blocks.{b}.conv{i}.weight", "layer{s+1}.{b}.conv{i}.weight"),
    rename("backbone.stages.{s}.blocks.{b}.bn{i}.*", "layer{s+1}.{b}.bn{i}.*"),
    rename(
        "backbone.stages.{s}.blocks.{b}.downsample.conv.weight",
        "layer{s+1}.{b}.downsample.0.weight",
    ),
    rename("backbone.stages.{s}.blocks.{b}.downsample.bn.*", "layer{s+1}.{b}.downsample.1.*"),
)
"""Shared by all peers whose encoder descends from this one."""

CLASSIFIER: tuple[Extra, ...] = (
    Extra(
        "fc.weight",
        "classifies ImageNet",
        lambda leaves: (1000, *leaves["backbone.stages.3.blocks.0.bn3.weight"]),
    ),
    Extra("fc.bias", "classifies ImageNet", lambda leaves: (1000,)),
)
"""What stands behind the encoder in such files."""

ENCODER: tuple[Rule | Extra, ...] = (
    rename("backbone.stem.0.conv.weight", "conv1.weight"),
    rename("backbone.stem.0.bn.*", "bn1.*"),
    *STAGES,
    *CLASSIFIER,
)

FORMAT = Format(
    name="torchvision",
    architecture="resnet",
    origin="torchvision's ResNet-50 and -101, and timm's of the same names, the encoder alone",
    licence="BSD-3-Clause",
    rules=ENCODER,
    scope="backbone.",
)
