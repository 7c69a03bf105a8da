"""Flax equals PyTorch, and the comparison notices when it does not."""

import dataclasses
import re
import runpy
import sys

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from convert.parity import __main__ as command
from convert.parity import figures, goldens, rows
from convert.parity.compiling import known_options
from convert.parity.networks import COMPARISONS, small_config
from convert.parity.runs import COMPILER_OPTIONS, FlaxRun, Step
from flaxseg.models import get_config
from flaxseg.ops import BatchNorm, criss_cross, norm

SIZE = (33, 47)
DISTINCT = [name for name, comparison in COMPARISONS.items() if comparison.distinct]
"""The networks that differ from others in more than widths and depths."""

STEPPED = [name for name in DISTINCT if name not in ("bisenetv2_matmul", "segformer_b0_hf")]
"""Those whose gradients differ in more than a product or an epsilon."""

TRAINED = ("ccnet_r50", "segformer_b0_mmseg", "setr_naive", "vitseg")
"""One of each architecture that compiles fast: `make parity` makes the 20 steps of all, and all in
float32, in which the suite has the numbers of the published networks."""


AS_FOR_USERS = known_options(
    {
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
        "xla_cpu_use_fusion_emitters": True,
    }
)
"""What XLA does by default, and the suite otherwise does without."""


@pytest.fixture
def as_for_users(monkeypatch):
    """Compiles float32 networks as a user's."""
    monkeypatch.setitem(COMPILER_OPTIONS, "float32", AS_FOR_USERS)


@pytest.fixture(scope="module", params=DISTINCT)
def case(request) -> figures.Case:
    comparison = COMPARISONS[request.param]
    size, batch = comparison.sizes[0], comparison.batch
    return figures.make_case(small_config(request.param), size, batch=batch)


@pytest.fixture(scope="module")
def exact(case) -> FlaxRun:
    return case.flax("float64")


def check(*measured: figures.Figure):
    assert [f for f in measured if not f.passed] == []


def test_eval(case, exact):
    check(figures.eval_figure(exact, case))


@pytest.mark.parametrize("case", TRAINED, indirect=True)
@pytest.mark.usefixtures("as_for_users")
def test_eval_in_float32(case):
    check(figures.eval_figure(case.flax("float32"), case))


@pytest.mark.parametrize("case", STEPPED, indirect=True)
def test_training_step(case, exact):
    check(*figures.step_figures(exact, case))


@pytest.mark.parametrize("case", TRAINED, indirect=True)
def test_twenty_steps(case, exact):
    check(*figures.training_figures(exact, case))


def test_round_trips(case):
    measured = list(figures.round_trip_figures(case))
    check(*measured)
    assert len(measured) >= 2


@pytest.mark.usefixtures("as_for_users")
def test_float32_training_step_is_as_good_as_torchs():
    case = figures.make_case(small_config("ccnet"), SIZE, seed=rows.SEED)
    check(*figures.step_figures(case.flax("float32"), case))


def step_of(**gradients: list[float]) -> Step:
    return Step(0.0, [], {key: np.array(g) for key, g in gradients.items()}, {})


def test_gradients_that_are_zero_in_truth_count_in_float64_alone():
    exact = step_of(weight=[3.0, 4.0], bias=[1e-16, 0.0], small=[1e-12, 0.0])
    ours = step_of(weight=[3.0, 4.0], bias=[2e-6, 0.0], small=[1e-12, 0.0])
    assert figures.gradients_apart(ours, exact) == pytest.approx(0.4)  # against 1e-6 of the whole
    assert figures.gradients_apart(ours, exact, zeros=False) == 0.0
    worse = step_of(weight=[3.0, 4.0], bias=[0.0, 0.0], small=[2e-6, 0.0])
    assert figures.gradients_apart(worse, exact, zeros=False) == pytest.approx(0.4)


