"""The optimiser that settings ask for, and the groups of weights it makes."""

import optax
from rich.table import Table

from flaxseg import native
from flaxseg.models import Model
from flaxseg.training.config import TrainConfig
from flaxseg.training.freezing import Frozen, weight_sizes
from flaxseg.training.optim.groups import NO_DECAY, Rule, groups_table, make_rules, match
from flaxseg.training.optim.optimizers import make_optimizer


def configured_optimizer(
    config: TrainConfig, schedule: optax.Schedule, model: Model
) -> optax.GradientTransformation:
    """The optimiser of a run.

    Args:
        config: settings.
        schedule: learning rate of weights whose factor is 1.
        model: the network, real or abstract.

    Raises:
        ConfigError: layer decay for a network that has no blocks of attention.
    """
    return make_optimizer(
        config.optimizer,
        schedule,
        momentum=config.momentum,
        nesterov=config.nesterov,
        betas=config.betas,
        weight_decay=config.weight_decay,
        clip_grad=config.clip_grad,
        groups=match(configured_rules(config, model)),
    )


def configured_rules(config: TrainConfig, model: Model) -> tuple[Rule, ...]:
    """The rules of a run's groups of weights."""
    return make_rules(
        native.leaves(model),
        no_decay=NO_DECAY[config.optimizer] if config.no_decay is None else config.no_decay,
        head_lr=config.head_lr,
        layer_decay=config.layer_decay,
    )


def configured_table(config: TrainConfig, model: Model) -> Table:
    """The groups of weights of a run, with how many tensors and parameters each has."""
    frozen = Frozen.of(config.freeze, model).keys
    return groups_table(configured_rules(config, model), weight_sizes(model), frozen)
