import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flaxseg.models import Output
from flaxseg.training.losses import cross_entropy, segmentation_loss


def scores_and_labels(shape=(2, 9, 7), num_classes=5, seed=1):
    """Logits (B, H, W, K) float64 and labels with about 5 % ignored pixels."""
    B, H, W = shape
    image = np.random.default_rng(seed * 100 + 1).standard_normal((B, num_classes, H, W))
    rng = np.random.default_rng(seed + 1000)
    labels = rng.integers(0, num_classes, size=shape)
    labels[rng.random(shape) < 0.05] = 255
    return 2 * image.astype(np.float32).astype(np.float64).transpose(0, 2, 3, 1), labels


def torch_loss(logits, labels, **kwargs):
    """torch's value, and its gradient as (B, H, W, K)."""
    scores = torch.tensor(logits.transpose(0, 3, 1, 2), requires_grad=True)
    loss = F.cross_entropy(scores, torch.tensor(labels), ignore_index=255, **kwargs)
    loss.backward()
    return loss.item(), scores.grad.numpy().transpose(0, 2, 3, 1)


def test_golden_value(x64):
    logits, labels = scores_and_labels()
    loss = cross_entropy(jnp.asarray(logits), labels.astype(np.uint8))
    assert float(loss) == pytest.approx(2.890465436668673, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_equal_torch(x64, weighted):
    logits, labels = scores_and_labels((3, 5, 4), num_classes=7, seed=2)
    weight = np.linspace(0.5, 2.0, 7) if weighted else None
    loss, grad = jax.value_and_grad(cross_entropy)(jnp.asarray(logits), labels, weight)
    options = {"weight": torch.tensor(weight)} if weighted else {}
    expected, expected_grad = torch_loss(logits, labels, **options)
    assert loss.dtype == jnp.float64
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(grad, expected_grad, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_is_computed_in_float32(dtype):
    logits, labels = scores_and_labels()
    rounded = jnp.asarray(logits, dtype)
    loss = cross_entropy(rounded, labels)
    expected, _ = torch_loss(np.asarray(rounded, np.float64), labels)
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_without_valid_pixels_loss_and_gradient_are_zero():
    logits = jnp.asarray(scores_and_labels()[0], jnp.float32)
    ignored = jnp.full(logits.shape[:3], 255, jnp.uint8)
    loss, grad = jax.value_and_grad(cross_entropy)(logits, ignored)
    assert float(loss) == 0
    np.testing.assert_array_equal(grad, np.zeros_like(logits))


def test_stays_finite_for_large_scores():
    logits = jnp.asarray([[[[1e4, -1e4]]]], jnp.float32)
    loss, grad = jax.value_and_grad(cross_entropy)(logits, jnp.ones((1, 1, 1), jnp.uint8))
    assert float(loss) == 2e4
    np.testing.assert_array_equal(grad, [[[[1.0, -1.0]]]])


def test_segmentation_loss_resizes_and_weighs_every_head(x64):
    main, labels = scores_and_labels((2, 9, 7))
    small = scores_and_labels((2, 3, 4), seed=3)[0]
    larger = scores_and_labels((2, 16, 8), seed=4)[0]

    def resized(logits):
        return (
            F.interpolate(torch.tensor(logits.transpose(0, 3, 1, 2)), (9, 7), mode="bilinear")
            .numpy()
            .transpose(0, 2, 3, 1)
        )

    output = Output(jnp.asarray(larger), (jnp.asarray(small), jnp.asarray(main)))
    loss = segmentation_loss(output, jnp.asarray(labels), (0.4, 0.25))
    parts = [torch_loss(x, labels)[0] for x in (resized(larger), resized(small), main)]
    assert float(loss) == pytest.approx(parts[0] + 0.4 * parts[1] + 0.25 * parts[2], rel=1e-12)


def test_every_auxiliary_head_needs_a_weight():
    logits = jnp.zeros((1, 2, 2, 3))
    with pytest.raises(ValueError, match="1 auxiliary outputs need as many weights, got 0"):
        segmentation_loss(Output(logits, (logits,)), jnp.zeros((1, 2, 2), jnp.uint8), ())


def test_scores_of_ignored_pixels_change_nothing():
    logits, labels = scores_and_labels()
    logits = jnp.asarray(logits, jnp.float32)
    expected = jax.value_and_grad(cross_entropy)(logits, labels)
    broken = jnp.where(labels[..., None] == 255, jnp.inf, logits)
    loss, grad = jax.value_and_grad(cross_entropy)(broken, labels)
    assert float(loss) == float(expected[0])
    np.testing.assert_array_equal(grad, expected[1])


def test_ids_outside_the_classes_do_not_count():
    logits, labels = scores_and_labels()
    beyond = np.where(labels == 255, logits.shape[-1], labels)
    assert float(cross_entropy(logits, beyond)) == float(cross_entropy(logits, labels))
