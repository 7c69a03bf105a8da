"""Several processes that train one network: how they find each other, agree, and end together.

Every process runs the same program. What one of them alone knows (a signal, the time, an error)
must become known to all before any acts on it, or the others wait for ever in a sum that the first
has left.
"""

import contextlib
import importlib.util
import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from flaxseg import lifeline
from flaxseg.errors import ConfigError, FlaxsegError, TrainingError
from flaxseg.sharding import put_batch, replicated
from flaxseg.tpu import has_tpu

_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
"""Variables in which a launcher tells how many processes it started."""

_FAILURE, _LIFELINE = "flaxseg/failure", "flaxseg/lifeline"
_MEND, _BUG, _INTERRUPTED = 2, 1, 130
_SECONDS_TO_SPREAD = 3.0
_SECONDS_TO_HEAR = 5.0
_MILLISECONDS_TO_AGREE = 24 * 3600 * 1000
"""A process may have much more to prepare than the others. If it is gone they hear of that."""

_LINE_BYTES = 256
_meetings = itertools.count()


class Launch(NamedTuple):
    """How this process takes part in a run.

    Attributes:
        mode: "auto" joins the processes that a launcher started, "off" stays alone.
        coordinator: HOST:PORT of process 0, or None where the launcher tells it.
        num_processes: of the run, or None.
        process_id: this process, or None.
    """

    mode: str = "auto"
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def check(self) -> "Launch":
        """Returns itself.

        Raises:
            ConfigError: settings that are incomplete or contradict each other.
        """
        flags = ("--coordinator", "--num-processes", "--process-id")
        given: dict[str, Any] = dict(zip(flags, self[1:], strict=True))
        missing = [name for name, value in given.items() if value is None]
        if len(missing) == len(given):
            return self
        if self.mode == "off":
            raise ConfigError(f"--distributed off leaves no use for {_list(given, missing)}")
        if missing:
            raise ConfigError(
                f"{_list(given, missing)} needs {' and '.join(missing)} too: all three, or none "
                "where SLURM, Open MPI or a TPU pod tells them"
            )
        host, _, port = (self.coordinator or "").rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"--coordinator is {self.coordinator!r}, it must be HOST:PORT")
        if not 0 <= (self.process_id or 0) < (self.num_processes or 1):
            raise ConfigError(
                f"--process-id is {self.process_id}, with --num-processes {self.num_processes} it "
                f"must be from 0 to {(self.num_processes or 1) - 1}"
            )
        return self


def _list(given: dict[str, Any], missing: list[str]) -> str:
    return " and ".join(name for name in given if name not in missing)


def launched_by_cluster(environment: Mapping[str, str]) -> bool:
    """Whether a launcher may have started several processes, so that JAX should look for them.

    A job of one task is left alone: JAX would show it one GPU of those it has. So is a machine
    without a TPU, on which libtpu only compiles.
    """
    counts = [environment[name] for name in _COUNTS if name in environment]
    if counts:
        return any(count != "1" for count in counts)
    return importlib.util.find_spec("libtpu") is not None and has_tpu()


@contextlib.contextmanager
def joined(launch: Launch, timeout: int = 300) -> Iterator[None]:
    """Context in which this process and the others of its run are one JAX program.

    Must be entered before JAX is used. An error inside ends all processes: this one shows it and
    the others show it too, each in one line. With a single process it does nothing.

    Args:
        launch: who the others are.
        timeout: seconds to wait for all of them.

    Raises:
        ConfigError: the settings do not fit. If the others do not come, the process ends.
    """
    if not _join(launch.check(), timeout):
        yield
        return
    watch = threading.Thread(target=_watch, daemon=True)
    watch.start()
    try:
        over = _tie_together()
        yield
        over.set()
        jax.distributed.shutdown()
        # A thread that returns from JAX's code to an interpreter that is ending aborts the process.
        watch.join(_SECONDS_TO_HEAR)
    except BaseException as error:
        _end_all(error)


