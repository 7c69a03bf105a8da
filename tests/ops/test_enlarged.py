"""Cross entropy and labels of interpolated scores that are never made, beside those that are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxseg.ops import enlarged, enlarged_argmax, resize_bilinear
from flaxseg.ops.enlarged import enlarged_cross_entropy, enlarged_surprise
from flaxseg.ops.pixels import Pixels
from flaxseg.planning.collectives import collectives
from flaxseg.sharding import make_mesh, split_batch

CASES = {
    "whole factors": ((5, 6), (20, 24), False, None),
    "whole factors in parts": ((5, 6), (20, 24), False, 60),
    "odd factors in parts": ((5, 4), (15, 20), False, 100),
    "whole steps between corners": ((5, 6), (33, 41), True, None),
    "no whole factor": ((5, 6), (17, 29), False, None),
    "corners at no whole factor, in parts": ((5, 6), (16, 43), True, 60),
    "a single row": ((1, 3), (8, 12), False, None),
    "one side smaller": ((9, 4), (5, 16), False, None),
}
"""Sizes of scores and labels, `align_corners`, and values that are visited at a time."""


@pytest.fixture(params=[True, False], ids=["for CPUs", "for others"])
def cpu(request, monkeypatch):
    """The form of a platform, whatever this one is."""

    def visited(visit, *args):
        return visit(request.param, *args)

    monkeypatch.setattr(enlarged, "_by_platform", visited)


@pytest.fixture(params=CASES, ids=str)
def case(request, cpu, x64, monkeypatch):
    """Scores, labels with ignored ones, and `align_corners`."""
    (h, w), size, align_corners, chunk = CASES[request.param]
    if chunk is not None:
        monkeypatch.setattr(enlarged, "CHUNK", chunk)
        monkeypatch.setattr(enlarged, "CHUNK_OF_IMAGE", chunk // 2)
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.normal(size=(2, h, w, 4)) * 3)
    labels = rng.integers(0, 6, (2, *size)).astype(np.uint8)
    labels[labels == 5] = 255  # 4 is no class either
    return scores, jnp.asarray(labels), align_corners


def made(scores, labels, align_corners) -> Pixels:
    """The same, from scores that were interpolated before."""
    size = labels.shape[1], labels.shape[2]
    return Pixels.of(resize_bilinear(scores, size, align_corners=align_corners), labels)


@pytest.mark.parametrize("smooth", [False, True])
def test_the_sum_and_its_gradient_are_those_of_the_whole_map(case, smooth):
    scores, labels, align_corners = case
    rng = np.random.default_rng(1)
    weights = jnp.asarray(rng.uniform(size=labels.shape)) * (labels < 4)
    others = jnp.asarray(rng.uniform(size=labels.shape)) * (labels < 4)
    given = (others, jnp.asarray([0.1, 0.4, 0.0, 0.2])) if smooth else None

    @jax.jit
    @jax.value_and_grad
    def ours(scores):
        return enlarged_cross_entropy(scores, labels, weights, given, align_corners=align_corners)

    @jax.jit
    @jax.value_and_grad
    def theirs(scores):
        return made(scores, labels, align_corners).cross_entropy(weights, given)

    (value, gradient), (expected, expected_gradient) = ours(scores), theirs(scores)
    assert float(value) == pytest.approx(float(expected), rel=1e-13)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-13)
    alone = jax.jit(
        functools.partial(enlarged_cross_entropy, others=given, align_corners=align_corners)
    )
    # Another program, which later XLAs let add up in another order.
    apart = 1e-15 if jax.__version_info__ >= (0, 11) else 0
    assert float(alone(scores, labels, weights)) == pytest.approx(float(value), rel=apart, abs=0)


def test_what_is_read_off_single_pixels(case):
    scores, labels, align_corners = case
    pixels = made(scores, labels, align_corners)
    read = jax.jit(functools.partial(enlarged_surprise, align_corners=align_corners))
    expected = jnp.where(pixels.valid, pixels.surprise(), 0)
    np.testing.assert_allclose(read(scores, labels), expected, atol=1e-13)
    size = labels.shape[1], labels.shape[2]
    classes = jax.jit(lambda x: enlarged_argmax(x, size, align_corners=align_corners))(scores)
    whole = resize_bilinear(scores, size, align_corners=align_corners)
    first, second = jnp.sort(whole, -1)[..., -1], jnp.sort(whole, -1)[..., -2]
    clear = first - second > 1e-9
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(classes[clear], whole.argmax(-1)[clear])


def test_of_equal_scores_the_first_wins():
    assert not enlarged_argmax(jnp.ones((1, 2, 3, 4)), (8, 12)).any()


def test_scores_that_no_label_sees_may_be_infinite():
    scores = jnp.zeros((1, 4, 4, 3)).at[:, 0, 0].set(jnp.inf).at[:, 0, 1].set(jnp.nan)
    labels = jnp.zeros((1, 16, 16), jnp.uint8).at[:, :8].set(255)
    weights = (labels < 3).astype(jnp.float32)
    value, gradient = jax.value_and_grad(enlarged_cross_entropy)(scores, labels, weights)
    assert float(value) == pytest.approx(8 * 16 * np.log(3), rel=1e-6)
    assert np.isfinite(gradient).all() and not gradient[:, 0].any()


def test_the_scores_of_all_pixels_are_never_held():
    """A training step's share of it: value and gradient at eight times the resolution."""
    scores = jax.ShapeDtypeStruct((2, 16, 16, 19), jnp.float32)
    labels = jax.ShapeDtypeStruct((2, 128, 128), jnp.uint8)

    def temporaries(loss) -> int:
        program = jax.jit(jax.value_and_grad(loss)).lower(scores, labels).compile()
        return program.memory_analysis().temp_size_in_bytes

    def ours(scores, labels):
        return enlarged_cross_entropy(scores, labels, jnp.ones(labels.shape))

    def plain(scores, labels):
        return made(scores, labels, False).cross_entropy(jnp.ones(labels.shape))

    whole = 2 * 128 * 128 * 19 * 4
    assert temporaries(plain) > 2 * whole
    assert temporaries(ours) < whole / 2


def test_a_mesh_sends_one_number():
    """The images are divided, the visits are not: only the value is summed over devices."""
    split = split_batch(make_mesh())
    scores = jax.ShapeDtypeStruct((8, 4, 4, 3), jnp.float32, sharding=split)
    labels = jax.ShapeDtypeStruct((8, 16, 16), jnp.uint8, sharding=split)

    def loss(scores, labels):
        return enlarged_cross_entropy(scores, labels, jnp.ones(labels.shape))

    program = jax.jit(jax.value_and_grad(loss), out_shardings=(None, split))
    found = collectives(program.lower(scores, labels).compile().as_text())
    assert [(one.kind, one.elements, one.times) for one in found] == [("all-reduce", 1, 1)]


def test_parts_are_as_large_on_a_mesh_as_on_one_device():
    """A step traces the whole batch, of which an accelerator may have one image."""
    alone, spread = (
        enlarged._Plan(False, (batch, 128, 128, 150), (512, 512), False) for batch in (1, 64)
    )
    assert alone.parts == spread.parts == 6
