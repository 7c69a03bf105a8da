"""Layers and arithmetic under the models: torch's exact semantics in forms that XLA runs fast."""

from flaxseg.ops.activation import gelu as gelu
from flaxseg.ops.attention import attention as attention
from flaxseg.ops.canvas import on_canvas as on_canvas
from flaxseg.ops.conv import Conv as Conv
from flaxseg.ops.conv import Linear as Linear
from flaxseg.ops.criss_cross import criss_cross_attention as criss_cross_attention
from flaxseg.ops.dropout import Dropout as Dropout
from flaxseg.ops.dropout import Dropout2d as Dropout2d
from flaxseg.ops.dropout import DropPath as DropPath
from flaxseg.ops.enlarged import enlarged_argmax as enlarged_argmax
from flaxseg.ops.norm import BatchNorm as BatchNorm
from flaxseg.ops.norm import LayerNorm as LayerNorm
from flaxseg.ops.pooling import avg_pool as avg_pool
from flaxseg.ops.pooling import max_pool as max_pool
from flaxseg.ops.pooling import spatial_mean as spatial_mean
from flaxseg.ops.precision import EXACT as EXACT
from flaxseg.ops.precision import Precision as Precision
from flaxseg.ops.precision import in_own_precision as in_own_precision
from flaxseg.ops.precision import rounding as rounding
from flaxseg.ops.recompute import recomputed as recomputed
from flaxseg.ops.resize import interpolated as interpolated
from flaxseg.ops.resize import resize_bilinear as resize_bilinear
from flaxseg.ops.resize import resize_nearest as resize_nearest
