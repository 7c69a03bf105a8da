"""The benchmark for a GPU or TPU, on a CPU."""

import argparse
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from flaxseg import models

BARE = """
import runpy, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name in {"grain", "tyro", "safetensors", "PIL", "cv2", "torch", "tensorflow_datasets"}:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Block())
sys.path[:0] = ["benchmarks"]
import accelerator_jax
sys.argv = ["accelerator.py", "--help"]
runpy.run_path("benchmarks/accelerator.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def sides(load_benchmark):
    for name in ("networks", "accelerator_job"):
        load_benchmark(name)
    return load_benchmark("accelerator_jax")


@pytest.fixture(scope="module")
def accelerator(sides, load_benchmark):
    return load_benchmark("accelerator")


@pytest.fixture
def options(tmp_path):
    return argparse.Namespace(
        out=tmp_path / "out.jsonl", seconds=0.01, tiny=True, batch_size=None, repeats=2, turn=0.0
    )


def lines(options) -> list[dict]:
    return [json.loads(line) for line in options.out.read_text().splitlines()]


def test_a_network_is_measured_and_compared_with_float64(accelerator, options):
    accelerator.perform(["vitseg", "jax", "default"], options)
    forward, training, difference = lines(options)
    assert [forward["what"], training["what"]] == ["forward", "training"]
    assert 0 < forward["min"] <= forward["median"] and training["compile_seconds"] > 0
    assert 0 < difference["difference"] < 1e-5


@pytest.mark.parametrize(
    ("precision", "products"),
    [("exact", "HIGHEST"), ("default", "DEFAULT"), ("bfloat16", "DEFAULT")],
)
def test_each_precision_multiplies_as_it_says(accelerator, sides, precision, products):
    config = models.get_config("vitseg", **accelerator.TINY["vitseg"])
    model = sides.fresh(argparse.Namespace(config=config, precision=precision))
    images = jnp.zeros((1, *config.fixed_size, 3))
    program = jax.make_jaxpr(lambda x: models.eval_view(model)(x).logits)(images)
    assert set(re.findall(r"Precision\.(\w+)", str(program))) == {products}
    assert ("bf16" in str(program)) == (precision == "bfloat16")


def test_difference_is_relative_and_passes_no_nan(sides):
    expected = np.array([[1.0, 2.0]])
    assert sides._apart(expected + [[0.0, 0.5]], expected) == 0.25
    assert np.isnan(sides._apart(expected * np.nan, expected))


def test_what_is_cut_off_is_written_down(accelerator, options):
    accelerator.run(("ceiling", "first"), options, 0.01)
    assert lines(options) == [{"task": ["ceiling", "first"], "error": "cut off after 0.01 s"}]
    assert "ceiling first: cut off after 0.01 s" in "\n".join(accelerator.table(lines(options)))


def test_table_has_the_better_layout_beside_jax(accelerator):
    about = {"network": "setr", "precision": "exact", "batch": 2, "size": [32, 48]}
    jax = {**about, "side": "jax", "device": "X", "version": "1"}
    torch = {**about, "side": "torch", "device": "X", "version": "2"}
    found = [
        {**jax, "what": "forward", "min": 2, "median": 3, "peak": 2**20, "compile_seconds": 4.0},
        {**torch, "what": "forward", "min": 1, "median": 4, "peak": None, "layout": "NCHW"},
        {**torch, "what": "forward", "min": 5, "median": 6, "peak": 2**21, "layout": "last"},
        {**jax, "what": "difference", "difference": 1e-6},
    ]
    text = "\n".join(accelerator.table(found))
    assert "| `setr`, 2 of 32×48 | exact | forward | 3 | 2 | 1 MiB | 4 s | - | - | 6 | 5 |" in text
    assert " | 5 | 2 MiB | last | 0.5 | - | - |" in text
    assert "| `setr` | exact | 1.0e-06 |" in text


def test_table_names_the_fastest_form_of_a_race(accelerator):
    race = {"race": "sum", "shape": "8", "side": "jax", "device": "X", "version": "1"}
    forms = [{"form": "a", "ms": 2.0}, {"form": "b", "ms": 0.5}, {"form": "c", "refused": "no"}]
    text = "\n".join(accelerator.table([race | form for form in forms]))
    assert "| sum | 8 | a 2.000, **b 0.500**, c refused |" in text


def test_it_goes_on_where_the_file_ends(accelerator, options, monkeypatch):
    done = []
    monkeypatch.setattr(accelerator, "sides", lambda tiny: ["jax", "torch"])
    monkeypatch.setattr(accelerator, "run", lambda task, *_: done.append(task))
    options.minutes, options.seconds, options.forms = 1, 60, True
    first = (
        {"task": ["forms"], "seconds": 1.0},
        {"task": ["vitseg", "jax", "bfloat16"], "error": ""},
    )
    options.out.write_text("".join(json.dumps(line) + "\n" for line in first))
    accelerator.run_all(["vitseg"], options)
    assert ("forms",) not in done and ("vitseg", "jax", "bfloat16") in done
    assert ("vitseg", "torch compile", "bfloat16") in done and ("ceiling", "last") in done
    done.clear()
    options.minutes = 0
    accelerator.run_all(["vitseg"], options)
    assert set(done) == {("ceiling", "first"), ("ceiling", "last")}


def test_a_form_that_differs_or_fails_is_no_time(load_benchmark, sides, options, monkeypatch):
    forms = load_benchmark("accelerator_forms")

    def refuse(x):
        raise NotImplementedError("not here")

    race = forms.Race(
        "sum", "4", {"a": lambda x: x, "b": lambda x: x + 1, "c": refuse}, (jnp.ones(4),)
    )
    monkeypatch.setattr(forms, "races", lambda tiny: iter([race]))
    forms.run(True, accelerator_clock(load_benchmark), options.out)
    right, wrong, failed = lines(options)
    assert right["ms"] > 0 and right["apart"] == 0
    assert "1e+00 from the first form" in wrong["refused"] and "ms" not in wrong
    assert failed["refused"] == "NotImplementedError: not here"


def accelerator_clock(load_benchmark):
    return load_benchmark("accelerator_job").Clock(1, 0.0)


def test_the_page_is_what_the_committed_results_make(accelerator, request, load_benchmark):
    page = load_benchmark("page")
    text = (request.config.rootpath / "docs" / "accelerators.md").read_text(encoding="utf-8")
    assert page.filled(text, {"measured": accelerator.committed()}) == text


def test_it_starts_without_installing_flaxsegs_needs(request):
    command = [sys.executable, "-c", BARE]
    ended = subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Needs jax for the device, flax, optax and numpy" in ended.stdout
