"""The SegFormer authors' networks: https://github.com/NVlabs/SegFormer."""

from convert.formats.format import Format
from convert.formats.nvlabs_mit import ENCODER
from convert.formats.segformer import FREE_FIELDS, SIZES
from convert.rules import Extra, rename, under

FUSE_AND_PREDICT = (
    rename("head.fuse.conv.weight", "decode_head.linear_fuse.conv.weight"),
    rename("head.fuse.bn.*", "decode_head.linear_fuse.bn.*"),
    rename("head.classifier.*", "decode_head.linear_pred.*"),
)

# Its base class makes a classifier that the head replaces, for 128 channels whatever the width.
UNUSED = "a classifier of the base class, which the network never applies"

RULES = (
    *under("backbone.", ENCODER),
    Extra(
        "decode_head.conv_seg.weight",
        UNUSED,
        lambda leaves: (*leaves["head.classifier.bias"], 128, 1, 1),
    ),
    Extra("decode_head.conv_seg.bias", UNUSED, lambda leaves: leaves["head.classifier.bias"]),
    # The deepest level is declared first.
    *(
        rename(f"head.linears.{level}.*", f"decode_head.linear_c{level + 1}.proj.*")
        for level in (3, 2, 1, 0)
    ),
    *FUSE_AND_PREDICT,
)

FORMAT = Format(
    name="nvlabs",
    architecture="segformer",
    origin="the SegFormer authors' segformer.b0 to b5",
    licence="NVIDIA Source Code License: non-commercial use only",
    non_commercial=True,
    rules=RULES,
    variants=tuple(f"segformer_{size}" for size in SIZES),
    free=FREE_FIELDS,
    wrapper="state_dict",
)
