from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flaxseg.models import Output
from flaxseg.ops import BatchNorm
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import make_mesh, put_batch
from flaxseg.training.freezing import NOTHING, Frozen
from flaxseg.training.losses import Objective, Term, added, cross_entropy, dice, loss_terms
from flaxseg.training.optim import make_optimizer
from flaxseg.training.settings.loss import LossSettings
from flaxseg.training.step import compile_step, init_state, make_train_step

CLASSES = 5


class Pixels(nnx.Module):
    """Classifies pixel by pixel, with a norm or without, with an auxiliary head."""

    def __init__(self, norm=False):
        init = nnx.initializers.normal(0.5)
        keys = iter(jax.random.split(jax.random.key(0), 3))

        def draw(*shape):
            return nnx.Param(init(next(keys), shape, jnp.float64))

        self.hidden, self.weight, self.aux = draw(3, 8), draw(8, CLASSES), draw(8, CLASSES)
        self.norm = BatchNorm(8, dtype=jnp.float64, param_dtype=jnp.float64) if norm else None

    def __call__(self, images, *, aux, rngs):
        x = jnp.tanh(images.astype(jnp.float64) @ self.hidden[...])
        x = self.norm(x) if self.norm is not None else x
        return Output(x @ self.weight[...], (x @ self.aux[...],) if aux else ())


def batch(size=8):
    """Images whose number of labelled pixels differs a lot; one has none."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, 6, 5, 3), dtype=np.uint8)
    label = rng.integers(0, CLASSES, (size, 6, 5), dtype=np.uint8)
    ignored = rng.random(label.shape) < np.linspace(0, 1, size)[:, None, None]
    return image, np.where(ignored, np.uint8(255), label)


def run(parts, steps=3, devices=1, norm=False, read="loss", frozen=NOTHING, **objective):
    """The losses, or what else is to be read, of a few steps, and the state after them."""
    schedule = optax.constant_schedule(0.1)
    tx = make_optimizer("sgd", schedule, momentum=0.9, weight_decay=1e-3)
    model = Pixels(norm)
    step = make_train_step(
        nnx.split(model, nnx.Param, nnx.BatchStat)[0],
        tx,
        schedule=schedule,
        preprocess=Preprocess(),
        aux_weights=(0.4,),
        accumulate_parts=parts,
        frozen=frozen,
        **objective,
    )
    mesh = make_mesh(jax.devices()[:devices])
    state, losses = init_state(model, tx, frozen=frozen), []
    compiled = compile_step(step, mesh)
    for _ in range(steps):
        state, metrics = compiled(state, *put_batch(batch(), mesh))
        losses.append(jax.tree.map(float, getattr(metrics, read)))
    return losses, jax.device_get(state)


def test_parts_give_what_the_whole_batch_gives(x64):
    """On one device and on four; one part alone has no labelled pixel."""
    expected_losses, expected = run(1)
    for parts, devices in ((8, 1), (2, 4)):
        losses, state = run(parts, devices=devices)
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-12)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 4])
def test_accuracy_is_that_of_all_pixels_before_the_update(parts, x64):
    image, label = batch()
    output = Pixels()(Preprocess()(jnp.asarray(image)), aux=False, rngs=None)
    right = np.mean(np.asarray(output.logits).argmax(-1) == label)
    assert 0 < right < 1
    accuracies = run(parts, accuracy=True, read="accuracy")[0]
    assert accuracies[0] == pytest.approx(right, rel=1e-6)


def test_norm_sees_the_parts(x64):
    """Its running mean moves once for each, and the second batch of a part is normalised alone."""
    (loss, *_), state = run(4, steps=1, norm=True)
    (whole, *_), _ = run(1, steps=1, norm=True)
    assert loss != pytest.approx(whole, rel=1e-6)
    image, _ = batch()
    model = Pixels(norm=True)
    hidden = np.tanh(np.asarray(Preprocess()(jnp.asarray(image)), float) @ model.hidden[...])
    mean = np.zeros(8)
    for part in range(4):
        mean = 0.9 * mean + 0.1 * hidden[part::4].mean((0, 1, 2))
    found = nnx.to_pure_dict(state.stats)["norm"]["running_mean"]
    np.testing.assert_allclose(found, mean, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "class_weights"),
    [({"loss_average": "all"}, None), ({}, np.array([1.0, 3.0, 0.5, 0.0, 2.0]))],
    ids=["all", "class weights"],
)
def test_parts_weigh_what_their_mean_divides_by(fields, class_weights, x64):
    settings = LossSettings(**fields)
    main = partial(cross_entropy, weight=class_weights, average=settings.loss_average)
    loss = partial(loss_terms, main=(Term(1.0, main),))
    objective = Objective(loss, (0.4,), class_weights, settings)
    of_run = {"steps": 1, "loss": loss, "weigh": objective.weigh}
    (found,), state = run(4, **of_run)
    (expected,), whole = run(1, **of_run)
    assert found == pytest.approx(expected, rel=1e-9)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("parts", "frozen"), [(1, NOTHING), (4, Frozen(frozenset({"hidden"})))])
def test_terms_are_told_and_change_no_bit(parts, frozen, x64):
    main = (Term(1.0, cross_entropy, "cross_entropy"), Term(0.3, dice, "dice"))
    named = partial(loss_terms, main=main)

    def nameless(*args, **options):
        return {"all": added(named(*args, **options).values())}

    losses, state = run(parts, loss=named, frozen=frozen)
    told, _ = run(parts, loss=named, frozen=frozen, read="terms")
    expected, untold = run(parts, loss=nameless, frozen=frozen)
    assert losses == expected
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(untold), strict=True):
        np.testing.assert_array_equal(a, b)
    for loss, terms in zip(losses, told, strict=True):
        assert set(terms) == {"cross_entropy", "dice", "aux1"}
        assert sum(terms.values()) == pytest.approx(loss, rel=1e-6)
