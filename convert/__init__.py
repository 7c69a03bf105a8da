"""Carries weights between flaxseg, torch_ref and published checkpoint layouts, both ways.

>>> import convert
>>> model, report = convert.load("segformer.b0.512x512.ade.160k.pth")
>>> convert.save(model, "back.pth", format="nvlabs")

`flaxseg convert` does the same from the command line. `convert.bridge` copies between a Flax
model and its PyTorch twin, `convert.parity` measures that both compute the same.
"""

from convert.formats import FORMATS as FORMATS
from convert.formats import Format as Format
from convert.formats import Imported as Imported
from convert.formats import load_format as load_format
from convert.inplace_abn import plain_weights as plain_weights
from convert.io import read as read
from convert.io import write as write
from convert.load import Loaded as Loaded
from convert.load import load as load
from convert.load import recognise as recognise
from convert.load import save as save
from convert.opened import as_directory as as_directory
from convert.recognise import Recognition as Recognition
from convert.report import Report as Report
from convert.start import start_from as start_from
