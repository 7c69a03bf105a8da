import pytest

from flaxseg import models
from flaxseg.training.config import parse_overrides


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("short_runs")


@pytest.mark.parametrize("name", models.list_models())
def test_every_network_has_a_narrow_form(benchmark, name):
    flags = benchmark.flags(name)
    overrides = parse_overrides(tuple(flags[flags.index("--override") + 1 :]))
    config = models.get_config(name, **overrides).with_image_size((64, 64))
    config.check_size((64, 64))
    assert config != models.get_config(name)


METRICS = "step,loss\n" + "".join(f"{step},{4 - step / 10}\n" for step in range(1, 21))


@pytest.mark.parametrize("resumed", [True, False])
def test_the_line_tells_what_was_recorded(benchmark, tmp_path, resumed):
    (tmp_path / "metrics.csv").write_text(METRICS)
    (tmp_path / "result.json").write_text('{"metrics": {"miou": 0.5, "pixel_accuracy": 0.75}}')
    line = benchmark.line("ccnet", 20, tmp_path, resumed)
    verdict = "yes" if resumed else "NO"
    assert line == f"| `ccnet` | {verdict} | 3.85 | 2.05 | 0.50 | 0.75 |"


def test_a_gap_in_the_steps_is_told(benchmark, tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS.replace("11,", "12,", 1))
    (tmp_path / "result.json").write_text('{"metrics": {"miou": 0.5, "pixel_accuracy": 0.75}}')
    assert "| NO |" in benchmark.line("ccnet", 20, tmp_path, True)