@pytest.mark.parametrize("ours, passes", [([2e-6] * 3, True), ([4e-6] * 3, False)])
def test_an_accident_in_one_run_decides_nothing(ours, passes):
    """Neither a bad one here nor a bad one there."""
    runs = [(near, 0.0, 1e-6) for near in ours]
    for accident in ((1e-2, 0.0, 1e-6), (ours[0], 0.0, 1e-2)):
        figure = figures._compare("gradients", "float32", lambda a, b: a, [*runs, accident], 0.0)
        assert figure.passed == passes


# The smallest network in which every mutated part matters.
TINY = get_config(
    "ccnet_r50",
    num_classes=3,
    dropout=0.0,
    channels=8,
    aux_channels=8,
    **{"backbone.width": 2, "backbone.blocks": (1, 1, 2, 1), "backbone.stem_channels": (4,)},
)


@pytest.fixture(scope="module")
def tiny() -> figures.Case:
    return figures.make_case(TINY, SIZE, batches=1)


def noticed(run: FlaxRun, case: figures.Case) -> bool:
    return not figures.eval_figure(run, case).passed


def reconfigured(case: figures.Case, **changes) -> FlaxRun:
    return FlaxRun(dataclasses.replace(case.config, **changes), case.state, "float64")


def other_dilation(case: figures.Case, monkeypatch) -> FlaxRun:
    backbone = dataclasses.replace(case.config.backbone, dilations=(1, 1, 1, 4))
    return reconfigured(case, backbone=backbone)


def other_first_dilation(case: figures.Case, monkeypatch) -> FlaxRun:
    backbone = dataclasses.replace(case.config.backbone, first_dilations=(1, 1, 1, 4))
    return reconfigured(case, backbone=backbone)


def other_corners(case: figures.Case, monkeypatch) -> FlaxRun:
    return reconfigured(case, align_corners=True)


def other_eps(case: figures.Case, monkeypatch) -> FlaxRun:
    init = BatchNorm.__init__
    monkeypatch.setattr(BatchNorm, "__init__", lambda *a, **k: init(*a, **{**k, "eps": 1.1e-5}))
    return case.flax("float64")


def no_diagonal_mask(case: figures.Case, monkeypatch) -> FlaxRun:
    monkeypatch.setattr(criss_cross, "_mask_self", lambda column: column)
    return case.flax("float64")


def biased_running_variance(case: figures.Case, monkeypatch) -> FlaxRun:
    normalised = norm._normalised

    def statistics(eps, dtype, x, *given):
        y, mean, var = normalised(eps, dtype, x, *given)
        count = x.size // x.shape[-1]
        return y, mean, var * ((count - 1) / count)

    monkeypatch.setattr(norm, "_normalised", statistics)
    return case.flax("float64")


def reshaped_instead_of_transposed(case: figures.Case, monkeypatch) -> FlaxRun:
    def turn(x):
        return x.reshape(x.shape[0], x.shape[2], x.shape[1], *x.shape[3:])

    monkeypatch.setattr(criss_cross, "_transpose", turn)
    return case.flax("float64")


def other_momentum(case: figures.Case, monkeypatch) -> FlaxRun:
    init = BatchNorm.__init__
    monkeypatch.setattr(BatchNorm, "__init__", lambda *a, **k: init(*a, **{**k, "momentum": 0.9}))
    return case.flax("float64")


def other_concat_order(case: figures.Case, monkeypatch) -> FlaxRun:
    weight = np.roll(case.state["head.fuse.conv.weight"], case.config.channels, axis=1)
    return FlaxRun(case.config, {**case.state, "head.fuse.conv.weight": weight}, "float64")


def one_attention(case: figures.Case, monkeypatch) -> FlaxRun:
    return reconfigured(case, recurrence=1)


MUTATIONS = [
    other_dilation,
    other_first_dilation,
    other_corners,
    other_eps,
    no_diagonal_mask,
    reshaped_instead_of_transposed,
    other_concat_order,
    one_attention,
]


