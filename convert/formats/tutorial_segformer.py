"""The SegFormer tutorial, B0 to B5: the authors' names without the classifier they never apply."""

from convert.formats.format import Format
from convert.formats.nvlabs_mit import ENCODER
from convert.formats.nvlabs_segformer import FUSE_AND_PREDICT
from convert.formats.segformer import FREE_FIELDS
from convert.rules import rename, under

RULES = (
    *under("backbone.", ENCODER),
    rename("head.linears.{i}.*", "decode_head.linear_c{i+1}.proj.*"),
    *FUSE_AND_PREDICT,
)

FORMAT = Format(
    name="tutorial",
    architecture="segformer",
    origin="SegFormer tutorial, state dict of the bare network",
    rules=RULES,
    variants=("segformer",),
    free=FREE_FIELDS,
)
