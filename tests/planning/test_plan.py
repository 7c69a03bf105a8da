import dataclasses
import functools
import io
import json
import re
import sys

import jax
import pytest
from rich.console import Console

from flaxseg import cli
from flaxseg.errors import ConfigError
from flaxseg.planning import DoesNotFit, find_topology, make_plan, plan, report
from flaxseg.planning.chips import CHIPS
from flaxseg.planning.dataless import blueprint_without_data
from flaxseg.planning.estimate import Part
from flaxseg.planning.largest import find_largest
from flaxseg.training import make_config
from flaxseg.training.flops import count_flops
from flaxseg.training.program import trace_step
from flaxseg.training.setup import Setup

pytestmark = pytest.mark.usefixtures("compiled_once")

SIZES = ("patch_size=8", "width=64", "depth=1", "mlp_dim=256")
FLAGS = "--model vitseg --image-size 16 16 --topology cpu:8".split()

PARAMETERS = {
    "input_norm": 2 * 3,
    "patch_embed": 8 * 8 * 3 * 64 + 64,
    "pos_embed": 2 * 2 * 64,
    "norm1, norm2": 2 * 2 * 64,
    "attention": 64 * 3 * 64 + 3 * 64 + 64 * 64 + 64,
    "mlp": 64 * 256 + 256 + 256 * 64 + 64,
    "head": 64 * 8 * 8 * 6 + 8 * 8 * 6,
}
"""Counted by hand, for six classes."""

SPLIT = 2 * 64 * 256 + 64 * 8 * 8 * 6
"""Those of the matrices that are large enough to be divided."""


def tiny(**fields):
    return make_config(
        "vitseg", override=SIZES, image_size=(16, 16), eval_size=(16, 16), batch_size=8, **fields
    )


@pytest.fixture(scope="module")
def planned():
    """Plans the tiny network with some `--fsdp`, each once."""
    return functools.cache(lambda fsdp: make_plan(tiny(fsdp=fsdp), find_topology("cpu:8")))


def test_a_plan_is_of_the_very_step_that_trains(planned):
    ours, setup = planned(2), Setup.of(tiny(fsdp=2, limit=8))
    program = setup.program
    assert ours.mesh == {"data": 4, "fsdp": 2}
    assert ours.parameters == program.parameters == sum(PARAMETERS.values())
    traced = trace_step(
        setup.train_step, setup.abstract_state(), setup.mesh, batch_size=8, image_size=(16, 16)
    )
    assert ours.flops == count_flops(traced, traced.lower(), "cpu") / 8
    assert ours.memory.peak - ours.memory.program == program.memory
    assert ours.bytes_accessed == program.run.cost_analysis()["bytes accessed"]
    sent = {(row.carries, row.kind, row.devices) for row in ours.traffic}
    assert ("parameters", "all-gather", 2) in sent
    assert sum(row.bytes for row in ours.traffic if row.carries == "parameters") == 4 * SPLIT


def test_bytes_of_parameters_and_optimiser(planned):
    whole, split = planned(1).memory, planned(2).memory
    assert whole.parameters == 4 * sum(PARAMETERS.values())
    assert whole.parameters - split.parameters == 4 * SPLIT / 2
    for memory in (whole, split):  # two moments, and counters
        assert 0 < memory.optimizer - 2 * memory.parameters <= 64
        assert memory.batch == 16 * 16 * (3 + 1)
        assert memory.temporaries > 0


def test_what_is_sent_is_the_least(planned):
    ours = planned(1)
    assert ours.least_sent == pytest.approx(2 * 7 / 8 * 4 * sum(PARAMETERS.values()))
    gradients = sum(row.sent for row in ours.traffic if row.carries == "gradients")
    assert gradients == pytest.approx(ours.least_sent, rel=0.02)
    assert ours.bounds == {} and ours.bound is None and ours.available is None


def test_what_is_multiplied_and_where_the_time_goes(planned):
    ours = planned(1)
    assert {row.operands for row in ours.products} == {"float32"}
    assert {row.kind for row in ours.products} == {"product"}  # patches are products of matrices
    # Patches, qkv, two of attention, its projection, two of the MLP and the head; each has two
    # gradients: before the first stands a BatchNorm, which learns, too.
    assert sum(row.count for row in ours.products) == 8 * (1 + 2)
    assert ours.parts == () and ours.xla_seconds is None  # a CPU's compiler tells no cycles


