"""Checkpoints of a run: asynchronous, atomic, the last two and the best one."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN

from flaxseg import distributed
from flaxseg.errors import CheckpointError
from flaxseg.training.resuming import check_identity
from flaxseg.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class History:
    """What the loop remembers besides the training state.

    Attributes:
        best_miou: best score so far, None before the first evaluation.
        best_step: number of updates at which it was measured.
        losses: of the steps since the last row of metrics.csv.
        accuracies: of the same steps, if they are logged.
        terms: of the loss in the same steps, by name, if they are logged.
        waited: evaluations since the best one.
        ended: step at which the clock ended the run, to be evaluated out of turn.
        seconds: that the run took; no two take equally long.
    """

    best_miou: float | None = None
    best_step: int | None = None
    losses: tuple[float, ...] = ()
    accuracies: tuple[float, ...] = ()
    terms: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    waited: int = 0
    ended: int | None = None
    seconds: float = dataclasses.field(default=0.0, compare=False)


class Snapshot(NamedTuple):
    """A restored checkpoint.

    Attributes:
        state: training state, on the devices.
        position: state of the data iterator behind the last batch that was used.
        history: what the loop remembers.
        run: the identity of the run that wrote it, see `Setup.identity`; empty before the first.
    """

    state: TrainState
    position: Any
    history: History
    run: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one work directory.

    `last/` holds the two latest ones, so that one is left if the other is damaged; `best/` the
    one with the best score. Saving only copies the state to the host and returns; an unfinished
    checkpoint has another name and is ignored and removed when the run resumes.
    """

    def __init__(self, directory: Path, run: dict[str, Any]):
        """Opens or makes the folder.

        Args:
            directory: folder of the checkpoints.
            run: its identity, JSON values; what a checkpoint must share of it with the run that
                restores it, `check_identity` tells.
        """
        self.directory = directory.resolve()
        self._run = run
        self._last = _manager(self.directory / "last", keep=2)
        self._best = _manager(self.directory / "best", keep=1)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, exception, trace) -> None:
        if exception is not None and not distributed.is_alone():
            return  # to close is to wait for the other processes, who do not know of the error
        try:
            with contextlib.ExitStack() as both:
                both.callback(_writing, self.directory, self._best.close)
                both.callback(_writing, self.directory, self._last.close)
        except CheckpointError:
            # The error that ends the run tells more than its last checkpoint.
            if exception is None:
                raise

    @property
    def latest_step(self) -> int | None:
        """Number of updates of the latest checkpoint, saved or being saved."""
        return self._last.latest_step()

    def save(self, step: int, state: TrainState, position: Any, history: History) -> None:
        """Starts to save; does nothing if this step is saved already."""
        if self._last.latest_step() != step:
            self._save(self._last, step, Snapshot(state, position, history, self._run))

    def save_best(self, step: int, state: TrainState, position: Any, history: History) -> None:
        """Starts to save the best state so far, apart from the latest ones."""
        if step not in self._best.all_steps():
            self._save(self._best, step, Snapshot(state, position, history, self._run))

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
            CheckpointError: if it could not be written.
        """
        _writing(self.directory, self._last.wait_until_finished)
        _writing(self.directory, self._best.wait_until_finished)

    def restore(self, abstract: TrainState, notify: Callable[[str], None]) -> Snapshot | None:
        """The latest checkpoint that every process can read, or None if there never was one.

        Damaged ones are moved to `damaged/` once an older one has been read.

        Args:
            abstract: shapes, dtypes and shardings of the state.
            notify: takes a line for the user about each damaged checkpoint.

        Raises:
            CheckpointError: if a checkpoint belongs to another run, or none is readable.
        """
        damaged: dict[int, str] = {}
        while (step := self._newest_but(damaged)) is not None:
            snapshot, error = None, None
            try:
                snapshot = self._read(step, abstract)
            except CheckpointError:
                raise
            except Exception as found:  # What a damaged file raises differs by which file it is.
                error = _short(found)
            reason = distributed.said_by_any(error)
            if reason is not None:
                damaged[step] = reason
                continue
            for line in self._set_aside(damaged):
                notify(f"{line}: going on from step {step}")
            self._begin_after(step)
            return snapshot
        if damaged:
            reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
            raise CheckpointError(
                f"{self.directory}: no checkpoint can be read ({reasons}): restore the folder "
                "from a backup, or begin anew in another --workdir"
            )
        return None

    def _newest_but(self, damaged: Container[int]) -> int | None:
        """The latest step that any process sees a checkpoint of, the damaged ones left out."""
        own = (step for step in self._last.all_steps() if step not in damaged)
        step = distributed.largest(max(own, default=-1))
        return step if step >= 0 else None

    def _save(self, manager: ocp.CheckpointManager, step: int, snapshot: Snapshot) -> None:
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(snapshot.state),  # pyright: ignore[reportArgumentType]
            position=ocp.args.JsonSave(snapshot.position),
            history=ocp.args.JsonSave(dataclasses.asdict(snapshot.history)),
            run=ocp.args.JsonSave(dict(snapshot.run)),
        )
        _writing(self.directory, lambda: manager.save(step, args=items, force=True))

    def _read(self, step: int, abstract: TrainState) -> Snapshot:
        path = self.directory / "last" / str(step)
        # Of several processes one may see a damaged file where the others see none. The manager
        # would let these wait for that one, which is with the next checkpoint.
        alone = ocp.options.MultiprocessingOptions(None, {jax.process_index()})
        handler = ocp.CompositeCheckpointHandler()
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            # The run first: a state of other shapes would raise an error that names no flag.
            items = ocp.args.Composite(run=ocp.args.JsonRestore())
            run = reader.restore(path, args=items)["run"]
            check_identity(self.directory, run, self._run)
            items = ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract),  # pyright: ignore[reportArgumentType]
                position=ocp.args.JsonRestore(),
                history=ocp.args.JsonRestore(),
            )
            restored = reader.restore(path, args=items)
        lists = {k: tuple(v) for k, v in restored["history"].items() if isinstance(v, list)}
        history = restored["history"] | lists
        return Snapshot(restored["state"], restored["position"], History(**history), run)

    def _set_aside(self, damaged: dict[int, str]) -> Iterator[str]:
        for step, reason in damaged.items():
            source = self.directory / "last" / str(step)
            target = self.directory / "damaged" / str(step)
            while target.exists():
                target = target.with_name(target.name + "_")
            distributed.wait_for_all("a place for a damaged checkpoint is found")
            if distributed.is_first() and source.exists():
                target.parent.mkdir(exist_ok=True)
                source.rename(target)
            yield f"checkpoint of step {step} is damaged ({reason}), moved to {target}"

    def _begin_after(self, step: int) -> None:
        """Makes this step the latest one: the run measures those of later ones again."""
        if distributed.is_first():
            for later in (s for s in self._best.all_steps() if s > step):
                shutil.rmtree(self.directory / "best" / str(later))
        distributed.wait_for_all("the latest checkpoint is the restored one")
        self._last.reload()
        self._best.reload()


def _manager(directory: Path, keep: int) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        preservation_policy=LatestN(keep),
        cleanup_tmp_directories=True,
        # Both managers write at once, and their processes must not meet in one another's barriers.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            barrier_sync_key_prefix=directory.name
        ),
    )
    handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
    # Compression takes more time than writing does, from the training beside it, and saves 6 %.
    handler = ocp.PyTreeCheckpointHandler(use_compression=False)
    handlers.add("state", ocp.args.PyTreeSave, handler)
    return ocp.CheckpointManager(directory, options=options, handler_registry=handlers)


def _writing(directory: Path, action: Callable[[], Any]) -> None:
    try:
        action()
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{directory}: the checkpoint could not be written ({_short(error)}); the ones before "
            "it are whole"
        ) from error


def _short(error: Exception) -> str:
    """The first line of an error, which may be many pages long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
