import jax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from flaxseg.planning.collectives import Collective
from flaxseg.planning.payload import least_sent, theory, what_they_carry
from flaxseg.sharding import FSDP, make_mesh


@pytest.fixture(scope="module")
def params():
    """One that every device holds, and one that is split over eight."""
    mesh = make_mesh(fsdp=8)
    return [
        jax.ShapeDtypeStruct((16, 8), "float32", sharding=NamedSharding(mesh, P())),
        jax.ShapeDtypeStruct((64, 8), "float32", sharding=NamedSharding(mesh, P(FSDP))),
    ]


@pytest.mark.parametrize("itemsize", [4, 2])
def test_a_gradient_that_is_summed_twice_is_found(params, itemsize):
    once = Collective("all-reduce", (8, 16), 128, itemsize, 8, 1, True)
    gathered = Collective("all-gather", (64, 8), 512, itemsize, 8, 1, False)
    scattered = Collective("reduce-scatter", (8, 8), 512, itemsize, 8, 1, True)
    mean = Collective("all-reduce", (16,), 16, itemsize, 8, 1, False)
    found = [once, gathered, scattered, mean]
    names = ["gradients", "parameters", "gradients", "statistics"]
    assert what_they_carry(found, params, 1) == names
    assert what_they_carry([*found, once, gathered], params, 1)[4:] == ["other", "other"]
    looped = once._replace(times=7)
    assert what_they_carry([looped], params, 1) == ["other"]


def test_least_that_is_sent(params):
    assert theory(params, 1) == {"parameters": 2048, "gradients": 2560}
    # The whole one is summed, the split one gathered and its gradient scattered.
    assert least_sent(params, 1, 8) == 512 * 2 * 7 / 8 + 2048 * 7 / 8 * 2
    # Two such groups: parts of the split one are summed over them.
    assert least_sent(params, 2, 8) == 512 * 2 * 15 / 16 + 2048 * 7 / 8 * 2 + 256 * 2 / 2
    # A frozen one is gathered, and has no gradient.
    assert least_sent([], 2, 8, frozen=params) == 2048 * 7 / 8
