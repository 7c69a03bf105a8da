"""Carries weights between flaxseg, torch_ref and published checkpoint layouts, both ways.

>>> import convert
>>> tutorial = convert.load_format("tutorial", "ccnet")
>>> imported = tutorial.import_state(convert.read("ccnet.pth"), model)
>>> convert.write("back.pth", tutorial.export_state(model, imported.spares))

`convert.bridge` copies between a Flax model and its PyTorch twin, `convert.parity` measures that
both compute the same.
"""

from convert.formats import FORMATS as FORMATS
from convert.formats import Format as Format
from convert.formats import Imported as Imported
from convert.formats import load_format as load_format
from convert.inplace_abn import plain_weights as plain_weights
from convert.io import read as read
from convert.io import write as write
