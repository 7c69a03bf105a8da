"""The comparison with PyTorch, with a network of no size: what it refuses and what it writes."""

import json
import os

import numpy as np
import pytest
import torch

from convert.parity.networks import small_config
from flaxseg.bench import Samples
from flaxseg.errors import ConfigError

MODULES = (
    "page networks shared_cache speed_machine speed_cold speed_page speed_scaling speed_torch "
    "speed forms layers"
).split()


@pytest.fixture(scope="module")
def modules(load_benchmark):
    return {name: load_benchmark(name) for name in MODULES}


@pytest.fixture(scope="module")
def speed(modules):
    return modules["speed"]


def job(speed, mode):
    config = speed.models.override(small_config("vitseg"), {"depth": 1})
    return speed.Job("vitseg", config, 2, config.fixed_size, mode, "float32")


@pytest.fixture(scope="module")
def trained(speed):
    """A row of a training step whose dropout is on."""
    assert small_config("vitseg").dropout > 0
    return speed.measure(job(speed, "train"), ["torch_ref"], rounds=2)


def test_both_frameworks_draw_the_same_loss_and_take_turns(trained):
    assert set(trained["apart"]) == {"PyTorch NCHW", "PyTorch channels last"}
    assert max(trained["apart"].values()) < 1e-5 and not trained["left_out"]
    assert set(trained["samples"]) == {"flaxseg", *trained["apart"]}
    assert all(one["taken"] == one["kept"] == 2 for one in trained["samples"].values())
    costs = trained["costs"]
    assert costs["flops"] > 1e6 and costs["memory"] > costs["temporary"] > 0
    fastest = min(one["min"] for name, one in trained["samples"].items() if name != "flaxseg")
    ratio = fastest / trained["samples"]["flaxseg"]["min"]
    assert trained["ratios"]["PyTorch"]["min"] == pytest.approx(ratio)
    before, after = trained["across"]  # None where processors cannot be chosen
    assert (before is None) == (after is None)
    assert before is None or set(before) == set(after) == {"own", "other"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system places threads itself")
@pytest.mark.parametrize("processors", [1, 2])
def test_processors_read_from_each_other(modules, processors):
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one processor")
    chosen = set(sorted(allowed)[:processors])
    try:
        os.sched_setaffinity(0, chosen)
        reading = modules["shared_cache"].read_across()
        assert os.sched_getaffinity(0) == chosen
    finally:
        os.sched_setaffinity(0, allowed)
    assert (reading is None) == (processors == 1)
    assert reading is None or min(reading) > 0


def test_nothing_is_timed_that_is_not_equal(speed):
    this = job(speed, "infer")
    ours, rivals = speed.contenders(this, ["torch_ref"])
    logits = np.asarray(ours())
    apart, left_out = speed.compare(this, logits, rivals)
    assert list(apart) == list(rivals) and not left_out
    with torch.no_grad():
        rivals["PyTorch channels last"].module.blocks[0].mlp.fc1.weight[0] += 1
    with pytest.raises(speed.UnequalError, match="logits of flaxseg and PyTorch channels last are"):
        speed.compare(this, logits, rivals)
    with pytest.raises(speed.UnequalError, match="nan apart"):
        speed.compare(this, logits * np.nan, {"PyTorch NCHW": rivals["PyTorch NCHW"]})


def test_a_rival_that_does_not_run_is_named_and_left_out(speed):
    class NoCompiler:
        def difference(self, found):
            raise RuntimeError("no compiler\nwith a long story")

    found = speed.compare(job(speed, "infer"), np.zeros(1), {"torch.compile NCHW": NoCompiler()})
    assert found == ({}, {"torch.compile NCHW": "no compiler"})


def test_ratios_are_those_of_the_better_layout(speed):
    names = ("flaxseg", "PyTorch NCHW", "PyTorch channels last")
    values = ((2.0, 4.0, 4.0), (3.0, 8.0, 9.0), (4.0, 6.0, 7.0))
    samples = {name: Samples(those, 3) for name, those in zip(names, values, strict=True)}
    expected = {"fastest": "PyTorch NCHW", "min": 1.5, "median": 1.5}
    assert speed.ratios(samples) == {"PyTorch": expected}


@pytest.mark.parametrize(
    ("text", "batch", "size"),
    [
        ("ccnet", 1, (224, 224)),
        ("segformer_b0:2:64x96", 2, (64, 96)),
        ("vitseg:8:256", 8, (256, 256)),
    ],
)
def test_a_network_is_named_with_its_images(speed, text, batch, size):
    found = speed.Job.parse(text, "train", "float32")
    assert (found.batch, found.size) == (batch, size)
    assert found.config.fixed_size in (None, size)


@pytest.mark.parametrize("text", ["ccnet:2", "ccnet:0:64", "ccnet:1:64:3", "vitseg:1:100", "cc"])
def test_what_names_no_images_is_refused_in_a_line(speed, text):
    with pytest.raises(ConfigError, match="ccnet:2:224|patch size|did you mean"):
        speed.Job.parse(text, "infer", "float32")


def test_powers_are_found(modules):
    exponent = modules["speed_scaling"].exponent
    amounts = np.array([1.0, 2.0, 4.0, 8.0])
    assert exponent(amounts, 3 * amounts**1.7) == pytest.approx(1.7)
    assert exponent(amounts, [None, 5.0, 10.0, 20.0]) == pytest.approx(1)
    assert exponent(amounts, [None, None, 1.0, 2.0]) is None


def test_a_series_ends_before_what_takes_too_long(modules, monkeypatch):
    scaling = modules["speed_scaling"]
    monkeypatch.setattr(scaling, "SIDES", (32, 64))
    monkeypatch.setattr(scaling, "BATCHES", (1,))
    limits = scaling.Limits(seconds=0.0, rounds=1)
    config = job(modules["speed"], "infer").config
    found = scaling.scaling(config, "infer", "float32", limits)
    for series in found.values():
        (point,) = series["points"]
        assert (point["batch"], point["size"]) == (1, [32, 32]) and point["temporary"] > 0
        assert series["exponents"] == {"min": None, "temporary": None}


def test_every_number_of_a_run_has_its_place_on_the_page(modules, trained):
    page, speed, tables = modules["page"], modules["speed"], modules["speed_page"]
    ceiling = {"jax": {"product": 2e11, "copy": 1e10}}
    points = [
        {"batch": 1, "size": [n, n], "min": n / 1e4, "temporary": n * 2**20} for n in (256, 512)
    ]
    series = {"pixels": {"points": points, "exponents": {"min": 0.5, "temporary": None}}}
    cold = {"imports": 2.5, "total": 4.0}
    trained = trained | {"across": [{"own": 2e11, "other": 5e10}, None]}
    run = {
        **modules["speed_machine"].machine(),
        "started": "2026-01-01",
        "command": "python benchmarks/speed.py",
        "ceilings": {"first": ceiling, "last": ceiling},
        "networks": [trained, trained | {"ratios": {}, "left_out": {"X": "why"}, "cold": cold}],
        "scaling": [{"model": "vitseg", "mode": "train", "series": series}],
    }
    run = json.loads(json.dumps(speed.with_shares(run)))
    flops, least = trained["costs"]["flops"], trained["samples"]["flaxseg"]["min"]
    assert run["networks"][0]["share"] == pytest.approx(flops / least / 2e11)
    samples = {who: trained["samples"]["flaxseg"] for who in ("flaxseg", "XLA", "PyTorch")}
    shape = modules["forms"].SHAPES[-1]._asdict()
    race = {
        "machine": modules["speed_machine"].machine(),
        "rounds": 1,
        "rows": [{"shape": shape, "pass": "map", "samples": samples}],
    }
    row = {"model": "vitseg", "batch": 8, "image_size": [32, 48], "run": 0.5, "bare": 0.52}
    whole = {"machine": race["machine"], "rows": [row | {"share": 0.5 / 0.52, "system": 0.12}]}
    layer = modules["layers"].Layer((1, 8, 8, 6), 12, kernel=3, stride=2)._asdict()
    seconds = {"flaxseg": 0.001, "PyTorch": 0.0015}
    parts = {
        "model": "vitseg",
        "batch": 1,
        "size": [8, 8],
        "step": {"flaxseg": 0.01, "PyTorch NCHW": 0.02, "PyTorch channels last": 0.008},
        "rows": [{"layer": layer, "pass": "weight", "count": 2, "seconds": seconds}],
    }
    parts = {"machine": race["machine"], "rounds": 5, "networks": [parts]}
    made = tables.regions({"here": run}, {"here": race}, {"here": parts}, {"here": whole})
    text = page.filled(tables.PAGE.read_text(), made)
    for words in (
        "torch 2",
        "200 GFLOP/s",
        "X: why",
        "| 50 of 200 GB/s | ",
        "4.0 s (imports 2.5)",
        "0.50",
        "1 of 512×512",
        "depthwise 3×3, 256 to 256, 1 of 64² | gradient of the map",
        "2 3×3/2, 6 to 12, 1×8×8: gradient of the weight | 2 | 3 | -1.0",
        "all else | 8 | 5 | +3.0",
        "8 of 32×48 | 0.500 | 0.520 | 0.96 | 12%",
    ):
        assert words in text
    for table in made.values():
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) == 1 and len(rows) > 2