def _join(launch: Launch, timeout: int) -> bool:
    """Finds the other processes; False if there are none."""
    if launch.coordinator is None and (launch.mode == "off" or not launched_by_cluster(os.environ)):
        return False
    # Signals are the training loop's: JAX's own service would take SIGTERM away from it.
    jax.config.update("jax_enable_preemption_service", False)
    # JAX would abort, with pages of addresses.
    alarm = threading.Timer(timeout, _give_up, (launch.coordinator, timeout))
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            launch.coordinator,
            launch.num_processes,
            launch.process_id,
            initialization_timeout=2 * timeout,
        )
    except (ValueError, RuntimeError) as error:
        if launch.coordinator is None and "coordinator_address" in str(error):
            return False  # no cluster after all
        raise ConfigError(f"the processes cannot be joined: {_first_line(error)}") from error
    finally:
        alarm.cancel()
    return not is_alone()


def _give_up(coordinator: str | None, seconds: int) -> None:
    """Ends a process that waits for others."""
    where = coordinator or "the address that the launcher gives"
    line = (
        f"error: the processes did not find each other at {where} within {seconds} s: start all of "
        "them with the same --coordinator and --num-processes, each with its own --process-id; a "
        "process alone needs --distributed off\n"
    )
    os.write(2, line.encode())
    os._exit(_MEND)


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return jax.process_index() == 0


def index() -> int:
    """Number of this process, from 0 on."""
    return jax.process_index()


def count() -> int:
    """Number of processes of the run."""
    return jax.process_count()


def is_alone() -> bool:
    """Whether the run has this process only."""
    return count() == 1


def meet(mesh: Mesh) -> None:
    """Returns once every process has come here, however late, with their devices connected.

    XLA for CPUs connects a group of devices when it first sums over them, and gives up if one of
    them is 30 s late, for instance because its process opens the data over a slower network. Once
    connected, devices wait as long as they must.

    Args:
        mesh: the devices; all sums that a training makes are along its axes.
    """
    if is_alone():
        return
    _client().wait_at_barrier(f"flaxseg/meeting {next(_meetings)}", _MILLISECONDS_TO_AGREE)
    for axes in (mesh.axis_names, *mesh.axis_names):
        jax.block_until_ready(_sum_along(axes, mesh))


def _sum_along(axes: str | tuple[str, ...], mesh: Mesh) -> jax.Array:
    split = PartitionSpec(mesh.axis_names)
    add = jax.shard_map(lambda x: jax.lax.psum(x, axes), mesh=mesh, in_specs=split, out_specs=split)
    return jax.jit(add)(put_batch(np.zeros(len(_own_devices(mesh)), np.float32), mesh))


def _own_devices(mesh: Mesh) -> list[Any]:
    """Those of this process."""
    return [d for d in mesh.devices.flat if d.process_index == jax.process_index()]


def wait_for_all(place: str) -> None:
    """Returns once every process has come to this place."""
    if not is_alone():
        multihost_utils.sync_global_devices(place)


def is_true_of_any(value: bool) -> bool:
    """Whether a value is true in any process; waits for all."""
    return value if is_alone() else bool(np.any(multihost_utils.process_allgather(value)))


def largest(value: int) -> int:
    """The largest of the numbers of all processes; waits for all."""
    return value if is_alone() else int(np.max(multihost_utils.process_allgather(value)))


def said_by_any(line: str | None) -> str | None:
    """The line of the first process that has one, with its number; waits for all.

    A process alone gets its own. Of a long one only the beginning is sent.
    """
    if is_alone():
        return line
    sent = np.zeros(_LINE_BYTES, np.uint8)
    data = (line or "").encode()[:_LINE_BYTES]
    sent[: len(data)] = np.frombuffer(data, np.uint8)
    for process, received in enumerate(multihost_utils.process_allgather(sent)):
        if received.any():
            text = received.tobytes().rstrip(b"\0").decode(errors="ignore")
            return f"process {process}: {text}"
    return None


def joined_parts(part: np.ndarray) -> np.ndarray:
    """The arrays of all processes one after the other; waits for all."""
    return part if is_alone() else np.concatenate(multihost_utils.process_allgather(part))


def check_equal(name: str, text: str, difference: Callable[[str], str]) -> None:
    """Makes sure that all processes have the same text.

    Args:
        name: of what is compared; the same name may come again only with the same text.
        text: of this process.
        difference: what to say about the text of process 0, if it is another.

    Raises:
        ConfigError: this process has another text than process 0.
    """
    if is_alone():
        return
    client, key = _client(), f"flaxseg/{name}"
    if is_first():
        client.key_value_set(key, text, True)
        return
    theirs = client.blocking_key_value_get(key, _MILLISECONDS_TO_AGREE)
    if theirs != text:
        raise ConfigError(f"all processes need the same settings: {difference(theirs)}")


