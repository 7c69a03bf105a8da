"""Draws each network for its page and writes its stages there: `python docs/draw.py`.

Nothing here knows what a network does. The model is built without weights and traced on a picture
without pixels; which stage reads which is found in the traced program. A stage whose name is not in
the model, or weights that no stage has, are an error.
"""

import contextlib
import dataclasses
import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from flax import nnx

from flaxseg import models

PAGES = Path(__file__).parent / "networks"

IMAGE = "image"

STAGES = {
    "ccnet": [
        *("backbone.stem", "backbone.stages.*", "head.conv_in", "head.cca", "head.conv_out"),
        *("head.fuse", "head.classifier", "aux_head"),
    ],
    "setr": [
        *("backbone.patch_embed", "backbone.blocks", "head.norm", "head.convs.*"),
        *("head.classifier", "aux_heads.*"),
    ],
    "segformer": ["backbone.stages.*", "head"],
    "bisenetv2": [
        *("backbone.detail.stages.*", "backbone.semantic.stem", "backbone.semantic.stages.*"),
        *("backbone.semantic.context", "backbone.aggregation", "head", "aux_heads.*"),
    ],
    "vitseg": ["input_norm", "patch_embed", "blocks", "head"],
}
"""Parts of each architecture that are drawn, where a variant has them; * is any number."""

DRAWN = {
    "ccnet": ("ccnet_r50", (512, 512)),
    "setr": ("setr_pup", (512, 512)),
    "segformer": ("segformer_b0", (512, 512)),
    "bisenetv2": ("bisenetv2", (512, 512)),
    "vitseg": ("vitseg", (128, 128)),
}
"""The variant and the size of picture that each page shows."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A drawn part of a network.

    Attributes:
        name: its path in the model.
        shape: of what it returns, without the batch.
        reads: names of the stages whose results it gets, through whatever lies between.
        calls: how many modules, or calls of one, it stands for.
        parameters: their number.
    """

    name: str
    shape: tuple[int, ...]
    reads: tuple[str, ...]
    calls: int
    parameters: int


def trace(name: str, size: tuple[int, int]) -> list[Stage]:
    """The stages of a named network in the order in which they run, and its outputs behind them.

    Args:
        name: as for `flaxseg.create_model`.
        size: height and width of the picture.
    """
    config = models.get_config(name)
    abstract = models.abstract_model(config)
    abstract.eval()
    graph, weights = nnx.split(abstract)
    ends = getattr(getattr(config, "backbone", None), "out_indices", ())
    owners = _owners(abstract, STAGES[models.architecture_of(config)], ends)
    counts = _parameters(abstract, owners)

    def forward(weights, images):
        model = nnx.merge(graph, weights)
        with _named_calls(model, owners):
            output = model(images, aux=True)
        return output.logits, *output.aux

    images = jax.ShapeDtypeStruct((1, *size, 3), "float32")
    program = jax.make_jaxpr(forward)(weights, images).jaxpr
    sources: dict[Any, frozenset[str]] = {program.invars[-1]: frozenset([IMAGE])}
    found: dict[str, Stage] = {IMAGE: Stage(IMAGE, (*size, 3), (), 1, 0)}
    for equation in program.eqns:
        reads = _union(sources, equation.invars)
        stage = str(equation.params.get("name", "")).removeprefix(_MARK)
        if stage in counts:
            shape = equation.outvars[0].aval.shape[1:]
            before = found.get(stage, Stage(stage, shape, (), 0, counts[stage]))
            reads = frozenset(before.reads) | (reads - {stage})
            ordered = tuple(other for other in found if other in reads)
            found[stage] = dataclasses.replace(
                before, shape=shape, reads=ordered, calls=before.calls + 1
            )
            reads = frozenset([stage])
        sources.update(dict.fromkeys(equation.outvars, reads))
    assert set(counts) <= set(found), f"never called: {sorted(set(counts) - set(found))}"
    stages = list(found.values())
    for number, output in enumerate(program.outvars):
        name = "logits" if number == 0 else f"aux {number - 1}"
        reads = tuple(stage.name for stage in stages if stage.name in sources[output])
        behind = max(i for i, stage in enumerate(stages) if stage.name in reads)
        stages.insert(behind + 1, Stage(name, output.aval.shape[1:], reads, 1, 0))
    return stages


_MARK = "stage "


def _union(sources: dict[Any, frozenset[str]], variables: Any) -> frozenset[str]:
    # Constants within an equation are no variables, and cannot be looked up.
    known = [sources.get(v, frozenset()) for v in variables if not hasattr(v, "val")]
    return frozenset().union(*known)


