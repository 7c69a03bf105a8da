"""Every loss against a plain torch reference: value and gradient, float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from convert.parity.golden_rule import image
from convert.parity.golden_rule import labels as golden_labels
from flaxseg.models import Output
from flaxseg.ops.soft_iou import soft_iou
from flaxseg.training import losses

IGNORE = 255


def scores_and_labels(shape=(2, 9, 7), num_classes=5, seed=0, ignored=0.1):
    """Logits (B, H, W, K) float64 and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, size=shape)
    labels[rng.random(shape) < ignored] = IGNORE
    return 2 * rng.standard_normal((*shape, num_classes)), labels


def flat(scores, labels):
    """The labelled pixels in a row: (N, K), (N,)."""
    valid = labels != IGNORE
    return scores[valid], labels[valid]


def label_probability(scores, labels):
    """Softmax probability of the label; of ignored pixels, of class 0."""
    safe = torch.where(labels == IGNORE, 0, labels)
    return F.softmax(scores, -1).gather(-1, safe[..., None])[..., 0]


def plain(scores, labels, **options):
    return F.cross_entropy(scores.movedim(-1, 1), labels, ignore_index=IGNORE, **options)


def torch_cross_entropy(scores, labels, weight=None, label_smoothing=0.0, average="valid"):
    options = {"weight": weight, "label_smoothing": label_smoothing}
    if average == "valid":
        return plain(scores, labels, **options)
    total = plain(scores, labels, reduction="none", **options).sum()
    if weight is None:
        return total / labels.numel()
    _, kept = flat(scores, labels)
    return total / weight[kept].sum() * len(kept) / labels.numel()


def torch_focal(scores, labels, gamma, weight=None):
    scores, labels = flat(scores, labels)
    p = label_probability(scores, labels)
    weight = torch.ones(scores.shape[-1], dtype=scores.dtype) if weight is None else weight
    return (weight[labels] * -((1 - p) ** gamma) * p.log()).sum() / weight[labels].sum()


def torch_ohem(scores, labels, threshold):
    """CoinCheung's rule."""
    loss = plain(scores, labels, reduction="none").ravel()
    hard = loss[loss > -np.log(threshold)]
    least = int((labels != IGNORE).sum()) // 16
    return hard.mean() if len(hard) >= least else loss.topk(least).values.mean()


def torch_ohem_mmseg(scores, labels, threshold, min_kept):
    """mmsegmentation's rule with its default average."""
    valid = labels != IGNORE
    loss = plain(scores, labels, reduction="none")
    kept = min_kept * len(labels)
    hard = torch.zeros(labels.shape, dtype=bool)
    if threshold is None:
        order = loss[valid].argsort(descending=True)
        chosen = torch.zeros(len(order), dtype=bool)
        chosen[order[:kept]] = True
        hard[valid] = chosen
    else:
        p = label_probability(scores, labels).detach()
        ranked = p[valid].sort().values
        hard = valid & (p < max(ranked[min(kept, len(ranked) - 1)], threshold))
    return (loss * hard).sum() / labels.numel()


def torch_dice(scores, labels):
    scores, labels = flat(scores, labels)
    p, g = F.softmax(scores, -1), F.one_hot(labels, scores.shape[-1])
    dice = [
        2 * (p[:, k] * g[:, k]).sum() / (p[:, k].sum() + g[:, k].sum()) for k in labels.unique()
    ]
    return 1 - sum(dice) / len(dice)


def torch_lovasz(scores, labels):
    """Class by class, with the loss of every prefix of the sorted errors as a set function."""
    scores, labels = flat(scores, labels)
    p, total = F.softmax(scores, -1), 0
    for k in labels.unique():
        truth = labels == k
        errors, order = (truth.to(p.dtype) - p[:, k]).abs().sort(descending=True)
        wrong, before = torch.zeros_like(truth), 0.0
        for error, pixel in zip(errors, order, strict=True):
            wrong[pixel] = True
            jaccard = 1 - (truth & ~wrong).sum().double() / (truth | wrong).sum()
            total, before = total + error * (jaccard - before), jaccard
    return total / len(labels.unique())


def torch_iou(scores, labels):
    values = []
    for kept, truth in map(flat, scores, labels):
        p, g = F.softmax(kept, -1), F.one_hot(truth, scores.shape[-1])
        values.append(((p * g).sum() + 1e-3) / ((p + g - p * g).sum() + 1e-3))
    return -torch.stack(values).mean().log()


def per_image(reference):
    return lambda scores, labels: sum(map(reference, scores, labels)) / len(labels)


