"""Eight simulated CPU devices for the whole suite, compiling fast instead of fast code."""

import gc
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from convert.parity.compiling import xla_flags
from flaxseg.models import registry

# Read when JAX looks for devices, which imports do not. Compiling takes most of the time here: with
# fewer optimisations and without fusion emitters BiSeNetV2's training step compiles in 3 s instead
# of 10, with one of the two alone in 6 or 8.
os.environ["XLA_FLAGS"] = xla_flags(
    {
        "xla_force_host_platform_device_count": 8,
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
)


# Tracing makes hundreds of thousands of small objects. To search them for garbage every 700 takes a
# seventh of the suite's time.
gc.set_threshold(50_000, 10, 10)


def pytest_collection_finish() -> None:
    """What has been imported stays: no collection looks at it again."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def changed_code(monkeypatch):
    """A monkeypatch for what networks are built of: none is used that was built without it."""
    registry._plan.cache_clear()
    yield monkeypatch
    registry._plan.cache_clear()


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Folder of compiled programs, shared by all processes of the session."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return str(folder / "xla")


@pytest.fixture
def compiled_once(cache_dir):
    """Keeps compiled programs on disk: equal ones compile once in the whole session."""
    settings = {
        "jax_compilation_cache_dir": cache_dir,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