def _owners(model: nnx.Module, patterns: list[str], ends: Sequence[int]) -> dict[str, str]:
    """Path of each module to be watched -> name of its stage.

    Args:
        model: the network.
        patterns: names of stages.
        ends: blocks whose results leave the encoder; each ends a stage of blocks.
    """
    rules = [re.compile(p.replace(".", r"\.").replace("*", r"\d+") + r"(?=$|\.)") for p in patterns]
    owners: dict[str, str] = {}
    paths = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    for path, module in sorted(paths.items(), key=lambda item: item[0].count(".")):
        stages = [match.group() for rule in rules if (match := rule.match(path))]
        inner = any(path.startswith(f"{outer}.") for outer in owners)
        if stages and callable(module) and not inner:
            owners[path] = max(stages, key=len)
            if path.startswith("backbone.blocks.") and ends:
                owners[path] = _run_of_blocks(int(path.rpartition(".")[2]), ends)
    return owners


def _run_of_blocks(block: int, ends: Sequence[int]) -> str:
    last = min(end for end in ends if end >= block)
    first = max([end + 1 for end in ends if end < block], default=0)
    return f"backbone.blocks.{first}-{last}"


def _parameters(model: nnx.Module, owners: dict[str, str]) -> dict[str, int]:
    """Number of parameters of each stage; vectors of no stage, such as positions, are left out."""
    counts = dict.fromkeys(owners.values(), 0)
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        key = ".".join(map(str, path))
        stages = [stage for owner, stage in owners.items() if key.startswith(f"{owner}.")]
        if stages:
            counts[stages[0]] += leaf.size
        else:
            assert len(path) <= 2, f"no stage has {key}"
    return counts


@contextlib.contextmanager
def _named_calls(model: nnx.Module, owners: dict[str, str]) -> Iterator[None]:
    """Within, every call of a watched module is one equation of the traced program."""
    stages = {
        id(module): owners[path]
        for parts, module in nnx.iter_modules(model)
        if (path := ".".join(map(str, parts))) in owners
    }
    classes = {type(module) for _, module in nnx.iter_modules(model) if id(module) in stages}
    with contextlib.ExitStack() as patches:
        for kind in classes:
            patches.enter_context(mock.patch.object(kind, "__call__", _watched(kind, stages)))
        yield


def _watched(kind: type, stages: dict[int, str]) -> Any:
    plain = kind.__call__

    def call(self, *args, **options):
        if id(self) not in stages:
            return plain(self, *args, **options)
        leaves, tree = jax.tree.flatten(args)
        traced = [isinstance(leaf, jax.Array) for leaf in leaves]

        def stage(arrays):
            rest = iter(arrays)
            mixed = [
                next(rest) if array else leaf for leaf, array in zip(leaves, traced, strict=True)
            ]
            return plain(self, *jax.tree.unflatten(tree, mixed), **options)

        stage.__name__ = _MARK + stages[id(self)]
        return jax.jit(stage)([leaf for leaf, array in zip(leaves, traced, strict=True) if array])

    return call


ROW, COLUMN, BOX, LANE = 50, 168, (140, 36), 4
"""Pixels from one stage to the next, from one resolution to the next, of a box, between lines."""

STYLE = """
text { font: 12px system-ui, sans-serif; text-anchor: middle; fill: #1b1f24 }
.head { fill: #6a737d } .name { font-size: 11px; font-weight: 600 }
.shape { font-size: 11px; fill: #444d56 }
path { fill: none; stroke: #8b949e; stroke-width: 1.5 }
rect { stroke: #57606a; fill: #ddebf7 } .head-of { fill: #fde8d0 } .end { fill: #e3f3e1 }
.paper { fill: #ffffff; stroke: none }
"""


def draw(stages: list[Stage]) -> str:
    """An SVG: a row for each stage in the order of the program, a column for each resolution.

    Only one box stands in a row, and lines run in rows and between columns, so that none crosses a
    box.
    """
    strides = _strides(stages)
    columns = {stride: i for i, stride in enumerate(sorted(set(strides.values())))}
    column = {name: columns[stride] for name, stride in strides.items()}
    row = {stage.name: i for i, stage in enumerate(stages)}
    width, height = COLUMN * (len(columns) + 0.2), 40 + ROW * len(stages)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width:g}" height="{height:g}"/>',
    ]
    for stride, i in columns.items():
        lines.append(f'<text class="head" x="{_x(i):g}" y="20">1/{stride}</text>')
    lanes = _Lanes()
    for stage in stages:
        for source in stage.reads:
            ends = row[source], column[source], row[stage.name], column[stage.name]
            lines.append(f'<path d="{_line(*ends, lanes)}"/>')
    for stage in stages:
        lines += _box(stage, _x(column[stage.name]), _y(row[stage.name]))
    return "\n".join([*lines, "</svg>", ""])


