"""The tables of docs/performance.md, from what `speed.py` wrote."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import page

from flaxseg.printed import in_bytes

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "speed"
FORMS = RESULTS.with_name("forms")
LAYERS = RESULTS.with_name("layers")
WHOLE = RESULTS.with_name("run")
PAGE = ROOT / "docs" / "performance.md"

NOTHING = "Nothing has been measured yet."

Run = dict[str, Any]
"""What a file holds."""


def write_page() -> None:
    """Makes the tables of the page from all files."""
    page.fill(PAGE, committed())


def committed() -> dict[str, str]:
    """What stands in each region of the page by the committed results."""
    return regions(*(_stored(folder) for folder in (RESULTS, FORMS, LAYERS, WHOLE)))


def _stored(folder: Path) -> dict[str, Run]:
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def regions(
    runs: Mapping[str, Run],
    races: Mapping[str, Run],
    parts: Mapping[str, Run],
    whole: Mapping[str, Run],
) -> dict[str, str]:
    """What stands in each region: runs of `speed.py`, `forms.py`, `layers.py`, `run_speed.py`."""
    others = {"forms": (forms, races), "layers": (layers, parts), "run": (trainings, whole)}
    return tables(runs) | {name: _each(table, found) for name, (table, found) in others.items()}


def tables(runs: Mapping[str, Run]) -> dict[str, str]:
    """The tables of runs of `speed.py`, by their regions."""
    made = {"machines": machine, "speed": speed, "programs": programs, "scaling": scaling}
    return {name: _each(table, runs) for name, table in made.items()}


def _each(table: Callable[[Run], str], runs: Mapping[str, Run]) -> str:
    made = [f"{title}:\n\n{text}" for title, run in runs.items() if (text := table(run))]
    return "\n\n".join(made) or NOTHING


def forms(run: Run) -> str:
    """The convolutions by themselves, in milliseconds."""
    lines = [
        f"{_where(run['machine'])}, {run['rounds']} rounds. Fastest and median of the calls that "
        "count.",
        "",
        "| convolution | | flaxseg | XLA | PyTorch |",
        "|---|---|---|---|---|",
    ]
    for row in run["rows"]:
        times = (
            f"{1e3 * row['samples'][who]['min']:.1f} / {1e3 * row['samples'][who]['median']:.1f}"
            for who in ("flaxseg", "XLA", "PyTorch")
        )
        name = "output" if row["pass"] == "output" else f"gradient of the {row['pass']}"
        lines.append(f"| {_convolution(row['shape'])} | {name} | {' | '.join(times)} |")
    return "\n".join(lines)


LARGEST = 8
"""Rows of layers that lose most; below them are two that gain most."""


def layers(run: Run) -> str:
    """What the layers of each network's step take by themselves, and what is left of it."""
    made = [f"{_where(run['machine'])}, fastest of {run['rounds']}. Milliseconds of a step."]
    for found in run["networks"]:
        made.append(f"`{found['model']}`, {_images(found)}:\n\n{_layers_of(found)}")
    return "\n\n".join(made)


def _layers_of(found: Run) -> str:
    step = found["step"]
    whole = step["flaxseg"], min(time for who, time in step.items() if who != "flaxseg")
    rows = [
        (_layer(row), *(row["count"] * row["seconds"][who] for who in ("flaxseg", "PyTorch")))
        for row in found["rows"]
    ]
    rows.sort(key=lambda row: row[2] - row[1])
    most = [*rows[:LARGEST], *rows[LARGEST:][-2:]]
    sums = tuple(sum(row[side] for row in rows) for side in (1, 2))
    rest = tuple(all_of_it - part for all_of_it, part in zip(whole, sums, strict=True))
    ends = ("all convolutions and linear layers", sums), ("all else", rest), ("the step", whole)
    most += [(name, *times) for name, times in ends]
    cells = [(name, _ms(a), _ms(b), f"{1e3 * (a - b):+.1f}") for name, a, b in most]
    return _table(("layer", "flaxseg", "PyTorch", "flaxseg takes more"), cells)


def _layer(row: Run) -> str:
    layer = row["layer"]
    name = "output" if row["pass"] == "output" else f"gradient of the {row['pass']}"
    inputs, outputs = layer["shape"][-1], layer["outputs"]
    shape = "×".join(map(str, layer["shape"][:-1]))
    kernel = f"{layer['kernel']}×{layer['kernel']}" if layer["kernel"] else "linear"
    kernel += f"/{layer['stride']}" if layer["stride"] > 1 else ""
    kernel += f", dilation {layer['dilation']}" if layer["dilation"] > 1 else ""
    kind = "depthwise " if layer["groups"] > 1 else ""
    return f"{row['count']} {kind}{kernel}, {inputs} to {outputs}, {shape}: {name}"


def trainings(run: Run) -> str:
    """Whole trainings beside their bare steps."""
    head = ("network", "images", "steps a second", "bare steps", "share", "CPU time in the system")
    rows = (
        (
            f"`{row['model']}`",
            f"{row['batch']} of {row['image_size'][0]}×{row['image_size'][1]}",
            f"{row['run']:.3f}",
            f"{row['bare']:.3f}",
            f"{row['share']:.2f}",
            f"{row['system']:.0%}",
        )
        for row in run["rows"]
    )
    return f"{_where(run['machine'])}.\n\n{_table(head, rows)}"


def _where(host: Run) -> str:
    return (
        f"{host['cpu']}, {host['instructions']}, {host['threads']} threads, jax "
        f"{host['versions']['jax']}, torch {host['versions']['torch']}, commit `{host['commit']}`"
    )


