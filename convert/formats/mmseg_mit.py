"""mmsegmentation's ImageNet encoders, mit_b0 to mit_b5, converted from the authors'.

The encoder alone, without its classifier.
"""

from convert.changes import Cut, Reshape
from convert.formats.format import Format
from convert.rules import Rule, rename

BLOCK = "backbone.stages.{s}.blocks.{b}."
CONV_1X1 = Reshape(lambda shape: (*shape, 1, 1))
"""A linear layer that is a 1x1 convolution there."""


def _joint(leaf: str) -> Rule:
    """Query, key and value as one tensor, as torch's MultiheadAttention keeps them."""
    native = (f"{BLOCK}attn.q.{leaf}", f"{BLOCK}attn.kv.{leaf}")
    return rename(native, f"layers.{{s}}.1.{{b}}.attn.attn.in_proj_{leaf}", Cut())


ENCODER: tuple[Rule, ...] = (
    rename("backbone.stages.{s}.patch_embed.proj.*", "layers.{s}.0.projection.*"),
    rename("backbone.stages.{s}.patch_embed.norm.*", "layers.{s}.0.norm.*"),
    rename(BLOCK + "norm1.*", "layers.{s}.1.{b}.norm1.*"),
    _joint("weight"),
    _joint("bias"),
    rename(BLOCK + "attn.proj.*", "layers.{s}.1.{b}.attn.attn.out_proj.*"),
    rename(BLOCK + "attn.sr.*", "layers.{s}.1.{b}.attn.sr.*"),
    rename(BLOCK + "attn.norm.*", "layers.{s}.1.{b}.attn.norm.*"),
    rename(BLOCK + "norm2.*", "layers.{s}.1.{b}.norm2.*"),
    rename(BLOCK + "mlp.fc1.weight", "layers.{s}.1.{b}.ffn.layers.0.weight", CONV_1X1),
    rename(BLOCK + "mlp.fc1.bias", "layers.{s}.1.{b}.ffn.layers.0.bias"),
    rename(BLOCK + "mlp.dwconv.*", "layers.{s}.1.{b}.ffn.layers.1.*"),
    rename(BLOCK + "mlp.fc2.weight", "layers.{s}.1.{b}.ffn.layers.4.weight", CONV_1X1),
    rename(BLOCK + "mlp.fc2.bias", "layers.{s}.1.{b}.ffn.layers.4.bias"),
    rename("backbone.stages.{s}.norm.*", "layers.{s}.2.*"),
)

FORMAT = Format(
    name="mmseg",
    architecture="mit",
    origin="mmsegmentation's mit_b0 to mit_b5, the encoder alone",
    licence="Apache-2.0",
    rules=ENCODER,
    scope="backbone.",
)