def _x(column: int) -> float:
    return COLUMN * (column + 0.6)


def _y(row: int) -> float:
    return 34 + ROW * (row + 0.5)


def _strides(stages: list[Stage]) -> dict[str, int]:
    """Pixels of the picture for each of a stage's; tokens are where they came from."""
    height = stages[0].shape[0]
    strides: dict[str, int] = {}
    for stage in stages:
        if len(stage.shape) == 3:
            strides[stage.name] = height // stage.shape[0]
        else:
            side = int(stage.shape[0] ** 0.5)
            strides[stage.name] = height // side
    return strides


class _Lanes:
    """Room for lines between the columns: those that meet in one box share it, others do not."""

    def __init__(self):
        self._taken: list[tuple[int, int, range, int]] = []

    def take(self, gap: int, first: int, last: int) -> int:
        """A free lane in the gap on the left of a column, from one row down to another."""
        rows = range(first, last)
        for lane in range(len(self._taken) + 1):
            others = [t for t in self._taken if t[:2] == (gap, lane) and t[3] != last]
            if all(rows.stop <= o[2].start or o[2].stop <= rows.start for o in others):
                self._taken.append((gap, lane, rows, last))
                return lane
        raise AssertionError("a new lane is always free")


def _line(row0: int, column0: int, row1: int, column1: int, lanes: _Lanes) -> str:
    """From a box to the right or left into the gap beside the other one, down there, and in."""
    start = f"M{_x(column0):g},{_y(row0):g}"
    if column0 == column1 and row1 == row0 + 1:
        return f"{start} V{_y(row1):g}"
    gap = column1 + (column0 > column1)
    lane = _x(gap) - BOX[0] / 2 - 6 - LANE * lanes.take(gap, row0, row1)
    return f"{start} H{lane:g} V{_y(row1):g} H{_x(column1):g}"


def _box(stage: Stage, x: float, y: float) -> list[str]:
    kind = "head-of" if "head" in stage.name else "end" if stage.parameters == 0 else "stage"
    width, height = BOX
    corner = f'x="{x - width / 2:g}" y="{y - height / 2:g}"'
    name = stage.name.removeprefix("backbone.")
    name += f" ×{stage.calls}" if stage.calls > 1 else ""
    return [
        f'<rect class="{kind}" {corner} width="{width}" height="{height}" rx="5"/>',
        f'<text class="name" x="{x:g}" y="{y - 3:g}">{html.escape(name)}</text>',
        f'<text class="shape" x="{x:g}" y="{y + 12:g}">{_shape(stage)}</text>',
    ]


def _shape(stage: Stage) -> str:
    kind = " tokens × " if len(stage.shape) == 2 else " × "
    # Spaces at which no line ends.
    return kind.join(map(str, stage.shape)).replace(" ", "\N{NO-BREAK SPACE}")


def table(stages: list[Stage]) -> str:
    """The stages as a table in Markdown."""
    rows = ["| stage | returns | reads | parameters |", "|---|---|---|---|"]
    for stage in stages[1:]:
        name = f"`{stage.name}`" + (f" ×{stage.calls}" if stage.calls > 1 else "")
        reads = ", ".join(f"`{source}`" for source in stage.reads)
        parameters = f"{stage.parameters:,}" if stage.parameters else ""
        rows.append(f"| {name} | {_shape(stage)} | {reads} | {parameters} |")
    return "\n".join(rows)


BEGIN, END = "<!-- stages -->\n", "<!-- end -->"


def written(page: str) -> dict[Path, str]:
    """Files of a network's page, with what belongs into them."""
    name, size = DRAWN[page]
    stages = trace(name, size)
    path = PAGES / f"{page}.md"
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END, 1)[1]
    return {
        PAGES / f"{page}.svg": draw(stages),
        path: f"{before}{BEGIN}{table(stages)}\n{END}{after}",
    }


def main() -> None:
    """Writes the figures and tables of all pages."""
    for page in DRAWN:
        for path, text in written(page).items():
            path.write_text(text)
            print(path)


if __name__ == "__main__":
    main()
