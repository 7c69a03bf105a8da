"""A network and a run small enough to train again and again."""

import functools
import os

import pytest
from rich.console import Console
from small_training import FLAGS

from flaxseg.ops import depthwise
from flaxseg.training import make_config
from flaxseg.training.checkpoints import Checkpoints
from flaxseg.training.setup import Setup
from flaxseg.training.workdir import CHECKPOINTS


@pytest.fixture
def quick_depthwise(monkeypatch):
    """XLA's own depthwise convolution: slower than ours on a CPU, but compiled in a moment."""

    forms = depthwise._forms
    monkeypatch.setattr(depthwise, "_forms", lambda *args: {"default": forms(*args)["default"]})


@pytest.fixture
def small_run():
    """Makes the config of a 3-epoch run of 2 steps each, evaluated after epochs 2 and 3."""
    return functools.partial(
        make_config,
        override=FLAGS,
        limit=20,
        batch_size=8,
        epochs=3,
        image_size=(32, 32),
        eval_size=(32, 32),
        resize="stretch",
        eval_every=2,
        log_every=4,
        metrics=("accuracy_of_all", "micro_iou:square", "soft_iou"),
        train_accuracy=True,
        checkpoint_every=0.0,
        devices=1,
    )


@pytest.fixture
def tiny_run(small_run):
    """The same with a network that compiles in a moment, and has a BatchNorm at its input."""
    override = ("depth=1", "width=16", "num_heads=2", "mlp_dim=16", "dropout=0.0")
    return functools.partial(small_run, model="vitseg", override=override, optimizer="sgd")


@pytest.fixture
def quiet():
    """A console that shows nothing and records it."""
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere, record=True, width=200)


@pytest.fixture
def last_snapshot():
    """Reads the last checkpoint of a run."""

    def read(config):
        setup = Setup.of(config)
        with Checkpoints(config.directory / CHECKPOINTS, setup.identity()) as checkpoints:
            return checkpoints.restore(setup.abstract_state(), notify=pytest.fail)

    return read
