"""Hugging Face's SegformerForSemanticSegmentation as transformers 5 names it in memory.

`save_pretrained` writes the names of transformers 4; a state dict of the live model has these.
"""

from convert.changes import Cut
from convert.formats.format import Format
from convert.formats.huggingface_segformer import FUSE_AND_CLASSIFY
from convert.formats.segformer import FREE_FIELDS, SIZES
from convert.rules import rename

EMBED, BLOCK = "backbone.stages.{s}.patch_embed.", "backbone.stages.{s}.blocks.{b}."
THEIR_EMBED = "segformer.stages.{s}.patch_embeddings."
THEIR_BLOCK = "segformer.stages.{s}.blocks.{b}."
ATTENTION = THEIR_BLOCK + "attention."
REDUCTION = ATTENTION + "sequence_reduction."

RULES = (
    rename(EMBED + "proj.*", THEIR_EMBED + "proj.*"),
    rename(EMBED + "norm.*", THEIR_EMBED + "layer_norm.*"),
    rename(BLOCK + "norm1.*", THEIR_BLOCK + "layernorm_before.*"),
    rename(BLOCK + "attn.q.*", ATTENTION + "q_proj.*"),
    rename(BLOCK + "attn.kv.*", (ATTENTION + "k_proj.*", ATTENTION + "v_proj.*"), Cut()),
    rename(BLOCK + "attn.proj.*", ATTENTION + "o_proj.*"),
    rename(BLOCK + "attn.sr.*", REDUCTION + "sequence_reduction.*"),
    rename(BLOCK + "attn.norm.*", REDUCTION + "layer_norm.*"),
    rename(BLOCK + "norm2.*", THEIR_BLOCK + "layernorm_after.*"),
    rename(BLOCK + "mlp.fc1.*", THEIR_BLOCK + "mlp.fc1.*"),
    rename(BLOCK + "mlp.dwconv.*", THEIR_BLOCK + "mlp.dwconv.dwconv.*"),
    rename(BLOCK + "mlp.fc2.*", THEIR_BLOCK + "mlp.fc2.*"),
    rename("backbone.stages.{s}.norm.*", "segformer.stages.{s}.layer_norm.*"),
    rename("head.linears.{i}.*", "decode_head.linear_projections.{i}.proj.*"),
    *FUSE_AND_CLASSIFY,
)

FORMAT = Format(
    name="huggingface5",
    architecture="segformer",
    origin="Hugging Face's SegFormer in the memory of transformers 5",
    licence="NVIDIA's: non-commercial use only, for nvidia/* weights",
    non_commercial=True,
    rules=RULES,
    variants=tuple(f"segformer_{size}_hf" for size in SIZES),
    free=FREE_FIELDS | {"backbone.heads"},  # which config.json tells
)
