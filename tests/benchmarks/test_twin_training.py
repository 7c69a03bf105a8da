import csv

import numpy as np
import pytest

from flaxseg.errors import ConfigError

TINY = (
    "--model vitseg --limit 16 --batch-size 4 --image-size 32 32 --eval-size 32 32 "
    "--resize stretch --steps 4 --devices 1 --override patch_size=8 width=16 depth=1 mlp_dim=32"
).split()


@pytest.fixture
def benchmark(load_benchmark, monkeypatch):
    module = load_benchmark("twin_training")
    monkeypatch.setattr(module, "SMOOTH", 2)
    return module


def test_both_frameworks_make_the_same_steps(benchmark, tmp_path, capsys):
    benchmark.run([*TINY, "dropout=0", "--workdir", str(tmp_path)])
    with (tmp_path / "losses.csv").open() as file:
        rows = [list(map(float, row)) for row in list(csv.reader(file))[1:]]
    steps, ours, torchs = zip(*rows, strict=True)
    assert steps == (1, 2, 3, 4) and len(set(ours)) == 4
    np.testing.assert_allclose(ours, torchs, rtol=1e-4)
    assert "step 4: loss" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"losses.csv", "losses.png", "scores.json"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["dropout=0.1"], "dropout is on: switch it off with --override"),
        (["dropout=0", "--ema", "0.9"], "ema is 0.9: the PyTorch side knows"),
        (["dropout=0", "--loss", "dice"], "loss is .*dice.*: the PyTorch side knows"),
    ],
)
def test_what_the_twin_does_not_know_is_refused(benchmark, tmp_path, flags, message):
    with pytest.raises(ConfigError, match=message):
        benchmark.run([*TINY, *flags, "--workdir", str(tmp_path)])
