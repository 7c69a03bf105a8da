import json
import subprocess
import sys

import pytest

from flaxseg import cli

PLANNED = {
    "fits": True,
    "batch_size": 16,
    "image_size": [512, 512],
    "memory": {"peak": 3 * 2**30},
    "available": 4 * 2**30,
    "flops": 1e12,
    "bytes_accessed": 2**31,
    "sent": 2**20,
    "least_sent": 2**21,
    "bound": "memory",
    "bounds": {"FLOPs": 0.001, "memory": 0.0025},
    "xla_seconds": None,
    "compile_seconds": 80.4,
    "products": [
        {"kind": "product", "operands": "bfloat16", "exact": False, "count": 30, "window": None},
        {
            "kind": "convolution",
            "operands": "bfloat16",
            "exact": False,
            "count": 2,
            "window": [7, 7],
        },
        {"kind": "product", "operands": "float32", "exact": True, "count": 4, "window": None},
    ],
    "parts": [
        {"where": "ops/conv.py Conv", "backward": True, "seconds": 0.3},
        {"where": "ops/norm.py LayerNorm", "backward": False, "seconds": 0.1},
    ],
}


@pytest.fixture
def benchmark(load_benchmark, monkeypatch, tmp_path):
    """The script with a page and results of its own."""
    load_benchmark("page")
    module = load_benchmark("accelerators")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- accelerators -->\nold\n<!-- end -->\n"
        "between\n<!-- programs -->\nold\n<!-- end -->\nafter\n"
    )
    monkeypatch.setattr(module, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["accelerators.py", "vitseg-v5e-2x4-*"])
    return module


def test_every_row_is_a_command_that_its_chips_can_share(benchmark):
    rows = list(benchmark.rows())
    assert len({row.name for row in rows}) == len(rows) == 7 * 3 * 3
    for row in rows:
        flags = row.flags()
        at = flags.index("--topology")
        config = cli.parse_train_config(flags[:at] + flags[at + 2 :])
        assert config.batch_size % benchmark.TOPOLOGIES[row.topology] == 0
        assert config.recipe == benchmark.RECIPES[row.model] and config.dtype == "bfloat16"


def test_rows_are_made_once_and_written_to_the_page(benchmark, monkeypatch, capsys):
    ran = []

    def run(command, *, timeout, **_):
        ran.append(command)
        file = benchmark.Path(command[command.index("--json") + 1])
        if "fsdp8" in file.name:
            raise subprocess.TimeoutExpired(command, timeout)
        small = {"fits": False, "asked": 31.5 * 2**30}
        values = PLANNED if "plain" in file.name else PLANNED | small
        file.write_text(json.dumps(values))
        return subprocess.CompletedProcess(command, 0 if values["fits"] else 2)

    monkeypatch.setattr(subprocess, "run", run)
    for _ in range(2):
        benchmark.main()
    assert len(ran) == 3
    assert capsys.readouterr().out.split("\n")[1:6:2] == [
        "  planned",
        "  not compiled within 600 s",
        "  does not fit",
    ]
    text = benchmark.PAGE.read_text()
    words = [line for line in text.splitlines() if not line.startswith(("|", "<"))]
    assert words == ["before", "between", "after"]
    lines, programs = (part.splitlines() for part in text.split("between"))
    lines = lines[1:]
    assert programs[-3] == (
        "| `vitseg` | 32 | 4 | 0 | 7×7, 16×16 | 75% `ops/conv.py Conv`, gradient; "
        "25% `ops/norm.py LayerNorm` |"
    )
    assert len({line.count("|") for line in lines[1:-1]}) == 1
    assert "| 3.00 GiB | 75% | 1000 | 2.00 | 1 | 2 | memory | 2.50 ms |  | 80 s |" in lines[3]
    assert "| not compiled within 600 s |" in lines[4]
    assert "| `--override remat=true` | 16 | 512×512 | 31.50 GiB | 200% |" in lines[5]
