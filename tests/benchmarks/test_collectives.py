import jax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from flaxseg import models
from flaxseg.sharding import FSDP, make_mesh

PROGRAM = """\
HloModule jit_step

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.1 = f32[] add(%a, %b)
}

%body (p: (s32[], f32[16,8])) -> (s32[], f32[16,8]) {
  %all-reduce.1 = f32[16,8]{1,0} all-reduce(%x), replica_groups=[1,8]<=[8], to_apply=%sum, \
metadata={op_name="jit(step)/transpose(jvp())/dot"}
}

ENTRY %main (x: f32[16,8]) -> f32[16,8] {
  %while.1 = (s32[], f32[16,8]) while(%t), condition=%cond, body=%body, \
backend_config={"known_trip_count":{"n":"7"}}
  %ag = f32[64,8]{1,0} all-gather(%w), replica_groups={{0,1},{2,3}}, dimensions={0}
  %rs = bf16[8,8]{1,0} reduce-scatter(%g), replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%sum
  %ar = (f32[8]{0}, f32[]) all-reduce(%m, %l), replica_groups=[1,8]<=[8], to_apply=%sum
}
"""


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("collectives")


def test_reads_every_notation(benchmark):
    assert benchmark.collectives(PROGRAM) == [
        ("all-reduce", (16, 8), 512, 8, 7, True),
        ("all-gather", (64, 8), 2048, 2, 1, False),
        ("reduce-scatter", (8, 8), 512, 4, 1, False),
        ("all-reduce", (8,), 32, 8, 1, False),
        ("all-reduce", (), 4, 8, 1, False),
    ]


def test_a_gradient_that_is_summed_twice_is_found(benchmark):
    mesh = make_mesh(fsdp=8)
    params = [
        jax.ShapeDtypeStruct((16, 8), "float32", sharding=NamedSharding(mesh, P())),
        jax.ShapeDtypeStruct((64, 8), "float32", sharding=NamedSharding(mesh, P(FSDP))),
    ]
    once = benchmark.Collective("all-reduce", (8, 16), 512, 8, 1, True)
    gathered = benchmark.Collective("all-gather", (64, 8), 2048, 8, 1, False)
    scattered = benchmark.Collective("reduce-scatter", (8, 8), 2048, 8, 1, True)
    mean = benchmark.Collective("all-reduce", (16,), 64, 8, 1, False)
    found = [once, gathered, scattered, mean]
    names = ["gradients", "parameters", "gradients", "statistics"]
    assert benchmark.what_they_carry(found, params, 1) == names
    assert benchmark.what_they_carry([*found, once, gathered], params, 1)[4:] == ["other", "other"]
    looped = once._replace(times=7)
    assert benchmark.what_they_carry([looped], params, 1) == ["other"]
    assert benchmark.theory(params, 1) == {"parameters": 2048, "gradients": 2560}


@pytest.mark.parametrize("fsdp", [1, 8])
def test_step_sends_what_it_must_and_no_more(benchmark, fsdp, capsys):
    overrides = {"patch_size": 8, "width": 32, "depth": 1, "mlp_dim": 64}
    config = models.get_config("vitseg", **overrides).with_image_size((32, 32))
    program = benchmark.compile_training(config, 8, fsdp, min_size=512)
    assert benchmark.report(program, 8, fsdp, every=False), capsys.readouterr().out
    table = capsys.readouterr().out
    assert "| other | 0 | 0 | 0.000 of all |" in table
    assert ("| parameters | all-gather | 8 |" in table) == (fsdp == 8)
