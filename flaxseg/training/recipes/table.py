"""The list of recipes with their numbers, as `flaxseg recipes` prints it."""

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flaxseg.training.config import TrainConfig, flag, show
from flaxseg.training.recipes import NAMED, Recipe, find_recipe

_COLUMNS = ("recipe", "networks", "training", "source")
"""Few, so that no word of them is cut in a terminal of 80 letters."""


def recipes_table(model: str | None = None) -> RenderableType:
    """All named recipes, or those of one network with every field that differs from the defaults.

    Args:
        model: network name.

    Raises:
        ConfigError: unknown network.
    """
    if model is None:
        return _overview()
    default = _details("default on photographs", find_recipe(model, "default", "camvid"))
    named = [_details(name, NAMED[name][model]) for name in NAMED if model in NAMED[name]]
    return Group(default, *named)


def _overview() -> Table:
    table = Table(title="recipes; --model M shows every field")
    for name in _COLUMNS:
        table.add_column(name, no_wrap=name in ("recipe", "networks"), overflow="fold")
    for name, recipes in NAMED.items():
        rows: dict[tuple[str, str], list[str]] = {}
        for network, recipe in recipes.items():
            rows.setdefault((_numbers(network, recipe), recipe.source), []).append(network)
        for (numbers, source), networks in rows.items():
            table.add_row(name, _abbreviated(networks), numbers, source)
        table.add_section()
    return table


def _numbers(network: str, recipe: Recipe) -> str:
    """Data, batch, length, optimiser and rate: "pets, 64 of 128×128, 50 epochs, adam 0.1"."""
    config = TrainConfig.from_json({"model": network, **recipe.fields})
    length = f"{config.steps} steps" if config.steps else f"{config.epochs} epochs"
    crop = "×".join(map(str, config.image_size))
    batch, optimizer = f"{config.batch_size} of {crop}", f"{config.optimizer} {config.lr:g}"
    return ", ".join((config.data, batch, length, optimizer))


def _abbreviated(networks: list[str]) -> str:
    more = [f"and {len(networks) - 3} more"] if len(networks) > 4 else []
    return "\n".join([*(networks[:3] if more else networks), *more])


def _details(title: str, recipe: Recipe) -> RenderableType:
    fields = [_as_flag(key, value) for key, value in recipe.fields.items()]
    heading = Text(f"{title} ({recipe.source})", style="bold")
    if recipe.start:
        heading.append(f"; starts from {recipe.start}: --init FILE")
    return Group(heading, Padding(Text("  ".join(fields)), (0, 0, 1, 2)))


def _as_flag(name: str, value: Any) -> str:
    """A field as the command line takes it."""
    if isinstance(value, bool):
        return flag(name if value else f"no_{name}")
    return f"{flag(name)} {show(value)}"
