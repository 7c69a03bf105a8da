"""Weights of InPlaceABN layers as those of a plain BatchNorm.

Rota Bulò et al. 2018, "In-Place Activated BatchNorm for Memory-Optimized Training of DNNs",
https://arxiv.org/abs/1712.02616. To be invertible, the layer of mapillary/inplace_abn scales by
|weight| + eps. No key and no shape tells its files from a BatchNorm's, so nothing here happens by
itself: who imports such a file says so.

>>> state = convert.plain_weights(convert.read("CS_scenes_60000.pth"))
>>> convert.load_format("original", "ccnet").import_state(state, model)
"""

from collections.abc import Mapping

import numpy as np

from flaxseg.errors import CheckpointError

EPS = 1e-5
"""InPlaceABN's default."""


def plain_weights(state: Mapping[str, np.ndarray], *, eps: float = EPS) -> dict[str, np.ndarray]:
    """The state dict with |weight| + eps for every norm's weight; the rest is as it was.

    A norm is a layer with a running variance. Apply it once: a second time adds eps again.

    Args:
        state: key -> array of a network all of whose norms are InPlaceABN layers.
        eps: of the layers.

    Raises:
        CheckpointError: there is no norm with a weight.
    """
    norms = {key.removesuffix("running_var") for key in state if key.endswith(".running_var")}
    weights = {f"{norm}weight" for norm in norms} & state.keys()
    if not weights:
        raise CheckpointError(
            "the state dict has no norm, which is a layer with a weight and a running_var: "
            "it holds no InPlaceABN layers to turn into plain ones"
        )
    return {key: np.abs(a) + a.dtype.type(eps) if key in weights else a for key, a in state.items()}
