"""The losses where there is little to go by: nothing labelled, nothing hard, ties, wild scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxseg.ops.pixels import Pixels
from flaxseg.sharding import make_mesh, put_batch
from flaxseg.training import losses
from flaxseg.training.losses.rank import kth_largest

SHAPE, K = (8, 4, 6), 5
LOSSES = {
    "cross_entropy": functools.partial(
        losses.cross_entropy, weight=np.linspace(1, 2, K), label_smoothing=0.1, average="all"
    ),
    "focal": functools.partial(losses.focal, gamma=0.5),
    "ohem": losses.ohem,
    "ohem, hardest": functools.partial(losses.ohem, threshold=None),
    "ohem_mmseg": functools.partial(losses.ohem_mmseg, min_kept=5, threshold=0.1),
    "ohem_mmseg, hardest": functools.partial(losses.ohem_mmseg, min_kept=5, threshold=None),
    "dice": functools.partial(losses.dice, per_image=True),
    "lovasz": losses.lovasz_softmax,
    "lovasz per image": functools.partial(losses.lovasz_softmax, per_image=True),
    "iou": losses.iou,
}


@functools.cache
def program():
    """Value and gradient of all of them at once: one compilation for every test."""
    return jax.jit(lambda *args: {k: jax.value_and_grad(f)(*args) for k, f in LOSSES.items()})


def everything(scores, labels):
    """Value and gradient by loss, on the host."""
    return jax.device_get(program()(jnp.asarray(scores), jnp.asarray(labels, jnp.int32)))


@pytest.fixture
def scores():
    return 3 * np.random.default_rng(0).standard_normal((*SHAPE, K)).astype(np.float32)


@pytest.fixture
def labels():
    rng = np.random.default_rng(1)
    return np.where(rng.random(SHAPE) < 0.2, 255, rng.integers(0, K, SHAPE))


def test_without_labels_all_is_zero(scores):
    for name, (loss, grad) in everything(scores, np.full(SHAPE, 255)).items():
        assert loss == 0, name
        np.testing.assert_array_equal(grad, np.zeros_like(scores), name)


def test_image_without_labels_is_left_out(scores, labels):
    alone = np.where(np.arange(len(labels))[:, None, None] == 0, labels, 255)
    result = everything(scores, alone)
    again = everything(np.tile(scores[:1], (8, 1, 1, 1)), np.tile(labels[:1], (8, 1, 1)))
    for name in ("dice", "lovasz per image", "iou"):
        assert result[name][0] == pytest.approx(again[name][0], rel=1e-6), name


def test_scores_of_ignored_pixels_change_nothing(scores, labels):
    wild = np.where(labels[..., None] == 255, np.float32(np.inf), scores)
    expected = everything(scores, labels)
    for name, (loss, grad) in everything(wild, labels).items():
        assert loss == expected[name][0], name
        np.testing.assert_array_equal(grad, expected[name][1], name)


@pytest.mark.parametrize("factor", [0.0, 1e4])
def test_flat_and_extreme_scores_give_finite_gradients(factor, scores, labels):
    for name, (loss, grad) in everything(factor * scores, labels).items():
        assert np.isfinite(loss) and np.isfinite(grad).all(), name


def test_perfect_scores_give_nothing_to_learn(labels):
    sure = 200 * (labels[..., None] == np.arange(K)).astype(np.float32)
    for name, (loss, grad) in everything(sure, labels).items():
        if name != "cross_entropy":  # which is smoothed
            assert loss == pytest.approx(0, abs=1e-5), name
            assert np.abs(grad).max() < 1e-6, name


def test_divergence_is_not_hidden(scores, labels):
    scores[np.nonzero(labels != 255)[0][0], :, :, 0] = np.nan
    assert all(np.isnan(loss) for loss, _ in everything(scores, labels).values())


def test_half_precision_scores_are_computed_in_float32(scores, labels):
    assert Pixels.of(jnp.zeros((2, 3), jnp.float16), jnp.zeros(2, int)).logits.dtype == jnp.float32
    rounded = jnp.asarray(scores, jnp.bfloat16)
    expected = everything(rounded.astype(jnp.float32), labels)
    for name, (loss, grad) in everything(rounded, labels).items():
        assert loss.dtype == np.float32 and grad.dtype == jnp.bfloat16
        assert loss == pytest.approx(expected[name][0], rel=1e-6), name


def test_batch_over_eight_devices_is_one_batch(scores, labels):
    expected = everything(scores, labels)
    split = put_batch((scores, labels.astype(np.int32)), make_mesh(jax.devices()[:8]))
    for name, (loss, grad) in jax.device_get(program()(*split)).items():
        assert loss == pytest.approx(expected[name][0], rel=1e-6), name
        np.testing.assert_allclose(grad, expected[name][1], rtol=1e-5, atol=1e-8, err_msg=name)


def test_ohem_of_easy_pixels(scores):
    """Theirs is nan without a hard pixel among fewer than 16; ties have no hardest."""
    sure = np.zeros_like(scores)
    sure[..., 0] = 4.0
    sure[0, 0, 0, 0] = 3.0
    easy, hardest = (np.log1p(4 * np.exp(-score)) for score in (4.0, 3.0))
    few = np.full(SHAPE, 255)
    few[0, 0, :3] = 0
    assert everything(sure, few)["ohem"][0] == pytest.approx(hardest, rel=1e-6)

    ties = np.zeros(SHAPE, np.int32)  # 12 of 192 pixels count: one is hardest, 191 share 11 places
    result = everything(sure, ties)
    assert result["ohem"][0] == pytest.approx((hardest + 11 * easy) / 12, rel=1e-5)
    push = result["ohem"][1][..., 1].ravel()
    np.testing.assert_allclose(push[1:], np.full(191, push[1:].mean()), rtol=1e-6)
    # mmsegmentation keeps what is harder than the border, or else as many as are asked for
    assert result["ohem_mmseg"][0] == pytest.approx(hardest / 192, rel=1e-6)
    kept = result["ohem_mmseg, hardest"][0]
    assert kept == pytest.approx((hardest + 39 * easy) / 192, rel=1e-5)


@pytest.mark.parametrize("wide", [False, True])
def test_kth_largest(wide):
    values = np.random.default_rng(0).random(60).round(1)
    values[:4] = 0, np.inf, 1e-40, 5e8
    mask = np.arange(60) % 7 > 0
    with jax.enable_x64(wide):
        values = jnp.asarray(values, float)
        ranked = np.sort(np.asarray(values)[mask])[::-1]
        rank = jax.jit(kth_largest)
        for k in (1, 2, 3, 20, len(ranked)):
            assert float(rank(values, mask, k)) == ranked[k - 1]
        assert float(rank(values, mask, len(ranked) + 1)) == 0
        assert np.isnan(rank(values, mask, 0))
        assert np.isnan(rank(values.at[9].set(np.nan), mask, 1))
