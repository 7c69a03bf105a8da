"""The work directory: which run it belongs to, and whether that run is over."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from filelock import Timeout

from flaxseg.errors import ConfigError
from flaxseg.files import replace_text
from flaxseg.locks import let_go, lock_on
from flaxseg.model_dir import CONFIG_FILE
from flaxseg.origin import Chain, Origin, chain_from_json, chain_to_json
from flaxseg.training.config import TrainConfig, differences, is_fixed, resolved
from flaxseg.training.resuming import Change, ways_out, write_history

RESULT_FILE = "result.json"
METRICS_FILE = "metrics.csv"
JSON_FILE = "metrics.jsonl"
CONFUSION_FILE = "confusion.png"
CURVES_FILE = "curves.png"
TRAIN_BATCH_FILE = "train_batch.png"
LABELS_FILE = "labels.png"
PAGE_FILE = "report.html"
CHECKPOINTS = "checkpoints"
OVERLAYS = "overlays"
TENSORBOARD = "tensorboard"
LOCK_FILE = ".lock"
ORIGIN_FILE = "origin.json"
"""Where the weights come from that the run starts from, for it may outlive them."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
        best_miou: best mean intersection over union on the validation images, 0 to 1; None before
            the first evaluation.
        best_step: number of updates at which it was measured.
        step: number of updates made.
        metrics: scores of the last evaluation (miou, pixel_accuracy, mean_accuracy).
        workdir: folder with everything the run wrote.
        finished: False if a signal or `max_steps` ended it early.
        ended_by: setting that ended it before its last step, and its value; empty if none did.
    """

    best_miou: float | None
    best_step: int | None
    step: int
    metrics: dict[str, float | None]
    workdir: Path
    finished: bool
    ended_by: dict[str, float] = dataclasses.field(default_factory=dict)


def check_workdir(config: TrainConfig) -> bool:
    """Makes sure that the work directory is new or belongs to the same run.

    Returns:
        Whether the run goes on with changed settings, which --allow-changes allows.

    Raises:
        ConfigError: listing the flags that differ from the run that the directory belongs to,
            unless it may go on with them and is told to.
    """
    path = config.directory / CONFIG_FILE
    for folder in (config.directory, *config.directory.parents):
        if folder.exists() and not folder.is_dir():
            raise ConfigError(
                f"--workdir {config.directory}: {folder} is a file, choose another folder"
            )
    if not path.exists():
        return False
    try:
        there = resolved(TrainConfig.load(path))
    except ConfigError as error:
        raise ConfigError(f"{error}: choose another --workdir") from error
    changes = differences(there, config)
    fixed = [words for name, words in changes.items() if is_fixed(name, there, config)]
    if fixed or (changes and not config.allow_changes):
        raise ConfigError(
            f"--workdir {config.directory} belongs to another run "
            f"({'; '.join(fixed or changes.values())}): {ways_out(bool(fixed))}"
        )
    return bool(changes)


def is_new(config: TrainConfig) -> bool:
    """Whether no run has begun in the work directory."""
    return not (config.directory / CONFIG_FILE).exists()


@contextlib.contextmanager
def open_workdir(config: TrainConfig, notify: Callable[[str], None]) -> Iterator[None]:
    """Context in which no second run is at work in the directory; makes it, with its config.

    Args:
        config: settings of the run.
        notify: takes a line for the user where nothing can keep a second run out.

    Raises:
        ConfigError: it cannot be written, belongs to another run, or one is at work in it.
    """
    with contextlib.ExitStack() as held:
        try:
            config.directory.mkdir(parents=True, exist_ok=True)
            held.enter_context(_held(config.directory, notify))
            check_workdir(config)  # again: another run may have begun there meanwhile
            if is_new(config):
                _write_config(config)
        except OSError as error:
            raise ConfigError(f"--workdir {config.directory} cannot be written: {error}") from error
        yield


@contextlib.contextmanager
def _held(directory: Path, notify: Callable[[str], None]) -> Iterator[None]:
    lock = lock_on(directory / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"--workdir {directory}: another run is at work there (it holds {LOCK_FILE}): wait for "
            "its end, or choose another folder"
        ) from None
    except OSError as error:
        notify(
            f"{directory} cannot be locked ({error.strerror or error}): nothing keeps a second run "
            "out of it"
        )
    try:
        yield
    finally:
        if lock.is_locked:
            let_go(lock)


def record_changes(config: TrainConfig, step: int, changes: Collection[Change]) -> None:
    """Makes the work directory that of a run which goes on from `step` with these settings.

    In this order: killed in between, the same command does it again, and the one before it finds
    an unfinished run of its own.
    """
    (config.directory / RESULT_FILE).unlink(missing_ok=True)
    for name in (TRAIN_BATCH_FILE, LABELS_FILE) if changes else ():
        (config.directory / name).unlink(missing_ok=True)  # they are drawn anew
    write_history(config.directory, step, changes)
    _write_config(config)


def _write_config(config: TrainConfig) -> None:
    replace_text(config.directory / CONFIG_FILE, json.dumps(config.to_json(), indent=2) + "\n")


def write_origin(config: TrainConfig, chain: Chain) -> None:
    """Keeps where the weights come from that a run starts from."""
    text = json.dumps(chain_to_json(chain), indent=2, ensure_ascii=False)
    replace_text(config.directory / ORIGIN_FILE, text + "\n")


def read_origin(config: TrainConfig) -> Chain:
    """Where the weights come from that a run started from; nothing for random numbers.

    Of a run that kept nothing, as those of earlier releases did, the checkpoint's name is left.

    Raises:
        ConfigError: the file is damaged.
    """
    path = config.directory / ORIGIN_FILE
    if config.init is None:
        return ()
    try:
        return chain_from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return (Origin(source=config.init),)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'{path} is damaged ({error}): it must hold a list of steps, such as "origin" in the '
            "config.json of the model that --init names"
        ) from error


def read_result(workdir: Path) -> FitResult | None:
    """The result of the finished run in a work directory, or None if it is not finished.

    Raises:
        ConfigError: if the file is damaged.
    """
    try:
        values: dict[str, Any] = json.loads((workdir / RESULT_FILE).read_text())
        return FitResult(**values, workdir=workdir, finished=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        path = workdir / RESULT_FILE
        raise ConfigError(f"{path} is damaged ({error}): delete it to evaluate again") from error


def write_result(result: FitResult) -> None:
    """Marks the run as finished."""
    values = dataclasses.asdict(result)
    del values["workdir"], values["finished"]
    replace_text(result.workdir / RESULT_FILE, json.dumps(values, indent=2) + "\n")