WEIGHT = np.linspace(0.5, 2.0, 5)
CE = losses.cross_entropy
CASES = {
    "cross_entropy": (CE, torch_cross_entropy, {}),
    "all pixels": (CE, torch_cross_entropy, {"average": "all"}),
    "weighted": (CE, torch_cross_entropy, {"weight": WEIGHT}),
    "weighted, all pixels": (CE, torch_cross_entropy, {"weight": WEIGHT, "average": "all"}),
    "smooth": (CE, torch_cross_entropy, {"label_smoothing": 0.1}),
    "smooth, weighted": (CE, torch_cross_entropy, {"label_smoothing": 0.2, "weight": WEIGHT}),
    "focal": (losses.focal, torch_focal, {"gamma": 2.0}),
    "focal 0.5, weighted": (losses.focal, torch_focal, {"gamma": 0.5, "weight": WEIGHT}),
    "ohem": (losses.ohem, torch_ohem, {"threshold": 0.7}),
    "ohem, hardest sixteenth": (losses.ohem, torch_ohem, {"threshold": 1e-3}),
    "ohem_mmseg": (losses.ohem_mmseg, torch_ohem_mmseg, {"threshold": 0.7, "min_kept": 10}),
    "ohem_mmseg, kept": (losses.ohem_mmseg, torch_ohem_mmseg, {"threshold": 0.1, "min_kept": 50}),
    "ohem_mmseg, all": (losses.ohem_mmseg, torch_ohem_mmseg, {"threshold": 0.1, "min_kept": 999}),
    "ohem_mmseg, rank": (losses.ohem_mmseg, torch_ohem_mmseg, {"threshold": None, "min_kept": 9}),
    "dice": (losses.dice, torch_dice, {}),
    "dice per image": (functools.partial(losses.dice, per_image=True), per_image(torch_dice), {}),
    "lovasz": (losses.lovasz_softmax, torch_lovasz, {}),
    "lovasz per image": (
        functools.partial(losses.lovasz_softmax, per_image=True), per_image(torch_lovasz), {}
    ),
    "iou": (losses.iou, torch_iou, {}),
}  # fmt: skip
MMSEG_AVERAGE = {losses.ohem_mmseg: {"average": "all"}}


def absent(scores, labels):
    """One class in no label."""
    return scores, np.where(labels == 1, 0, labels)


def two_classes(scores, labels):
    return scores[..., :2], np.where(labels == IGNORE, labels, labels % 2)


def confident(scores, labels):
    """Nearly every pixel right and sure."""
    return scores + 20 * (labels[..., None] == np.arange(scores.shape[-1])), labels


def cut(options, num_classes):
    """The options with the weights of the first classes."""
    weight = {"weight": options["weight"][:num_classes]} if "weight" in options else {}
    return options | weight


@functools.cache
def compiled(case, num_classes):
    """Value and gradient of one of our losses."""
    ours, _, options = CASES[case]
    options = cut(options, num_classes) | MMSEG_AVERAGE.get(ours, {})
    return jax.jit(jax.value_and_grad(functools.partial(ours, **options)))


SAME_SHAPE = [(case, change) for case in CASES for change in (None, absent, confident)]
TWO_CLASSES = [(case, two_classes) for case in ("weighted", "focal", "ohem", "dice", "lovasz")]


@pytest.mark.parametrize(("case", "change"), SAME_SHAPE + TWO_CLASSES)
def test_value_and_gradient(case, change, x64):
    _, reference, options = CASES[case]
    scores, labels = scores_and_labels()
    if change is not None:
        scores, labels = change(scores, labels)
    options = cut(options, scores.shape[-1])
    loss, grad = compiled(case, scores.shape[-1])(scores, labels.astype(np.uint8))

    tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    theirs = torch.tensor(scores, requires_grad=True)
    expected = reference(theirs, torch.tensor(labels), **tensors)
    expected.backward()
    assert loss.dtype == grad.dtype == jnp.float64
    assert float(loss) == pytest.approx(expected.item(), rel=1e-10)
    scale = abs(theirs.grad).max().item()
    np.testing.assert_allclose(grad, theirs.grad, rtol=1e-9, atol=1e-10 * scale)
    assert np.isfinite(np.asarray(grad)).all()


def recorded(seed, num_classes, size, factor=1):
    """Scores of the recorded values, (2, *size, num_classes)."""
    return factor * image(seed, (2, num_classes, *size)).astype(np.float64).transpose(0, 2, 3, 1)


def test_recorded_values(x64):
    """Numbers of the code of mmsegmentation, CoinCheung, speedinghzl and the Pet notebook."""
    labels, pet_labels = golden_labels(1, 5, (2, 9, 7)), golden_labels(1, 3, (2, 9, 7))

    @jax.jit
    def evaluate(large, small, pet, pet_labels):
        heads = Output(small, (small[..., ::-1],))
        return {
            "torch": losses.cross_entropy(large, labels),
            "mmseg": losses.cross_entropy(large, labels, average="all"),
            "ohem": losses.ohem(large, labels),
            "hardest": losses.ohem(large, labels, threshold=None),
            "official": losses.segmentation_loss(heads, labels, (0.4,), align_corners=True),
            "pet": losses.iou(pet, pet_labels),
            "pet iou": jnp.mean(soft_iou(pet, pet_labels)[0]),
        }

    values = evaluate(
        recorded(101, 5, (9, 7), 2),
        recorded(102, 5, (3, 4)),
        recorded(103, 3, (9, 7)),
        np.where(pet_labels == IGNORE, 0, pet_labels),
    )
    # mmsegmentation adds float32's epsilon to the number of pixels
    mmseg, valid = 2.729884020937655, 2.8904654337731235
    assert float(values.pop("mmseg")) == pytest.approx(mmseg, rel=2e-9)
    assert float(values["torch"]) == pytest.approx(valid, rel=2e-9)
    assert jax.device_get(values) == pytest.approx(
        {
            "torch": 2.890465436668673,
            "ohem": 3.0822327792923416,
            "hardest": 6.506225238344259,
            "official": 2.61121625285036,
            "pet": 1.7271254775384153,
            "pet iou": 0.17779475113058252,
        },
        rel=1e-12,
    )
