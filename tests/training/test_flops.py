import jax
import jax.numpy as jnp
import pytest

from flaxseg.sharding import split_batch
from flaxseg.training import make_config
from flaxseg.training.flops import count_flops
from flaxseg.training.setup import Setup

PRODUCT = 2 * 8**3
"""Operations of multiplying two 8 x 8 matrices."""


def flops(function, *arguments):
    traced = jax.jit(function).trace(*arguments)
    return count_flops(traced, traced.lower(), "cpu")


def test_a_loop_counts_as_often_as_it_runs():
    def five_times(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: y @ x, x)

    def twice_five_times(x):
        return jax.lax.scan(lambda y, _: (five_times(y), y @ x), x, length=2)

    x = jnp.ones((8, 8))
    assert flops(lambda x: x @ x, x) == PRODUCT
    # Their counters are operations, too.
    assert flops(five_times, x) == pytest.approx(5 * PRODUCT, rel=0.02)
    assert flops(twice_five_times, x) == pytest.approx(2 * 6 * PRODUCT, rel=0.02)
    assert flops(jax.checkpoint(five_times), x) == pytest.approx(5 * PRODUCT, rel=0.02)


def step_flops(**fields):
    override = ("patch_size=8", "width=64", "depth=1", "mlp_dim=256")
    sizes = {"limit": 32, "batch_size": 32, "image_size": (16, 16), "eval_size": (16, 16)}
    setup = Setup.of(make_config("vitseg", override=override, **sizes, **fields))
    place = split_batch(setup.mesh)
    image = jax.ShapeDtypeStruct((32, 16, 16, 3), jnp.uint8, sharding=place)
    label = jax.ShapeDtypeStruct((32, 16, 16), jnp.uint8, sharding=place)
    traced = setup.train_step.trace(setup.abstract_state(), image, label)
    return count_flops(traced, traced.lower(), "cpu")


def test_a_step_counts_whole_in_parts_and_on_all_devices():
    alone = step_flops(devices=1)
    # To add the parts' gradients up takes a little more.
    assert step_flops(devices=1, accumulate=4) == pytest.approx(alone, rel=0.03)
    assert step_flops(fsdp=8) == pytest.approx(alone, rel=0.001)
