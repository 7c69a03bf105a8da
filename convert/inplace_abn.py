"""Weights of InPlaceABN layers as those of a plain BatchNorm, and back.

Rota Bulò et al. 2018, "In-Place Activated BatchNorm for Memory-Optimized Training of DNNs",
https://arxiv.org/abs/1712.02616. To be invertible, the layer of mapillary/inplace_abn scales by
|weight| + eps. No key and no shape tells its files from a BatchNorm's: `convert.load` and
`convert.save` go by the layout, whose rename table carries the values as they are.

>>> state = convert.plain_weights(convert.read("CS_scenes_60000.pth"))
>>> convert.load_format("original", "ccnet").import_state(state, model)
"""

from collections.abc import Iterable, Mapping

import numpy as np

from flaxseg.errors import CheckpointError
from flaxseg.model_dir import Tensor

EPS = 1e-5
"""InPlaceABN's default."""

AS_INPLACE_ABN = "norms are InPlaceABN's, which scale by |weight| + 1e-5"
AS_PLAIN = "norms are plain ones, which scale by weight"


def plain_weights(state: Mapping[str, Tensor], *, eps: float = EPS) -> dict[str, Tensor]:
    """The state dict with `|weight| + eps` for every norm's weight; the rest is as it was.

    A norm is a layer with a running variance. Apply it once: a second time adds eps again.

    Args:
        state: key -> array of a network all of whose norms are InPlaceABN layers.
        eps: of the layers.

    Raises:
        CheckpointError: there is no norm with a weight.
    """
    weights = norm_weights(state)
    if not weights:
        raise CheckpointError(
            "the state dict has no norm, which is a layer with a weight and a running_var: "
            "it holds no InPlaceABN layers to turn into plain ones"
        )
    return {k: _scale(np.asarray(a), eps) if k in weights else a for k, a in state.items()}


def inplace_weights(
    state: Mapping[str, np.ndarray],
    originals: Mapping[str, np.ndarray] | None = None,
    *,
    eps: float = EPS,
) -> dict[str, np.ndarray]:
    """The inverse of `plain_weights`: the state dict from which it makes this one.

    Every scale comes back with its bits, except where no number plus eps rounds to it, as for some
    around 1e-4 in float32: there with a neighbour's.

    Args:
        state: key -> array of a network with plain norms.
        originals: weights of InPlaceABN layers, whose signs and last bits a scale does not tell;
            they are taken where their scales are still those of `state`.
        eps: of the layers.

    Raises:
        CheckpointError: a scale is below eps, which InPlaceABN never gives.
    """
    originals = originals or {}
    weights = norm_weights(state)
    small = [
        key for key in state if key in weights and (state[key] < eps_as(state[key], eps)).any()
    ]
    if small:
        raise CheckpointError(
            f"InPlaceABN scales by |weight| + {eps:g}, and {len(small)} norms have smaller scales "
            f"than that: {', '.join(small[:5])}; plain_norms (--plain-norms) writes them as they "
            "are, for readers whose norms are plain"
        )
    changed = {}
    for key in weights:
        kept = originals.get(key)
        same = kept is not None and np.array_equal(_scale(kept, eps), state[key])
        changed[key] = kept if same else _weight(state[key], eps)
    return {key: changed.get(key, array) for key, array in state.items()}


def norm_weights(keys: Iterable[str]) -> set[str]:
    """The weights of norms, by their keys."""
    keys = set(keys)
    norms = {key.removesuffix("running_var") for key in keys if key.endswith(".running_var")}
    return {f"{norm}weight" for norm in norms} & keys


def eps_as(array: np.ndarray, eps: float) -> np.floating:
    """The epsilon as an array's layer adds it."""
    return array.dtype.type(eps)


def _scale(weight: np.ndarray, eps: float) -> np.ndarray:
    return np.abs(weight) + eps_as(weight, eps)


def _weight(scale: np.ndarray, eps: float) -> np.ndarray:
    """The weight whose scale it is, or that with the nearest one."""
    weight = scale - eps_as(scale, eps)
    for other in (np.nextafter(weight, 0), np.nextafter(weight, scale)):
        better = (_scale(weight, eps) != scale) & (_scale(other, eps) == scale)
        weight = np.where(better, other, weight)
    return weight.astype(scale.dtype, copy=False)
