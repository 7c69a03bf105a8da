import errno
import fcntl
import os
import time

import pytest

from flaxseg.data.cache import cache_root, derived, fingerprint, forget_older, prepare_once
from flaxseg.errors import DataError


def fill(directory):
    (directory / "content").write_text("complete")


def test_filled_once(tmp_path):
    directory = prepare_once(tmp_path / "a" / "data", fill)
    assert (directory / "content").read_text() == "complete"
    assert prepare_once(directory, lambda target: pytest.fail("filled again")) == directory


def test_failure_leaves_nothing(tmp_path):
    def fail(directory):
        fill(directory)
        raise DataError("half-way")

    with pytest.raises(DataError, match="half-way"):
        prepare_once(tmp_path / "data", fail)
    assert list(tmp_path.iterdir()) == []


def test_killed_run_is_not_taken_for_data(tmp_path):
    """What a killed process leaves is a temporary folder; it goes away after a day."""
    directory = tmp_path / "data"
    (tmp_path / ".data.lock").write_text("")
    ages = {".data.old": 2 * 24 * 3600, ".data.new": 60, ".data.lock": 2 * 24 * 3600}
    for name, age in ages.items():
        if name != ".data.lock":
            (tmp_path / name).mkdir()
            (tmp_path / name / "half").write_text("")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    prepare_once(directory, fill)
    assert {path.name for path in tmp_path.iterdir()} == {"data", ".data.new"}


def test_where_nothing_can_be_locked_the_first_wins(tmp_path, monkeypatch):
    directory = tmp_path / "data"

    def without_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without_locks)

    def overtaken(target):
        fill(target)
        directory.mkdir()
        (directory / "content").write_text("the other process's")

    prepare_once(directory, overtaken)
    assert (directory / "content").read_text() == "the other process's"
    assert {path.name for path in tmp_path.iterdir()} == {"data", ".data.lock"}


def test_full_disk_is_explained(tmp_path):
    def fail(directory):
        raise OSError(28, "No space left on device")

    message = "data: cannot be written .No space left on device.; set FLAXSEG_CACHE to a folder"
    with pytest.raises(DataError, match=message):
        prepare_once(tmp_path / "data", fail)


def test_fingerprint_follows_name_size_time_and_version(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"12")
    os.utime(path, ns=(1, 1))
    prints = [fingerprint(tmp_path, [path], "1"), fingerprint(tmp_path, [path], "2")]
    path.write_bytes(b"123")
    os.utime(path, ns=(1, 1))
    prints.append(fingerprint(tmp_path, [path], "1"))
    os.utime(path, ns=(2, 2))
    prints.append(fingerprint(tmp_path, [path], "1"))
    renamed = path.rename(tmp_path / "b.png")
    prints.append(fingerprint(tmp_path, [renamed], "1"))
    assert len(set(prints)) == 5
    assert fingerprint(tmp_path, [renamed], "1") == prints[-1]


def test_cache_root_order(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FLAXSEG_CACHE", raising=False)
    assert cache_root() == tmp_path / ".cache" / "flaxseg"
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "variable"))
    assert cache_root() == tmp_path / "variable"
    assert cache_root(tmp_path / "argument") == tmp_path / "argument"


def test_of_a_source_the_two_newest_stay(tmp_path):
    sources = [tmp_path / "a" / "data[1].zip", tmp_path / "b" / "data[1].zip"]
    made = {}
    for age, key in enumerate(("new", "older", "old", "oldest")):
        for source in sources:
            made[source, key] = prepare_once(derived(tmp_path, "zips", source, key), fill)
            os.utime(made[source, key], (1000 - age, 1000 - age))
    forget_older(made[sources[0], "old"], sources[0])
    left = {found for found, directory in made.items() if directory.is_dir()}
    assert left == {(sources[0], "old"), (sources[0], "new"), *((sources[1], k) for _, k in made)}


def test_derived_files_elsewhere_count(tmp_path):
    (tmp_path / "root").mkdir()
    mask = tmp_path / "cache.png"
    mask.write_text("1")
    before = fingerprint(tmp_path / "root", [mask], "1")
    mask.write_text("22")
    assert fingerprint(tmp_path / "root", [mask], "1") != before
