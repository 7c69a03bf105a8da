"""Recipes for CamVid and Oxford-IIIT Pet: published where there are any, or else derived.

For BiSeNetV2 on CamVid the paper's (magnified by 0.75 to 2, 960 x 720, 10 000 steps), for ViTSeg on
pets its notebook's. All others take over the optimiser of the network's own recipe for a data set
of the same kind, with fewer steps.
"""

from flaxseg.training.recipes.published import ADE20K, CITYSCAPES, VARIED
from flaxseg.training.recipes.recipe import Recipe
from flaxseg.training.recipes.tutorials import TUTORIALS
from flaxseg.training.settings.data import IMAGENET

_WHOLE = {"eval_base_size": None, "eval_multiple": 1, "eval_window": None, "eval_stride": None}
"""Pictures no larger than the crops are looked at as they are."""

_IMAGENET = {"mean": IMAGENET.mean, "std": IMAGENET.std, "channels": "rgb"}


def _camvid(name: str, recipe: Recipe) -> Recipe:
    # The networks whose sides must be multiples of 32 cannot take 720.
    size = (720, 960)
    if name.startswith("bisenetv2") and name != "bisenetv2_mmseg":
        size = (704, 704) if name == "bisenetv2_matmul" else (704, 960)
    ours = {"data": "camvid", "image_size": size, "steps": 10_000, "eval_every": 20, **_WHOLE}
    if recipe.source.startswith("paper"):
        return recipe.but(f"{recipe.source}; 704 rows", scale=(0.75, 2.0), **ours)
    return recipe.but("derived from its recipe for Cityscapes", batch_size=8, **ours)


def _pets(recipe: Recipe) -> Recipe:
    ours = {"data": "pets", "image_size": (384, 384), "steps": 20_000, "eval_every": 5}
    ours |= {"base_size": None, **_IMAGENET, **_WHOLE, **VARIED}
    return recipe.but("derived from its recipe for ADE20K", **ours)


CAMVID = {name: _camvid(name, recipe) for name, recipe in CITYSCAPES.items()}
PETS = {name: _pets(recipe) for name, recipe in ADE20K.items()} | {"vitseg": TUTORIALS["vitseg"]}
"""By network."""
