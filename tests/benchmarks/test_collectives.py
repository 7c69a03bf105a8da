import pytest

from flaxseg import models


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("collectives")


@pytest.mark.parametrize("fsdp", [1, 8])
def test_step_sends_what_it_must_and_no_more(benchmark, fsdp, capsys):
    overrides = {"patch_size": 8, "width": 32, "depth": 1, "mlp_dim": 64}
    config = models.get_config("vitseg", **overrides).with_image_size((32, 32))
    program = benchmark.compile_training(config, 8, fsdp, min_size=512)
    assert benchmark.report(program, 8, fsdp, every=False), capsys.readouterr().out
    table = capsys.readouterr().out
    assert "| other | 0 | 0 | 0.000 of all |" in table
    assert ("| parameters | all-gather | 8 |" in table) == (fsdp == 8)
