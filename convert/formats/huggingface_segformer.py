"""Hugging Face's SegformerForSemanticSegmentation, https://github.com/huggingface/transformers.

The names of transformers 4 and of all files, whatever version wrote them.
"""

from convert.formats.format import Format
from convert.formats.huggingface_mit import ENCODER
from convert.formats.segformer import FREE_FIELDS, SIZES
from convert.rules import rename

FUSE_AND_CLASSIFY = (
    rename("head.fuse.conv.weight", "decode_head.linear_fuse.weight"),
    rename("head.fuse.bn.*", "decode_head.batch_norm.*"),
    rename("head.classifier.*", "decode_head.classifier.*"),
)

RULES = (
    *ENCODER,
    rename("head.linears.{i}.*", "decode_head.linear_c.{i}.proj.*"),
    *FUSE_AND_CLASSIFY,
)

FORMAT = Format(
    name="huggingface",
    architecture="segformer",
    origin="Hugging Face's nvidia/segformer-b0 to b5",
    licence="NVIDIA's: non-commercial use only, for nvidia/* weights",
    non_commercial=True,
    rules=RULES,
    variants=tuple(f"segformer_{size}_hf" for size in SIZES),
    free=FREE_FIELDS | {"backbone.heads"},  # which config.json tells
)
