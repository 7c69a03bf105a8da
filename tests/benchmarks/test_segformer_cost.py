import jax
import numpy as np
import pytest

from convert.parity.runs import COMPILER_OPTIONS, random_state
from flaxseg import models, native


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("segformer_cost")


@pytest.mark.parametrize(
    ("name", "width", "share"), [("segformer_b0", 256, 0.6), ("segformer_b2", 768, 0.5)]
)
def test_fusing_before_enlarging_saves_work(benchmark, name, width, share):
    before = benchmark.flops(benchmark.textbook, name, (512, 512))
    after = benchmark.flops(benchmark.reordered, name, (512, 512))
    # By hand, two FLOPs a product at the finest map: counts below these would mean that XLA did
    # not see the work.
    pixels = 2 * 128 * 128
    assert before - after >= 0.9 * pixels * 4 * width * width
    assert after >= pixels * width * 150
    assert after <= share * before


def test_both_orders_give_the_same_logits(benchmark):
    overrides = {
        "backbone.widths": (8, 12),
        "backbone.depths": (1, 1),
        "backbone.heads": (1, 2),
        "backbone.reductions": (2, 1),
    }
    config = models.get_config("segformer_b0", channels=32, num_classes=7, **overrides)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    images = jax.random.normal(jax.random.key(0), (2, 61, 75, 3))
    view = models.eval_view(model)
    options = COMPILER_OPTIONS["float64"]
    expected, logits = (
        np.asarray(jax.jit(lambda x, f=f: f(view, x), compiler_options=options)(images))
        for f in (benchmark.textbook, benchmark.reordered)
    )
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    assert expected.std() > 0.1
