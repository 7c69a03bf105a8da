"""`flaxseg bench`, and what it measures with."""

import json

import pytest
from flax import nnx

import flaxseg
from flaxseg import cli
from flaxseg.bench import Samples, ceilings, command, measure_ceilings, take_turns
from flaxseg.bench.samples import ENOUGH, Timed

NARROW = ("patch_size=8", "width=16", "depth=1", "mlp_dim=16", "num_heads=2")


def test_disturbed_calls_do_not_count_where_enough_others_remain():
    quiet = [Timed(1.0 + n, 0) for n in range(ENOUGH)]
    samples = Samples.of([Timed(0.5, 3), *quiet, Timed(99.0, 1)])
    assert samples.seconds == (1.0, 2.0, 3.0, 4.0, 5.0) and samples.taken == ENOUGH + 2
    assert (samples.min, samples.median, samples.quartiles) == (1.0, 3.0, (2.0, 4.0))
    few = Samples.of([Timed(0.5, 3), *quiet[1:]])
    assert few.seconds[0] == 0.5 and len(few.seconds) == few.taken == ENOUGH
    assert few.to_json()["kept"] == ENOUGH


def test_programs_take_turns_and_the_first_call_of_each_is_not_timed():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = take_turns(calls, rounds=3)
    assert order == list("abababab")
    assert {name: one.taken for name, one in found.items()} == {"a": 3, "b": 3}


def test_products_grow_until_one_takes_long_and_the_fastest_counts(monkeypatch):
    sides = []

    def product(side):
        sides.append(side)
        return lambda: None

    seconds = iter((0.002, 0.015, 30.0, 0.5))
    monkeypatch.setattr(ceilings, "_fastest", lambda call: next(seconds))
    found = measure_ceilings(product, lambda length: None, sides=(10, 100, 200, 300), length=5)
    assert sides == [10, 100, 200]
    assert found == (2 * 100**3 / 0.015, 8 * 5 / 0.5)


def test_a_network_is_measured_and_written_down(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(
        command, "_ceilings", lambda *key: asked.append(key) or ceilings.Ceilings(1e12, 1e9)
    )
    out = tmp_path / "out.json"
    args = ["bench", "vitseg", "--size", "16", "24", "--batch", "2", "--rounds", "1"]
    args += ["--num-classes", "4"]
    assert cli.main([*args, "--json", str(out), "--override", *NARROW]) == 0
    text = capsys.readouterr().out
    assert "batch 2 of 16 x 24" in text and "1 of 1" in text
    found = json.loads(out.read_text())
    assert (found["size"], found["batch"], list(found["modes"])) == (
        [16, 24],
        2,
        ["infer", "train"],
    )
    assert asked == [("float32", "highest"), ("float32", "default")]
    for one in found["modes"].values():
        costs, least = one["costs"], one["samples"]["min"]
        assert costs["compile_seconds"] > 0 and costs["temporary"] > 0
        assert one["share"] == pytest.approx(costs["flops"] / least / 1e12)
    infer, train = (found["modes"][mode]["costs"]["flops"] for mode in ("infer", "train"))
    assert 2 * infer < train < 4 * infer


def test_a_directory_stands_for_its_network(tmp_path):
    fields = {"patch_size": 64, "width": 8, "depth": 1, "mlp_dim": 8}
    model = flaxseg.create_model("vitseg", rngs=nnx.Rngs(0), **fields)
    flaxseg.save(model, tmp_path / "run" / "model")
    assert command.find_config(str(tmp_path / "run")) == model.config


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["segfomer"],
            "neither the name of a network nor a folder or file; did you mean",
        ),
        ([__file__], "is damaged or no torch file"),
        (["vitseg", "--size", "100"], "--size is 100, with vitseg: field 'image_size'"),
        (["ccnet", "--size", "1", "2", "3"], "--size is 1 2 3, it must be one number or two"),
        (["ccnet", "--batch", "0"], "--batch is 0, it must be at least 1"),
        (["ccnet", "--mode", "--batch", "2"], "--mode has no value"),
        (["ccnet", "--override", "depth=3"], "has no field 'depth'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(capsys, args, words):
    assert cli.main(["bench", *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
