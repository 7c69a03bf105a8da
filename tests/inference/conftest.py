"""A segmenter small enough to check by hand, and a real one small enough to run."""

import jax
import numpy as np
import pytest
from flax import nnx

from flaxseg import native
from flaxseg.data.shapes import LABELS
from flaxseg.labels import LabelSet
from flaxseg.models import Output, abstract_model, get_config
from flaxseg.models.blocks import AnySize
from flaxseg.preprocess import Preprocess

ANY_SIZE = AnySize()


class PixelModel(nnx.Module):
    """A classifier of single pixels: what lies around a pixel cannot change its class."""

    def __init__(self, num_classes: int, *, shrink: int = 1, rngs: nnx.Rngs):
        self.config = ANY_SIZE
        self.linear = nnx.Linear(3, num_classes, rngs=rngs)
        self.norm = nnx.BatchNorm(num_classes, rngs=rngs)
        self.shrink = shrink

    def __call__(self, images: jax.Array) -> Output:
        """Logits of every `shrink`-th pixel, (B, H', W', K)."""
        return Output(self.norm(self.linear(images))[:, :: self.shrink, :: self.shrink])


class CountingPreprocess(Preprocess):
    """Counts how often it was traced."""

    traces: list[tuple[int, ...]]

    def __init__(self):
        super().__init__()
        object.__setattr__(self, "traces", [])

    def __call__(self, images: jax.Array) -> jax.Array:
        self.traces.append(images.shape)
        return super().__call__(images)


@pytest.fixture
def labels():
    return LabelSet("toys", ("car", "tree", "sky", "road"), LabelSet.generic(4).palette)


@pytest.fixture
def pixel_model(labels):
    model = PixelModel(labels.num_classes, rngs=nnx.Rngs(0))
    model.norm.mean[...] = jax.random.normal(jax.random.key(1), (labels.num_classes,))
    return model


@pytest.fixture
def preprocess():
    return CountingPreprocess()


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (11, 17, 3), np.uint8)


def random_weights(key, shape):
    """Weights that keep the size of what passes through, and let the picture decide the class."""
    rng = np.random.default_rng(list(key.encode()))
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) == 1 and not key.endswith("weight"):
        return rng.normal(size=shape) / 10  # large ones would drown what differs among pixels
    return rng.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """The model directory of a small ccnet with random weights, for the classes of `shapes`."""
    tiny = {"backbone.width": 8, "backbone.blocks": (1, 1, 1, 1), "channels": 16}
    model = abstract_model(get_config("ccnet", num_classes=LABELS.num_classes, **tiny))
    weights = {key: random_weights(key, shape) for key, shape in native.leaves(model).items()}
    directory = tmp_path_factory.mktemp("ccnet") / "model"
    native.save(native.fill(model, weights), directory, labels=LABELS)
    return directory
