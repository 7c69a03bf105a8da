"""A network and a run small enough to train again and again."""

import functools
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from small_training import FLAGS

from flaxseg.ops import depthwise
from flaxseg.pictures import write_image
from flaxseg.training import logging, make_config
from flaxseg.training.checkpoints import Checkpoints
from flaxseg.training.runs import page
from flaxseg.training.setup import Setup
from flaxseg.training.workdir import CHECKPOINTS


@pytest.fixture
def real_pictures():
    """Asks for the curves and tables that `blank_pictures` leaves out."""


@pytest.fixture(autouse=True)
def blank_pictures(request, monkeypatch):
    """Each evaluation draws two pictures, which takes as long as tens of steps: blank ones do."""

    def draw(*args):
        (path,) = (value for value in args if isinstance(value, Path))
        write_image(path, np.zeros((8, 8, 3), np.uint8))

    if "real_pictures" not in request.fixturenames:
        for module, name in ((logging, "curves"), (logging, "confusion"), (page, "curves")):
            monkeypatch.setattr(module, f"draw_{name}", draw)


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
