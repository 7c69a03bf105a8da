"""What a run of several processes does differently: one of them writes, all of them agree."""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

from jax.sharding import Mesh
from rich.console import Console

from flaxseg import distributed
from flaxseg.errors import ConfigError
from flaxseg.inference.metrics import Scores
from flaxseg.training import workdir
from flaxseg.training.config import TrainConfig, flag, show
from flaxseg.training.monitor import Reading
from flaxseg.training.resuming import Change

_OWN = ("process_id", "data_dir")
"""Settings that may differ from process to process."""


def quiet_unless_first(console: Console | None) -> Console:
    """The console, standard output by default, of the process that shows progress; else silence."""
    if not distributed.is_first():
        return Console(quiet=True)
    return Console() if console is None else console


def check_settings(config: TrainConfig) -> None:
    """Makes sure that all processes train the same.

    Raises:
        ConfigError: naming the flags of this process that differ from those of process 0.
    """
    values = {key: value for key, value in config.to_json().items() if key not in _OWN}

    def difference(theirs: str) -> str:
        first = json.loads(theirs)
        return "; ".join(
            f"{flag(key)} is {show(first.get(key))} in process 0, {show(value)} here"
            for key, value in values.items()
            if first.get(key) != value
        )

    distributed.check_equal(f"settings of {config.directory}", json.dumps(values), difference)


@contextlib.contextmanager
def open_workdir(config: TrainConfig, mesh: Mesh, notify: Callable[[str], None]) -> Iterator[None]:
    """`workdir.open_workdir`, by the process that writes, once settings and data fit in all.

    Args:
        config: settings of the run.
        mesh: devices of all processes.
        notify: takes a line for the user.

    Raises:
        ConfigError: as there, or not all processes see the same folder.
    """
    distributed.meet(mesh)
    writes = distributed.is_first()
    with workdir.open_workdir(config, notify) if writes else contextlib.nullcontext():
        distributed.wait_for_all("the work directory is there")
        if workdir.is_new(config):
            raise ConfigError(
                f"--workdir {config.directory} is not the folder that process 0 has made: it must "
                "be on a file system that all hosts share"
            )
        yield


def record_changes(config: TrainConfig, step: int, changes: Collection[Change]) -> None:
    """`workdir.record_changes`, by the process that writes."""
    if distributed.is_first():
        workdir.record_changes(config, step, changes)


def known_to_all(mesh: Mesh) -> Callable[[bool], bool]:
    """What takes this process's answer to a question and gives that of all: yes if any said so."""
    if distributed.is_alone():
        return bool
    return distributed.AnyOf(mesh)


class NoLog:
    """Stands for `RunLog` in the processes that write nothing."""

    losses: Sequence[float] = ()
    accuracies: Sequence[float] = ()
    terms: Mapping[str, Sequence[float]] = MappingProxyType({})

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *exception) -> None:
        pass

    def step(self, reading: Reading, epoch: int) -> None:
        """Takes a training step."""

    def speed(self, images_per_second: float, step: int) -> None:
        """Takes the speed of training."""

    def scores(self, scores: Scores, step: int, epoch: int) -> None:
        """Takes an evaluation."""
