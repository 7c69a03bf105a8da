"""Of several runs that want one work directory."""

import errno
import fcntl
import os

import pytest

from flaxseg.errors import ConfigError
from flaxseg.training import make_config
from flaxseg.training.workdir import open_workdir


@pytest.fixture
def config(tmp_path):
    return make_config("vitseg", workdir=str(tmp_path / "run"))


def names(config):
    return sorted(path.name for path in config.directory.iterdir())


def test_the_second_is_refused_while_the_first_is_at_work(config):
    with open_workdir(config, pytest.fail):
        assert names(config) == [".lock", "config.json"]
        message = f"--workdir {config.directory}: another run is at work there .it holds .lock.: "
        with pytest.raises(ConfigError, match=message), open_workdir(config, pytest.fail):
            pytest.fail("two at once")
    assert names(config) == ["config.json"]
    with open_workdir(config, pytest.fail):
        pass


def test_what_ended_just_before_is_seen(config):
    other = make_config("vitseg", workdir=config.workdir, lr=0.5)
    with open_workdir(other, pytest.fail):
        pass
    with pytest.raises(ConfigError, match="belongs to another run"):
        with open_workdir(config, pytest.fail):
            pytest.fail("two runs in one folder")
    assert names(config) == ["config.json"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_where_nothing_can_be_locked_a_run_goes_on_and_says_so(config, number, monkeypatch):
    def without_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    lines = []
    with open_workdir(config, lines.append):
        assert "config.json" in names(config)
    (line,) = lines
    reason = f"{config.directory} cannot be locked ({os.strerror(number)}): "
    assert line == reason + "nothing keeps a second run out of it"
