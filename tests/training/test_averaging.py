"""Averages of the weights, against torch.optim.swa_utils and the SETR tutorial's recorded run."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxseg.data import Batch
from flaxseg.ops import BatchNorm
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import make_mesh
from flaxseg.training import make_config
from flaxseg.training.averaging import Ema, Swa, advance, make_averaging
from flaxseg.training.batch_statistics import make_estimator
from flaxseg.training.optim import make_optimizer, make_schedule

GOLDENS = Path(__file__).parents[1] / "goldens"
RECORDED = json.loads((GOLDENS / "learning_rates.json").read_text())["setr_averages"]


def averages(averaging, path):
    """The average after each of the weights in `path`."""

    @jax.jit
    def run(path):
        def step(mean, item):
            mean = advance(mean, item[1], averaging.share(item[0]))
            return mean, mean

        return jax.lax.scan(step, jnp.zeros(path.shape[1]), (1 + jnp.arange(len(path)), path))[1]

    return np.asarray(run(path))


@pytest.fixture
def path():
    """Weights after each of 100 steps."""
    return np.random.default_rng(0).standard_normal((100, 3)).cumsum(0)


def torch_average(path, make, due=lambda step: True):
    model = torch.nn.Linear(3, 1, bias=False).double()
    average = make(model)
    for step, values in enumerate(path, start=1):
        with torch.no_grad():
            model.weight[0] = torch.tensor(values)
        if due(step):
            average.update_parameters(model)
    return average.module.weight[0].detach().numpy()


def test_ema_equals_torch(x64, path):
    utils = torch.optim.swa_utils

    def make(model):
        return utils.AveragedModel(model, multi_avg_fn=utils.get_ema_multi_avg_fn(0.97))

    np.testing.assert_allclose(averages(Ema(0.97), path)[-1], torch_average(path, make), rtol=1e-12)


def test_swa_equals_torch(x64, path):
    def due(step):
        return step > 40 and step % 10 == 0

    expected = torch_average(path, torch.optim.swa_utils.AveragedModel, due)
    found = averages(Swa(start=40, every=10), path)
    np.testing.assert_allclose(found[-1], expected, rtol=1e-12)
    np.testing.assert_array_equal(found[:40], path[:40])  # follows until averaging begins
    np.testing.assert_array_equal(found[49], path[49])
    np.testing.assert_array_equal(found[49], found[58])


def test_ema_takes_over_the_first_weights(path):
    values = path.astype(np.float32)
    np.testing.assert_array_equal(averages(Ema(0.9999), values)[0], values[0])


def test_setr_tutorial_to_the_letter(x64):
    """Weights that the tutorial evaluates from epoch 75 on, and those that it ends with."""
    per_epoch, seed = RECORDED["steps_per_epoch"], RECORDED["seed"]
    config = make_config("setr", "camvid", "tutorial")
    total = config.epochs * per_epoch
    averaging = make_averaging(config, per_epoch)
    tx = make_optimizer("sgd", make_schedule(config, per_epoch, total), momentum=config.momentum)

    def step(carry, t):
        w, state, mean = carry
        grad = jnp.stack([jnp.sin(t + seed), jnp.cos(2.0 * t + seed), 0.1 * w[2]])
        updates, state = tx.update({"w": grad}, state, {"w": w})
        w = w + updates["w"]
        mean = advance(mean, w, averaging.share(t))
        return (w, state, mean), mean

    w = jnp.array([0.5, -0.25, 1.0])
    run = jax.jit(lambda w: jax.lax.scan(step, (w, tx.init({"w": w}), w), 1 + jnp.arange(total)))
    (w, _, _), means = run(w)
    np.testing.assert_allclose(w, RECORDED["weights_end"], rtol=1e-12)
    evaluated = [epoch for epoch in range(5, 101, 5) if epoch >= 75]
    assert [record["epoch0"] + 1 for record in RECORDED["swa_evaluations"]] == evaluated
    for record in RECORDED["swa_evaluations"]:
        mean = means[(record["epoch0"] + 1) * per_epoch - 1]
        np.testing.assert_allclose(mean, record["weights_evaluated"], rtol=1e-12)


class Tiny(nnx.Module):
    """Two norms, of which one sees what the other left."""

    def __init__(self):
        self.bn1, self.bn2 = BatchNorm(3), BatchNorm(3)
        self.bn1.weight.set_value(jnp.array([2.0, -1.0, 0.5]))

    def __call__(self, images, *, aux, rngs):
        return self.bn2(jnp.square(self.bn1(images)))


def test_statistics_are_the_mean_over_the_batches_as_torch_update_bn():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 2, 6, 5, 3), dtype=np.uint8)
    graphdef, params, stats = nnx.split(Tiny(), nnx.Param, nnx.BatchStat)
    mesh = make_mesh(jax.devices()[:2])
    plain = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    estimate = make_estimator(graphdef, plain, mesh, aux=False)
    empty = np.zeros(2, np.int64)
    batches = [Batch(image, image[..., 0], np.ones(2, np.float32), empty) for image in images]
    found = nnx.to_pure_dict(estimate(params, stats, batches))

    class Square(torch.nn.Module):
        def forward(self, x):
            return x * x

    twin = torch.nn.Sequential(torch.nn.BatchNorm2d(3), Square(), torch.nn.BatchNorm2d(3))
    with torch.no_grad():
        twin[0].weight[:] = torch.tensor([2.0, -1.0, 0.5])
    loader = [torch.tensor(image).permute(0, 3, 1, 2) / 255 for image in images]
    torch.optim.swa_utils.update_bn(loader, twin)
    for name, norm in (("bn1", twin[0]), ("bn2", twin[2])):
        for key in ("running_mean", "running_var"):
            np.testing.assert_allclose(found[name][key], getattr(norm, key).numpy(), rtol=1e-5)


def test_share_of_the_weights_is_the_rule_of_the_name():
    assert float(Swa(start=4, every=2).share(jnp.asarray(10))) == pytest.approx(1 / 3)
    assert math.isclose(float(Ema(0.9).share(jnp.asarray(2))), 0.1, rel_tol=1e-6)
