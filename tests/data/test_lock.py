"""Several at once that want the same folder filled."""

import concurrent.futures
import signal
import subprocess
import sys
import threading

import pytest

from flaxseg.data import lock
from flaxseg.data.cache import prepare_once
from flaxseg.errors import DataError

MOMENT = 30
"""Seconds after which a test gives up."""


@pytest.fixture
def waiting(monkeypatch):
    """Set as soon as somebody says that he waits; holds what was said."""
    event, event.lines = threading.Event(), []

    def say(line):
        event.lines.append(line)
        event.set()

    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(lock, "_say", say)
    return event


@pytest.fixture
def at_once():
    """Runs two functions in threads, the second once the first is at work; returns the futures."""
    with concurrent.futures.ThreadPoolExecutor() as threads:

        def run(first, second, begun):
            futures = [threads.submit(first)]
            assert begun.wait(MOMENT)
            futures.append(threads.submit(second))
            concurrent.futures.wait(futures, MOMENT)
            return futures

        yield run


def test_one_fills_while_the_other_waits(tmp_path, waiting, at_once):
    begun, calls = threading.Event(), []

    def fill(target):
        calls.append(target)
        begun.set()
        assert waiting.wait(MOMENT)
        (target / "content").write_text("complete")

    directory = tmp_path / "data"

    def prepare():
        return prepare_once(directory, fill)

    futures = at_once(prepare, prepare, begun)
    assert [future.result() for future in futures] == [directory] * 2
    assert len(calls) == 1
    (line,) = waiting.lines
    assert line == f"waiting for another process that is filling {directory} (it holds .data.lock)"


def test_after_an_error_the_next_one_tries(tmp_path, waiting, at_once):
    begun = threading.Event()

    def fail(target):
        begun.set()
        assert waiting.wait(MOMENT)
        raise DataError("half-way")

    def fill(target):
        (target / "content").write_text("complete")

    directory = tmp_path / "data"
    first, second = at_once(
        lambda: prepare_once(directory, fail), lambda: prepare_once(directory, fill), begun
    )
    with pytest.raises(DataError, match="half-way"):
        first.result()
    assert (second.result() / "content").read_text() == "complete"


HOLD = """
import sys, time
from filelock import FileLock

with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(30)
"""


def test_a_holder_that_is_killed_blocks_nobody(tmp_path, waiting, at_once):
    command = [sys.executable, "-c", HOLD, tmp_path / ".data.lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        held = threading.Event()
        held.set()

        def kill():
            assert waiting.wait(MOMENT)
            holder.send_signal(signal.SIGKILL)

        def fill(target):
            assert waiting.is_set()

        _, second = at_once(kill, lambda: prepare_once(tmp_path / "data", fill), held)
        assert second.result().is_dir()


def test_what_is_there_needs_no_lock(tmp_path):
    """A prepared cache may be read-only."""
    (tmp_path / "data").mkdir()
    prepare_once(tmp_path / "data", lambda target: pytest.fail("filled again"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_cannot_be_written_is_told_by_what_writes(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="data: cannot be written .File exists.; set FLAXSEG_CACHE"):
        prepare_once(tmp_path / "file" / "data", lambda target: None)
