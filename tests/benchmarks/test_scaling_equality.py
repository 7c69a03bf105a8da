import jax
import pytest

from flaxseg.sharding import make_mesh


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("scaling_equality")


def test_every_mesh_of_eight_trains_like_one_device(benchmark):
    """The command does this for all architectures, and with two processes."""
    meshes = {
        name: make_mesh(jax.devices()[: 1 if name == "1x1" else 8], fsdp)
        for name, fsdp in benchmark.MESHES.items()
    }
    with benchmark.precision("float64"):
        trained = {
            name: benchmark.train("vitseg", "float64", mesh, 20) for name, mesh in meshes.items()
        }
    reference = trained.pop("1x1")
    assert reference.losses.dtype == "float64" and len(set(reference.losses)) == 20
    for name, ours in trained.items():
        assert max(benchmark.differences(ours, reference).values()) < 1e-9, name