class AnyOf:
    """Tells whether any process voted yes, without making a device wait.

    All processes must call it equally often. A call casts the vote and returns what the call before
    it came to: the votes are counted behind the step that was just started. The call that returns
    True drops its own vote.
    """

    def __init__(self, mesh: Mesh):
        """No vote has been cast yet."""
        self._mesh = mesh
        self._own = len(_own_devices(mesh))
        self._pending: jax.Array | None = None
        self._any = jax.jit(lambda votes: votes.max(), out_shardings=replicated(mesh))

    def __call__(self, vote: bool) -> bool:
        """Casts a vote; True if any process did so at the call before."""
        if self._pending is not None and bool(self._pending):
            self._pending = None
            return True
        self._pending = self._cast(vote)
        return False

    def _cast(self, vote: bool) -> jax.Array:
        return self._any(put_batch(np.full(self._own, vote, np.int32), self._mesh))


def to_host(tree: Any) -> Any:
    """The tree as numpy arrays, whole in every process, one tensor after the other."""

    def fetch(leaf: jax.Array) -> np.ndarray:
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            return np.asarray(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetch, tree)


def _tie_together() -> threading.Event:
    """Makes the end of one process that of all, unless the event that it returns is set."""
    over, client = threading.Event(), _client()

    def lost(process: int) -> None:
        if over.is_set():
            return
        reason = f"process {process} failed: it is gone without a word (killed, or out of memory)"
        if not is_first():
            _quit(f"error: process {jax.process_index()} ends as {reason}", _MEND)
        # It may have told its own reason, which is better: this one comes second then.
        with contextlib.suppress(Exception):
            client.key_value_set(_FAILURE, reason)

    if is_first():
        client.key_value_set(_LIFELINE, lifeline.hold_all(count(), lost))
    else:
        invitation = client.blocking_key_value_get(_LIFELINE, _MILLISECONDS_TO_AGREE)
        lifeline.hold_first(_host(), invitation, jax.process_index(), lost)
    return over


def _host() -> str:
    """Where process 0 is."""
    from jax._src import distributed

    return (distributed.global_state.coordinator_address or "").rpartition(":")[0].strip("[]")


def _watch() -> None:
    """Ends this process when another one has failed."""
    message = None
    while message is None:
        try:
            message = _client().blocking_key_value_get(_FAILURE, _MILLISECONDS_TO_AGREE)
        except (AttributeError, RuntimeError) as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                return  # the run is over
    if not message.startswith(f"process {jax.process_index()} "):
        _quit(f"error: process {jax.process_index()} ends as {message}", _MEND)


def _end_all(error: BaseException) -> None:
    """Tells the others why this process cannot go on, and ends it.

    It does not return to the caller: what JAX does at the exit of a process waits for the others.
    """
    code, line = _describe(error)
    me = f"process {jax.process_index()}"
    if any(isinstance(reason, jax.errors.JaxRuntimeError) for reason in _reasons(error)):
        # Perhaps only because another process went: its own reason is better, if it had one.
        time.sleep(_SECONDS_TO_HEAR)
    with contextlib.suppress(Exception):
        _client().key_value_set(_FAILURE, f"{me} failed: {line}")
    if code == _BUG:
        traceback.print_exception(error)
    _quit(f"error: {me}: {line}", code)


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    """An error, that from which it came, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _describe(error: BaseException) -> tuple[int, str]:
    """Exit code and line of an error."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        lost = f"lost contact with another process ({_first_line(error)})"
        error = TrainingError(f"{lost}: the same command goes on from the last checkpoint")
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED, "interrupted"
    code = _MEND if isinstance(error, FlaxsegError | OSError) else _BUG
    return code, " ".join(str(error).split()) or type(error).__name__


def _quit(line: str, code: int) -> None:
    # First of all: without process 0, JAX is about to abort this one, too.
    os.write(2, (line + "\n").encode())
    sys.stdout.flush()
    if is_first():
        # It carries the messages of all: JAX would abort the others, with pages of addresses.
        time.sleep(_SECONDS_TO_SPREAD)
    os._exit(code)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _client() -> Any:
    """JAX's connection to process 0, which it does not offer in public."""
    from jax._src import distributed

    return distributed.global_state.client