def test_the_unchanged_network_passes(tiny):
    run = tiny.flax("float64")
    assert not noticed(run, tiny)
    check(*figures.step_figures(run, tiny))


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_mutation_is_noticed(mutate, tiny, changed_code):
    assert noticed(mutate(tiny, changed_code), tiny)


@pytest.mark.parametrize("mutate", [biased_running_variance, other_momentum])
def test_other_running_statistics_are_noticed(mutate, tiny, changed_code):
    run = mutate(tiny, changed_code)
    failed = [f.what for f in figures.step_figures(run, tiny) if not f.passed]
    assert failed == ["statistics"]


def test_nan_never_passes():
    assert not figures.Figure("x", "float64", float("nan"), 1.0).passed


def stub_rows(monkeypatch, *passed: bool):
    """Lets the command measure one figure of each network, which passes or not."""
    names = list(COMPARISONS)[: len(passed)]
    values = dict(zip(names, passed, strict=True))

    def twin_rows(name: str, full: bool) -> list[figures.Row]:
        value = 1e-12 if values[name] else 1e-3
        return [figures.Row(name, SIZE, [figures.Figure("eval", "float64", value, 1e-10)])]

    monkeypatch.setattr(command, "COMPARISONS", dict.fromkeys(names))
    monkeypatch.setattr(rows, "twin_rows", twin_rows)
    monkeypatch.setattr(goldens, "CASES", {})


def test_command_reports_and_counts_failures(monkeypatch, capsys):
    stub_rows(monkeypatch, True, False)
    assert command.main(["--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"PASS  ccnet +33x47 +1.0e-12 +-", out)
    assert re.search(r"FAIL  ccnet_r50 +33x47 +1.0e-03 +-", out)
    assert "float64 eval: 1.00e-03, bound 1.0e-10" in out and "1 rows failed" in out
    stub_rows(monkeypatch, True, True)
    assert command.main(["--jobs", "1"]) == 0
    assert "all rows passed" in capsys.readouterr().out


def test_other_processes_can_import_what_they_are_to_measure(monkeypatch):
    monkeypatch.delitem(sys.modules, command.__name__)
    run = runpy.run_module("convert.parity", run_name="__main_of_a_test__")
    assert {run[name].__module__ for name in ("rows", "one_thread")} == {rows.__name__}


def test_command_takes_a_pattern(monkeypatch, capsys):
    stub_rows(monkeypatch, True, True)
    assert command.main(["*_r50", "--jobs", "1"]) == 0
    assert "ccnet_r50" in (out := capsys.readouterr().out) and "PASS  ccnet " not in out
    assert command.main(["unet"]) == 2
    assert "no network is called unet: " in capsys.readouterr().out


def test_float32_is_shown_as_a_multiple_of_torchs():
    figure = figures.Figure("gradients", "float32", 1e-3, 2e-3)
    assert "1.50 x" in command._cells([figure])


def test_command_includes_the_goldens_or_says_that_they_are_missing(monkeypatch, capsys, tmp_path):
    stub_rows(monkeypatch, True)
    monkeypatch.setattr(goldens, "CASES", {"a": goldens.Published("mmseg", "ccnet")})
    row = figures.Row("golden a", SIZE, [figures.Figure("logits", "float32", 1e-6, 1e-5)])
    monkeypatch.setattr(goldens, "rows", lambda name: [row])
    assert command.main(["--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "logits 1.0e-06 <= 1.0e-05" in out and "NOTE" not in out
    monkeypatch.setattr(goldens, "GOLDENS", tmp_path / "none")
    assert command.main(["--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "golden a" not in out
    assert f"NOTE  goldens of the peers: not compared, since {tmp_path / 'none'} is missing" in out


def test_nan_in_any_output_never_passes():
    good, bad = np.ones((1, 2)), np.full((1, 2), np.nan)
    assert np.isnan(figures.outputs_apart([good, bad], [good, good]))


def test_float64_is_off_outside_a_run(case, exact):
    exact.evaluate(case.batches[0].images)
    assert jax.numpy.zeros(1).dtype == jnp.float32
