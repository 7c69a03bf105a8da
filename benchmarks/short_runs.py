"""Trains every network for a moment on drawn shapes, narrow, stopped half-way and resumed.

    python benchmarks/short_runs.py [PATTERN] [--steps 150] [--out runs/short]

Each run is `train.py` twice with the same flags, the first time with `--max-steps`. A line of
Markdown says whether the second took over where the first stopped, how the loss fell, and the
scores on the validation images, whose overlays are in OUT/NAME/overlays.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

from flaxseg import models

TRAIN = Path(__file__).parents[1] / "train.py"

_TRANSFORMER = "--lr 1e-3"
_RESNET = "backbone.width=16 backbone.blocks=1,1,2,1 channels=64"
_MIT = "backbone.widths=16,32,40,64 backbone.depths=1,1,1,1"
_VIT = "backbone.patch_size=8 backbone.width=64 backbone.depth=4 backbone.mlp_dim=128"
_HEADS = "backbone.num_heads=4 backbone.head_dim=16 backbone.out_indices=0,1,2,3"
_SETR = f"{_VIT} {_HEADS} channels=32 level_channels=16"
_DETAIL = "backbone.detail_channels=16,16,32 backbone.detail_layers=1,2,2"
_SEMANTIC = "backbone.semantic_channels=8,16,24,32 backbone.semantic_layers=1,1,2"

NARROW = {
    "bisenetv2": f"--override {_DETAIL} {_SEMANTIC} head_channels=64 aux_channels=8,16,24,32",
    "ccnet": f"--override {_RESNET}",
    "segformer": f"{_TRANSFORMER} --override {_MIT} channels=64",
    "setr": f"{_TRANSFORMER} --override {_SETR}",
    "vitseg": f"{_TRANSFORMER} --override patch_size=8 width=64 depth=4 mlp_dim=128",
}
"""Flags by architecture: narrow enough for a minute on two cores."""

FURTHER = {
    "ccnet_r": "aux_channels=32",
    "ccnet_r101": "backbone.blocks=1,1,4,1",
    "segformer_b2": "backbone.depths=1,1,2,1",
    "segformer_b3": "backbone.depths=1,1,3,1",
    "segformer_b4": "backbone.depths=1,2,3,1",
    "segformer_b5": "backbone.depths=1,1,4,1",
}
"""More of them by the beginning of the name."""


def flags(name: str) -> list[str]:
    """What a network is trained with, besides its name and the length of the run."""
    narrow = NARROW[models.architecture_of(models.get_config(name))].split()
    further = (fields.split() for prefix, fields in FURTHER.items() if name.startswith(prefix))
    return [*narrow, *itertools.chain.from_iterable(further)]


def train(name: str, steps: int, workdir: Path) -> str:
    """Trains, stops, resumes, and returns the table's line."""
    command = [sys.executable, str(TRAIN), "--model", name, "--workdir", str(workdir)]
    command += ["--steps", str(steps), "--log-every", "1", "--limit", "200", "--eval-every", "100"]
    command += flags(name)
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled")}
    for more in (["--max-steps", str(steps // 2)], []):
        result = subprocess.run([*command, *more], env=env, capture_output=True, text=True)
        if result.returncode:
            return f"| `{name}` | FAILED: `{' '.join(command + more)}`: {result.stderr[-500:]} |"
    return line(name, steps, workdir, resumed=f" at step {steps // 2}" in result.stdout)


def line(name: str, steps: int, workdir: Path, resumed: bool) -> str:
    """What a finished run has recorded, in Markdown."""
    with (workdir / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    losses = [float(row["loss"]) for row in rows]
    whole = resumed and [int(row["step"]) for row in rows] == list(range(1, steps + 1))
    tenth = steps // 10
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    metrics = json.loads((workdir / "result.json").read_text())["metrics"]
    verdict = "yes" if whole else "NO"
    scores = f"{metrics['miou']:.2f} | {metrics['pixel_accuracy']:.2f}"
    return f"| `{name}` | {verdict} | {first:.2f} | {last:.2f} | {scores} |"


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description="a short training of every network")
    parser.add_argument("pattern", nargs="?", default="*", help="names, such as 'segformer*'")
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps of a run")
    parser.add_argument("--out", type=Path, default=Path("runs/short"), help="folder of the runs")
    options = parser.parse_args()
    print("| name | resumed | loss of the first tenth | of the last | mIoU | pixel accuracy |")
    print("|---|---|---|---|---|---|")
    for name in models.list_models(options.pattern):
        print(train(name, options.steps, options.out / name), flush=True)


if __name__ == "__main__":
    main()
