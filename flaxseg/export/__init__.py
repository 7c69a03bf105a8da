"""Exported files: a network with its weights as one program that needs no flaxseg to run."""

from flaxseg.export.about import STEPS as STEPS
from flaxseg.export.about import Step as Step
from flaxseg.export.check import Agreement as Agreement
from flaxseg.export.stablehlo import write_stablehlo as write_stablehlo