def test_the_page_is_that_of_the_committed_runs(modules):
    tables = modules["speed_page"]
    text = tables.PAGE.read_text(encoding="utf-8")
    assert modules["page"].filled(text, tables.committed()) == text, (
        "python benchmarks/speed.py --page"
    )


def test_layers_are_those_that_a_step_runs(modules):
    this = job(modules["speed"], "train")
    found = modules["layers"].layers_of(this)
    # Queries, keys and values in one, what they mix, the two of the MLP, and the head.
    assert sum(found[layer] for layer in found if not layer.kernel) == 4 * this.config.depth + 1
    (patches,) = (layer for layer in found if layer.kernel == this.config.patch_size)
    assert patches.shape == (2, *this.size, 3) and patches.outputs == this.config.width
    assert patches.passes == modules["layers"].PASSES  # behind a norm that learns


def test_pictures_take_no_gradient(modules):
    stem = modules["layers"].Layer.of(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
    assert stem.passes == ("output", "weight")


@pytest.mark.parametrize("options", [{}, {"kernel": 3, "padding": 1}, {"kernel": 1, "stride": 2}])
def test_layers_by_themselves_are_equal_in_both_frameworks(modules, monkeypatch, options):
    layers = modules["layers"]
    layer = layers.Layer((1, 8, 8, 6), 4, **options)
    assert set(layers.races(layer)) == set(layers.PASSES)
    monkeypatch.setattr(layers, "BOUND", -1.0)
    with pytest.raises(SystemExit, match="apart, at most"):
        layers.races(layer)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"depthwise": True}])
def test_races_are_run_by_forms_that_agree(modules, monkeypatch, options):
    forms = modules["forms"]
    shape = forms.Shape(1, 8, 6, 6, **options)
    races = dict(forms.races(shape))
    assert set(races) == set(forms.PASSES)
    assert all(set(calls) == {"flaxseg", "XLA", "PyTorch"} for calls in races.values())
    monkeypatch.setattr(forms, "BOUND", -1.0)
    with pytest.raises(SystemExit, match="output: .* apart"):
        next(forms.races(shape))


def test_a_page_without_the_region_is_refused(modules):
    with pytest.raises(ValueError, match="no region <!-- speed -->"):
        modules["page"].filled("text", {"speed": "table"})
