"""From the flags of the loss to what is minimised."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from flaxseg.data.statistics import Statistics
from flaxseg.errors import ConfigError
from flaxseg.labels import LabelSet
from flaxseg.models import Output
from flaxseg.training import TrainConfig, losses, make_config
from flaxseg.training.losses import Objective
from flaxseg.training.losses.class_weights import class_weights
from flaxseg.training.setup import Setup
from flaxseg.training.workdir import check_workdir, open_workdir

LABELS = LabelSet("street", ("road", "traffic light", "sky"), ((0, 0, 0),) * 3)
REPORT = Statistics(
    sizes=np.full((3, 2), 10),
    counts=np.pad(np.array([[30, 20, 0], [0, 0, 0], [30, 0, 10]]), ((0, 0), (0, 253))),
    num_classes=3,
)


def objective(aux=(), **fields):
    config = make_config(**fields)
    return Objective.of(config, labels=LABELS, aux_weights=aux, count=lambda: REPORT)


def total(made, *inputs):
    """What the objective minimises."""
    return float(losses.added(made.loss(*inputs).values()))


@pytest.fixture
def output():
    rng = np.random.default_rng(0)
    main, aux = (jnp.asarray(rng.standard_normal((2, size, size, 3))) for size in (8, 3))
    return Output(main, (aux,))


@pytest.fixture
def labels():
    rng = np.random.default_rng(1)
    return jnp.asarray(np.where(rng.random((2, 8, 8)) < 0.2, 255, rng.integers(0, 3, (2, 8, 8))))


def test_the_default_is_the_cross_entropy_of_before(output, labels):
    made = objective(aux=(0.4,))
    expected = losses.segmentation_loss(output, labels, (0.4,))
    assert made.aux_weights == (0.4,)
    assert total(made, output, labels, (0.4,)) == float(expected)
    assert made.identity() == {}
    assert float(losses.labelled_pixels(output, labels)) == (np.asarray(labels) != 255).sum()


def test_losses_are_combined_by_name_and_weight(output, labels):
    logits = output.logits
    made = objective(
        loss=("cross_entropy", "focal=0.5", "dice=3", "lovasz=2", "iou=0.25"),
        class_weights=("1", "2", "0.5"), label_smoothing=0.1, loss_average="all",
        focal_gamma=1.0, loss_per_image=True,
    )  # fmt: skip
    weight = np.array([1, 2, 0.5])
    expected = (
        losses.cross_entropy(logits, labels, weight, label_smoothing=0.1, average="all")
        + 0.5 * losses.focal(logits, labels, weight, gamma=1.0, average="all")
        + 3 * losses.dice(logits, labels, per_image=True)
        + 2 * losses.lovasz_softmax(logits, labels, per_image=True)
        + 0.25 * losses.iou(logits, labels)
    )
    terms = made.loss(Output(logits, ()), labels, ())
    assert tuple(terms) == made.terms == ("cross_entropy", "focal", "dice", "lovasz", "iou")
    assert total(made, Output(logits, ()), labels, ()) == pytest.approx(float(expected), 1e-6)


def test_auxiliary_heads_may_have_their_own_loss(output, labels):
    made = objective(
        aux=(0.3,), loss=("ohem_mmseg",), ohem_threshold=0.5, ohem_min_kept=4,
        aux_loss=("ohem=2",), aux_weight=(0.7,), loss_align_corners=True,
    )  # fmt: skip
    plain = {
        "aux": lambda *args, **kw: 2 * losses.ohem(*args, threshold=0.5, **kw),
        "align_corners": True,
    }
    expected = losses.segmentation_loss(
        output, labels, (0.7,), **plain,
        main=lambda *args, **kw: losses.ohem_mmseg(*args, threshold=0.5, min_kept=4, **kw),
    )  # fmt: skip
    assert total(made, output, labels, made.aux_weights) == pytest.approx(float(expected), 1e-6)
    assert made.terms == ("ohem_mmseg", "aux1")


@pytest.mark.parametrize(
    ("given", "own", "used"),
    [
        ((), (0.4, 0.2), (0.4, 0.2)),
        ((0.5,), (0.4, 0.2), (0.5, 0.5)),
        ((1.0, 0.0), (0.4, 0.2), (1.0, 0.0)),
        ((0.0,), (0.4, 0.2), ()),
        ((), (), ()),
    ],
)
def test_auxiliary_weights(given, own, used):
    assert objective(aux=own, aux_weight=given).aux_weights == used


def test_class_weights():
    # frequencies 60/90, 20/50, 10/40
    median = class_weights(("median_frequency",), LABELS, lambda: REPORT)
    assert median == pytest.approx(np.array([0.4 / (60 / 90), 1, 0.4 / 0.25]))
    enet = class_weights(("enet",), LABELS, lambda: REPORT)
    assert enet == pytest.approx(1 / np.log(1.02 + np.array([6, 2, 1]) / 9))
    assert np.array_equal(enet, class_weights(("auto",), LABELS, lambda: REPORT))
    assert class_weights(("1", "0", "2.5"), LABELS, pytest.fail).tolist() == [1, 0, 2.5]
    assert class_weights(("traffic light=5",), LABELS, pytest.fail).tolist() == [1, 5, 1]
    assert class_weights((), LABELS, pytest.fail) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": ()}, "--loss is empty, it must be at least one loss, such as cross_entropy"),
        ({"loss": ("dise",)}, "--loss dise: no loss is called 'dise'; did you mean dice?"),
        ({"aux_loss": ("ohm",)}, "--aux-loss ohm: no loss is called 'ohm'; did you mean ohem"),
        ({"loss": ("dice=0",)}, "--loss dice=0: the weight must be a number above 0"),
        ({"loss": ("dice=x",)}, "--loss dice=x: the weight must be a number above 0"),
        ({"loss": ("dice=",)}, "--loss dice=: the weight must be a number above 0"),
        ({"loss": ("dice", "dice=2")}, "--loss names dice twice: give it one weight, as dice=2"),
        ({"loss": ("dice",), "class_weights": ("auto",)}, "--class-weights change nothing in"),
        ({"loss": ("dice",), "label_smoothing": 0.1}, "--label-smoothing changes nothing"),
        ({"label_smoothing": 1.0}, "--label-smoothing is 1.0, it must be from 0 to below 1"),
        ({"class_weights": ("atuo",)}, "--class-weights atuo: .* or a rule; did you mean auto?"),
        ({"class_weights": ("-1",)}, "--class-weights -1: it must be a number of at least 0"),
        ({"class_weights": ("auto", "1")}, "--class-weights auto 1: auto must stand alone"),
        ({"class_weights": ("road=2", "1")}, "give numbers alone, or CLASS=NUMBER throughout"),
        ({"class_weights": ("0", "0", "0")}, "--class-weights are all 0: at least one class"),
        ({"aux_weight": (-1.0,)}, "--aux-weight is -1.0, it must be numbers of at least 0"),
        ({"ohem_threshold": 0.0}, "--ohem-threshold is 0.0, it must be above 0 and at most 1"),
        ({"loss_average": "vaild"}, "--loss-average is 'vaild', .*; did you mean valid"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_each_other(fields, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_weights": ("1", "2")}, "are 2 numbers, but street has 3 classes: give one each"),
        ({"class_weights": ("rood=2",)}, "rood=2: street has no class 'rood'; did you mean road?"),
        ({"aux_weight": (0.4,)}, "--aux-weight is 0.4, but the network has no auxiliary heads"),
        ({"aux_loss": ("dice",)}, "--aux-loss needs a network that trains auxiliary heads"),
        ({"aux_weight": (1.0, 2.0), "aux": (1, 1, 1)}, "has 3 auxiliary heads: give one number"),
    ],
)
def test_settings_that_do_not_fit_the_run(fields, message):
    with pytest.raises(ConfigError, match=message):
        objective(**fields)


def test_config_of_before_loads():
    values = make_config().to_json()
    for name in ("loss", "aux_loss", "aux_weight", "class_weights", "loss_average"):
        del values[name]
    assert TrainConfig.from_json(values) == make_config()


def test_another_loss_is_another_run(small_run, tmp_path):
    config = small_run(workdir=str(tmp_path), limit=8, loss=("dice=2", "focal"))
    with open_workdir(config, pytest.fail):
        pass
    with pytest.raises(ConfigError, match="--loss was dice=2 focal, now lovasz"):
        check_workdir(dataclasses.replace(config, loss=("lovasz",)))
    # Class weights follow from the labels, which may change under the same flags.
    setup = Setup.of(dataclasses.replace(config, class_weights=("auto",)))
    assert setup.objective.class_weights.shape == (6,)
    assert setup.identity()["loss"] == ["dice=2", "focal"]
    assert setup.identity()["class_weights"][0] == f"{setup.objective.class_weights[0]:.4g}"
