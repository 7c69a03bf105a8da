"""mmsegmentation's ImageNet encoders with a stem of three 3x3 convolutions, resnet50_v1c and more.

The encoder alone. Dilation changes no shape, so the files fit every encoder with such a stem.
"""

from convert.formats.format import Format
from convert.formats.torchvision_resnet import CLASSIFIER, STAGES
from convert.rules import Rule, rename

ENCODER: tuple[Rule, ...] = (
    rename("backbone.stem.{i}.conv.weight", "stem.{3*i}.weight"),
    rename("backbone.stem.{i}.bn.*", "stem.{3*i+1}.*"),
    *STAGES,
)
"""Shared by the networks that hold this encoder."""

FORMAT = Format(
    name="mmseg",
    architecture="resnet",
    origin="mmsegmentation's resnet50_v1c and resnet101_v1c, the encoder alone",
    licence="Apache-2.0",
    rules=(*ENCODER, *CLASSIFIER),
    scope="backbone.",
)
