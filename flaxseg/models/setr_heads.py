"""The heads of SETR: enlarge one map of patches step by step, or several of them together.

Zheng et al. 2020, https://arxiv.org/abs/2012.15840, section 3.3. The naive and the progressive
upsampling head are one module; multi-level aggregation is a neck and a head.
"""

from collections.abc import Sequence

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from flaxseg import ops
from flaxseg.models.blocks import ConvBN
from flaxseg.ops import initializers as init

CONV_INITS = {"torch": init.torch_default, "kaiming": init.kaiming_normal_fan_out}
CLASSIFIER_INITS: dict[str, dict[str, init.Initializer]] = {
    "torch": {},
    "kaiming": {"weight_init": init.normal(0.01), "bias_init": init.zeros},
}
"""What `SETRConfig.head_init` may say."""


class UpHead(nnx.Module):
    """Convolutions with norm and ReLU, an interpolation after each, and a classifier."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        *,
        scales: Sequence[int],
        kernel_size: int,
        conv_bias: bool,
        classifier_kernel: int,
        classifier_bias: bool,
        align_corners: bool,
        norm_eps: float | None,
        head_init: str,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Args as in `SETRConfig`; `norm_eps` None: no norm; no scales: the classifier alone."""
        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        self.norm = nnx.data(
            None if norm_eps is None else ops.LayerNorm(in_channels, eps=norm_eps, **dtypes)
        )
        widths = (in_channels, *[channels] * len(scales))
        conv = {"bias": conv_bias, "weight_init": CONV_INITS[head_init], "rngs": rngs, **dtypes}
        self.convs = nnx.List(ConvBN(width, channels, kernel_size, **conv) for width in widths[:-1])
        self.classifier = _classifier(
            widths[-1],
            num_classes,
            classifier_kernel,
            classifier_bias,
            head_init,
            rngs=rngs,
            **dtypes,
        )
        self.scales = tuple(scales)
        self.align_corners = align_corners

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (B, s * H, s * W, K), s the product of the scales, of a map x, (B, H, W, C)."""
        if self.norm is not None:
            x = self.norm(x)
        scale = 1
        for conv, next_scale in zip(self.convs, self.scales, strict=True):
            x = conv(_enlarge(x, scale, self.align_corners))
            scale = next_scale
        return _classify_enlarged(self.classifier, x, scale, self.align_corners)


class MLANeck(nnx.Module):
    """Reduces every level, adds up from the deepest to the shallowest, convolves every sum."""

    def __init__(
        self,
        levels: int,
        in_channels: int,
        channels: int,
        *,
        norm_eps: float,
        deepest_first: bool,
        head_init: str,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        conv = {"weight_init": CONV_INITS[head_init], "rngs": rngs, **dtypes}
        self.norms = nnx.List(
            ops.LayerNorm(in_channels, eps=norm_eps, **dtypes) for _ in range(levels)
        )
        self.projs = nnx.List(ConvBN(in_channels, channels, 1, **conv) for _ in range(levels))
        self.convs = nnx.List(ConvBN(channels, channels, 3, **conv) for _ in range(levels))
        self.deepest_first = deepest_first

    def __call__(self, maps: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        """As many maps, (B, H, W, channels), as come in, (B, H, W, C), the shallowest first."""
        sums: list[jax.Array] = []
        for norm, proj, x in reversed(list(zip(self.norms, self.projs, maps, strict=True))):
            y = proj(norm(x))
            sums.append(sums[-1] + y if sums else y)
        if not self.deepest_first:
            sums.reverse()
        return tuple(conv(x) for conv, x in zip(self.convs, sums, strict=True))


class Branch(nnx.Module):
    """Two 3x3 convolutions with norm and ReLU."""

    def __init__(self, in_channels: int, channels: int, **kwargs):
        self.conv1 = ConvBN(in_channels, channels, 3, **kwargs)
        self.conv2 = ConvBN(channels, channels, 3, **kwargs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x, (B, H, W, C), to (B, H, W, channels)."""
        return self.conv2(self.conv1(x))


class MLAHead(nnx.Module):
    """A branch for every level, all concatenated, enlarged and classified."""

    def __init__(
        self,
        levels: int,
        in_channels: int,
        channels: int,
        num_classes: int,
        *,
        scale: int,
        classifier_kernel: int,
        align_corners: bool,
        head_init: str,
        **kwargs,
    ):
        conv = {"weight_init": CONV_INITS[head_init], **kwargs}
        self.branches = nnx.List(Branch(in_channels, channels, **conv) for _ in range(levels))
        self.classifier = _classifier(
            levels * channels, num_classes, classifier_kernel, True, head_init, **kwargs
        )
        self.scale = scale
        self.align_corners = align_corners

    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        """Logits (B, scale * H, scale * W, K) of maps (B, H, W, C)."""
        # All levels have one size, so they are enlarged as one map, not each by itself.
        parts = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        x = jnp.concatenate(parts, -1)
        return _classify_enlarged(self.classifier, x, self.scale, self.align_corners)


def _classifier(
    in_channels: int, num_classes: int, kernel_size: int, bias: bool, head_init: str, **kwargs
) -> ops.Conv:
    inits = CLASSIFIER_INITS[head_init]
    padding = kernel_size // 2
    return ops.Conv(
        in_channels, num_classes, kernel_size, padding=padding, bias=bias, **inits, **kwargs
    )


def _classify_enlarged(
    classifier: ops.Conv, x: jax.Array, scale: int, align_corners: bool
) -> jax.Array:
    """Logits, float32 or wider, of the map x enlarged."""
    if classifier.kernel_size > 1:
        return _widen(classifier(_enlarge(x, scale, align_corners)))
    # Interpolation weights sum to 1, so a 1x1 convolution may as well come first: it then has
    # 1 / scale^2 of the work, and fewer channels are enlarged.
    return _enlarge(_widen(classifier(x)), scale, align_corners)


def _enlarge(x: jax.Array, scale: int, align_corners: bool) -> jax.Array:
    size = (scale * x.shape[1], scale * x.shape[2])
    return ops.resize_bilinear(x, size, align_corners=align_corners)


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