def test_the_command_prints_and_writes_the_same_numbers(planned, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("flaxseg.planning.command.make_plan", lambda *_: planned(1))
    file = tmp_path / "plan.json"
    assert cli.main(["plan", *FLAGS, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "0.09 M parameters, float32, batch 8 of 16 x 16 on cpu:8: 8 devices" in out
    assert "assumed: 6 classes, epochs of 1000 steps" in out
    values = json.loads(file.read_text())
    assert values["memory"]["peak"] == planned(1).memory.peak
    assert sum(row["count"] for row in values["products"]) == 24
    assert values["fits"] and values["settings"]["model"] == "vitseg"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology", "v9:2x2"], "--topology is 'v9:2x2': no chip is called 'v9'; did you mean"),
        (["--topology", "v5e:8"], "it must have 2 sides, such as 1x1, 2x2, 2x4"),
        (["--topology", "cpu:0"], "--topology is 'cpu:0', it must be cpu:N"),
        (["--topology", "cpu:99"], "JAX was started with 8 CPU devices: plan in a process of its"),
        (["--topology", "v5e:2x4"], "v5e:2x4 needs libtpu, .* pip install 'flaxseg.plan.'"),
        (["--batch-size", "9"], "--batch-size is 9, which 8 devices cannot share equally"),
        (["--fsdp", "3"], "--fsdp is 3, of 8 devices it can be 1, 2, 4, 8"),
        (["--data", "folder"], "of --data folder depends on its files, .* give --num-classes"),
        (["--data", "camvid"], "of --data camvid depends on its files, .* give --num-classes"),
        (["--data", "campid"], "no data set is called 'campid'; did you mean camvid"),
        (["--search"], "--search needs chips whose memory is known, --topology is cpu:8"),
        (["--lr", "-1"], "--lr is -1.0, it must be"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_line(flags, message, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["plan", *FLAGS, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line


def test_class_weights_are_made_up():
    config = tiny(class_weights=("auto",), data="folder")
    topology = find_topology("cpu:8")
    blueprint, assumed = blueprint_without_data(config, topology, 19)
    assert len(set(blueprint.objective.class_weights)) == 19
    assert assumed.startswith("assumed: 19 classes, ")
    assert assumed.endswith("as if classes were frequent in the order of their numbers")


MESSAGES = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(20.50G) exceeds available HBM (15.75G).",
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. "
    "Exceeded hbm capacity by 4.75G.",
)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_step_that_does_not_fit_is_a_result(message, monkeypatch, tmp_path, capsys):
    def refuse(self):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr("flaxseg.training.blueprint.Blueprint.program", property(refuse))
    file = tmp_path / "plan.json"
    assert cli.main(["plan", *FLAGS, "--json", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--batch-size 8 does not fit cpu:8" in line
    assert "asks each chip for 20.50 GiB, a program may use 15.75 GiB" in line
    values = json.loads(file.read_text())
    assert (values["fits"], values["asked"], values["available"]) == (
        False,
        20.5 * 2**30,
        15.75 * 2**30,
    )


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("bend", [0, 5])
@pytest.mark.parametrize("first", [None, 8, 48, 4096])
def test_the_largest_batch_is_found_by_compiling(unit, bend, first):
    """Memory of 10 MB and 1 MB an image, less where it is short."""
    tried = []

    def attempt(images):
        tried.append(images)
        peak = 10_000_000 + images * 1_000_000 - bend * (images > 40) * 1_000_000
        if peak > 57_500_000:
            raise DoesNotFit("", peak, 57_500_000)
        return peak

    found = find_largest(attempt, unit, 57_500_000, first)
    expected = (47 + bend) // unit * unit
    assert (found.fits, found.too_large) == (expected, expected + unit)
    assert len(tried) <= 7 and len(set(tried)) == len(tried)
    assert found.sentence(unit) == f"largest batch a chip: {expected} fit, {expected + unit} do not"


@pytest.mark.parametrize("most", [4, 24, 40])
def test_no_larger_batch_than_makes_sense(most):
    tried = []

    def peak_of(images):
        tried.append(images)
        return 10_000 + images

    found = find_largest(peak_of, 4, 20_000, first=4, most=most)
    assert (found.fits, found.too_large, len(tried)) == (most, None, len(found.peaks))
    assert max(tried) == most and len(tried) <= 3


@pytest.mark.parametrize("asked", [2, None])
def test_a_network_that_never_fits(asked):
    def refuse(images):
        raise DoesNotFit("", asked, 1)

    found = find_largest(refuse, 1, 1, first=16)
    assert found.sentence(1) == "no batch fits: 1 a chip are too many"


def test_what_bounds_a_step_and_what_xla_says_of_it():
    bounds = plan._bounds(CHIPS["v5e"], 197e12, 819e9 / 2, 200e9 * 3)
    assert bounds == {"FLOPs": 1.0, "memory": 0.5, "links": 3.0}
    assert plan._bounds(CHIPS["v5e"], None, None, 0.0) == {"links": 0.0}
    assert plan._credible(1.5, bounds) == 1.5
    for nonsense in (0.5, 0.0):
        assert plan._credible(nonsense, bounds) is None


def test_a_part_of_a_slice_is_refused():
    topology = find_topology("cpu:8")._replace(name="v5e:2x4", chip=CHIPS["v5e"])
    with pytest.raises(ConfigError, match="--devices is 4, v5e:2x4 has 8, and libtpu compiles for"):
        blueprint_without_data(tiny(devices=4), topology)


def test_a_plan_for_chips_is_printed(planned):
    bounds = {"FLOPs": 0.002, "memory": 0.0031, "links": 0.0}
    ours = dataclasses.replace(planned(1), available=2**21, bounds=bounds, xla_seconds=0.25)
    with Console(file=io.StringIO(), record=True, width=100) as console:
        console.print(report.plan_table(ours))
    text = console.export_text()
    assert re.search(r"peak memory +1\d{3}\.\d KiB +\d\d% of 2048\.0 KiB", text), text
    assert re.search(r"FLOPs .* at least 2 ms *\n", text)
    assert re.search(r"time of a step by XLA +250 ms", text)
    with Console(file=io.StringIO(), record=True, width=100) as console:
        console.print(report.products_table(ours))
        parts = (Part("ops/norm.py LayerNorm", True, 0.2), Part("ops/conv.py Conv", False, 0.05))
        console.print(report.parts_table(dataclasses.replace(ours, parts=parts)))
    text = console.export_text()
    assert re.search(r"product +float32, exact +\d+", text) or re.search(r"product +float32", text)
    assert re.search(r"ops/norm.py LayerNorm +gradient +200 ms +80%", text)
    assert re.search(r"ops/conv.py Conv +50 ms +20%", text)
    assert report.verdict(ours) == (
        "bound by what it reads and writes, as XLA counts it: 3.1 ms a step at least"
    )


def test_unknown_devices_are_a_config_error():
    with pytest.raises(ConfigError, match="no chip is called ''"):
        find_topology("")