def _convolution(shape: Mapping[str, Any]) -> str:
    kernel = f"{shape['kernel']}×{shape['kernel']}"
    kernel += f"/{shape['stride']}" if shape["stride"] > 1 else ""
    kind = "depthwise " if shape["depthwise"] else ""
    spread = f", dilation {shape['dilation']}" if shape["dilation"] > 1 else ""
    channels = f"{shape['inputs']} to {shape['outputs']}"
    size = f"{shape['batch']} of {shape['side']}²"
    return f"{kind}{kernel}{spread}, {channels}, {size}"


def machine(run: Run) -> str:
    """Where and when, and what the machine reaches."""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    rows = {
        "processor": f"{run['cpu']}, {run['instructions']}",
        "threads": f"{run['threads']} of each framework, {run['cores']} processors",
        "memory": f"{run['memory_gib']} GiB",
        "versions": versions,
        "commit": f"`{run['commit']}`",
        "started": run["started"],
        "command": f"`{run['command']}`",
    }
    for when, frameworks in run["ceilings"].items():
        rows[f"ceilings, {when}"] = ", ".join(
            f"{name} {found['product'] / 1e9:.0f} GFLOP/s and {found['copy'] / 1e9:.1f} GB/s"
            for name, found in frameworks.items()
        )
    return _table(("", ""), rows.items())


def speed(run: Run) -> str:
    """Milliseconds of each network beside its rivals."""
    head = ("network", "images", "", "flaxseg ms", "median", "half of the calls", "of the ceiling")
    rivals = list(dict.fromkeys(name for row in run["networks"] for name in row["ratios"]))
    for rival in rivals:
        head += (f"{rival} ms", "median", "layout", "ratio", "of medians")
    head += ("apart", "calls that count", "read across", "left out")
    return _table(head, [_speed_cells(row, rivals) for row in run["networks"]])


def _speed_cells(row: Run, rivals: Iterable[str]) -> list[str]:
    ours = row["samples"]["flaxseg"]
    low, high = map(_ms, ours["quartiles"])
    cells = [f"`{row['model']}`", _images(row), row["mode"], _ms(ours["min"])]
    cells += [_ms(ours["median"]), f"{low} to {high}", _share(row["share"])]
    for rival in rivals:
        found = row["ratios"].get(rival)
        if found is None:
            cells += ["-"] * 5
            continue
        theirs = row["samples"][found["fastest"]]
        layout = found["fastest"].removeprefix(rival).strip()
        cells += [_ms(theirs["min"]), _ms(theirs["median"]), layout]
        cells += [f"**{found['min']:.2f}**", f"{found['median']:.2f}"]
    kept = ", ".join(f"{x['kept']} of {x['taken']}" for x in row["samples"].values())
    left_out = "; ".join(f"{name}: {why}" for name, why in row["left_out"].items())
    apart = f"{max(row['apart'].values()):.0e}" if row["apart"] else "-"
    return [*cells, apart, kept, _across(row.get("across", ())), left_out]


def _across(readings: Iterable[Mapping[str, float] | None]) -> str:
    """How fast a processor reads what another wrote, of its own, before and after."""
    found = [f"{one['other'] / 1e9:.0f} of {one['own'] / 1e9:.0f}" for one in readings if one]
    return ", ".join(found) + " GB/s" if found else "-"


def programs(run: Run) -> str:
    """What each program costs besides its time."""
    head = ("network", "images", "", "tracing", "compiling", "GFLOP", "after XLA", "accessed")
    head += ("temporary", "memory", "first result with programs on disk")
    return _table(head, map(_program_cells, run["networks"]))


def _program_cells(row: Run) -> list[str]:
    costs, cold = row["costs"], row.get("cold")
    cells = [f"`{row['model']}`", _images(row), row["mode"]]
    cells += [f"{costs[key]:.2f} s" for key in ("trace_seconds", "compile_seconds")]
    cells += [_giga(costs[key]) for key in ("flops", "compiled_flops")]
    cells += [_size(costs[key]) for key in ("bytes_accessed", "temporary", "memory")]
    return [*cells, _cold(cold)]


def _cold(cold: Mapping[str, float] | None) -> str:
    if cold is None:
        return "-"
    parts = ", ".join(f"{name} {value:.1f}" for name, value in cold.items() if name != "total")
    return f"{cold['total']:.1f} s ({parts})"


def scaling(run: Run) -> str:
    """How time and temporary memory grow, and the powers."""
    rows = []
    for one in run["scaling"]:
        for series, found in one["series"].items():
            points, powers = found["points"], found["exponents"]
            rows.append(
                (
                    f"`{one['model']}`",
                    one["mode"],
                    series,
                    f"{_images(points[0])} to {_images(points[-1])}",
                    f"{_ms(points[0]['min'])} to {_ms(points[-1]['min'])}",
                    _power(powers["min"]),
                    f"{_size(points[0]['temporary'])} to {_size(points[-1]['temporary'])}",
                    _power(powers["temporary"]),
                )
            )
    head = ("network", "", "grows", "images", "ms", "power", "temporary", "power")
    return _table(head, rows) if rows else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * (lines[0].count("|") - 1) + "|", *lines[1:]])


def _images(row: Mapping[str, Any]) -> str:
    height, width = row["size"]
    return f"{row['batch']} of {height}×{width}"


def _ms(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _giga(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e9:.4g}"


def _size(count: float | None) -> str:
    return "-" if count is None else in_bytes(count)


def _power(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
