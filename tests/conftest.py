"""Eight simulated CPU devices for the whole suite, and float64 on request."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["MPLBACKEND"] = "Agg"

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def nothing_into_the_home(tmp_path_factory):
    """Prepared data and compiled programs go to a temporary folder, one a process."""
    os.environ["FLAXSEG_CACHE"] = str(tmp_path_factory.mktemp("flaxseg_cache"))


@pytest.fixture
def x64():
    """Runs a test with float64 available."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_go():
    """Frees what a module has compiled: all of them together would fill gigabytes."""
    yield
    jax.clear_caches()
