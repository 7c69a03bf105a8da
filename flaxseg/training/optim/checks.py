"""Settings of an optimiser that do not go together."""

from flaxseg.errors import ConfigError
from flaxseg.training.config import TrainConfig


def check_combinations(config: TrainConfig) -> None:
    """Makes sure that no setting is without effect or against another.

    Raises:
        ConfigError: naming both flags.
    """
    parts = config.accumulate
    complaints = {
        f"--accumulate is {parts}, which does not divide --batch-size {config.images_per_step}": (
            config.images_per_step % parts
        ),
        "--nesterov needs --momentum above 0": config.nesterov and not config.momentum,
        "--schedule multistep needs --milestones, the epochs after which the rate drops": (
            config.schedule == "multistep" and not config.milestones
        ),
        "--ema and --swa-start are two averages of the weights: leave one out": (
            config.ema is not None and config.swa_start is not None
        ),
        "--swa-lr needs --swa-start, the epoch from which it holds": (
            config.swa_lr is not None and config.swa_start is None
        ),
        f"--swa-start is {config.swa_start}, it must be below --epochs {config.epochs}": (
            config.swa_start is not None
            and config.steps is None
            and config.swa_start >= config.epochs
        ),
        f"--min-lr is {config.min_lr}, above --lr {config.lr}": config.min_lr > config.lr,
    }
    for words, holds in complaints.items():
        if holds:
            raise ConfigError(words)


def check_parts(config: TrainConfig, devices: int) -> None:
    """Makes sure that the devices can share each part of a batch.

    Raises:
        ConfigError: naming the flags.
    """
    if config.images_per_step % (config.accumulate * devices):
        raise ConfigError(
            f"--batch-size is {config.images_per_step}, which {devices} devices cannot share "
            f"equally in {config.accumulate} parts: make it a multiple of "
            f"{config.accumulate * devices}, or use fewer with --devices or --accumulate"
        )
