"""Images per second of flaxseg's loader beside a torch DataLoader with albumentations.

    pip install albumentations psutil
    python benchmarks/loading.py CAMVID_FOLDER [--image-size 224 224] [--workers 1 2]

Two processes, one for each side (see `loading_sides.py` for what they do), take turns of a few
seconds, in alternating order, while the other one rests. A ratio is the median over pairs of
neighbouring turns, so that what else the machine does strikes both alike. "Per core" are images per
second of CPU time, of the side's process and all its workers.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from loading_sides import Job, serve

SIDES = ("flaxseg", "torch")
LABEL_FOLDERS = {"train": "trainannot", "train_images": "train_labels"}
HEAD = """
| torch's crop | workers | images/s: flaxseg | torch | ratio | per core: flaxseg | torch | ratio |
|---|---|---|---|---|---|---|---|
""".strip()
PACKAGES = ("jax", "grain", "opencv-python-headless", "numpy", "torch", "albumentations")


class Side:
    """One pipeline in a process of its own."""

    def __init__(self, job: Job):
        """Starts the process; its first turn makes it ready."""
        command = [sys.executable, __file__, "--serve", json.dumps(dataclasses.asdict(job))]
        self._images = job.batch_size
        self._process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self, num_batches: int) -> dict[str, float]:
        """Images per second, and per second of CPU time, over a number of batches."""
        print(num_batches, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._process.args[-1]} ended; what it said is above")
        seconds = json.loads(answer)
        images = num_batches * self._images
        return {"per_second": images / seconds["wall"], "per_core": images / seconds["cpu"]}

    def stop(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def compare(jobs: dict[str, Job], num_batches: int, repeats: int) -> dict[str, Any]:
    """Lets both sides take turns and sums up."""
    sides = {name: Side(job) for name, job in jobs.items()}
    for side in sides.values():
        side.turn(num_batches)
    turns: list[dict[str, dict[str, float]]] = []
    for repeat in range(repeats):
        order = SIDES if repeat % 2 else SIDES[::-1]
        turns.append({name: sides[name].turn(num_batches) for name in order})
    for side in sides.values():
        side.stop()
    return summary(turns)


def summary(turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of the sides, and of the ratio of flaxseg to torch over pairs of turns.

    Args:
        turns: by side and measure ("per_second", "per_core"), one pair for each repeat.
    """
    result: dict[str, Any] = {}
    for measure in ("per_second", "per_core"):
        values = {name: [turn[name][measure] for turn in turns] for name in SIDES}
        ratios = [ours / theirs for ours, theirs in zip(*values.values(), strict=True)]
        result[measure] = {
            **{name: statistics.median(values[name]) for name in SIDES},
            "ratio": statistics.median(ratios),
            "lowest_ratio": min(ratios),
            "highest_ratio": max(ratios),
        }
    return result


def row(name: str, workers: int, result: dict[str, Any]) -> str:
    """One line of the table."""
    cells = [name, str(workers)]
    for measure in ("per_second", "per_core"):
        values = result[measure]
        low, high = values["lowest_ratio"], values["highest_ratio"]
        cells += [f"{values[side]:.0f}" for side in SIDES]
        cells += [f"{values['ratio']:.2f} ({low:.2f} to {high:.2f})"]
    return f"| {' | '.join(cells)} |"


def find_pairs(folder: Path) -> tuple[tuple[str, str], ...]:
    """Paths of image and label map of every training example, where label maps hold class ids."""
    from flaxseg import data

    source = data.open_source("camvid", "train", data_dir=folder)
    images = [folder / source.name(index) for index in range(len(source))]
    if images[0].parent.name not in LABEL_FOLDERS:
        raise SystemExit(f"{folder}: give SegNet's copy or the tutorials' folders of CamVid")
    labels = [
        image.parent.with_name(LABEL_FOLDERS[image.parent.name]) / f"{image.stem}.png"
        for image in images
    ]
    return tuple(zip(map(str, images), map(str, labels), strict=True))


def make_jobs(options: argparse.Namespace, pairs: tuple, workers: int, crop: str):
    """What each side does in one line of the table."""
    return {
        side: Job(
            side=side,
            folder=str(options.folder),
            pairs=pairs,
            image_size=tuple(options.image_size),
            batch_size=options.batch_size,
            workers=workers,
            crop=crop,
            normalize=options.normalize,
            keep_decoded=options.keep_decoded,
        )
        for side in SIDES
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="images per second beside torch")
    parser.add_argument("folder", type=Path, help="CamVid, SegNet's copy or the tutorials'")
    parser.add_argument("--image-size", type=int, nargs=2, default=(224, 224), help="of a crop")
    parser.add_argument("--batch-size", type=int, default=8, help="images of a batch")
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 2), help="on either side")
    parser.add_argument("--crops", nargs="+", default=("scaled", "resized"), help="torch's crop")
    parser.add_argument("--normalize", action="store_true", help="on both sides")
    parser.add_argument("--keep-decoded", type=float, default=0.0, help="GiB, on our side alone")
    parser.add_argument("--batches", type=int, default=60, help="of a turn")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each side")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args(arguments)


def main() -> None:
    """Prints the table and writes the JSON file."""
    if sys.argv[1:2] == ["--serve"]:
        return serve(Job(**json.loads(sys.argv[2])))
    options = parse()
    pairs = find_pairs(options.folder)
    report: dict[str, Any] = {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "settings": {key: str(value) for key, value in vars(options).items()},
        "images": len(pairs),
        "load_before": os.getloadavg(),
        "rows": [],
    }
    print(HEAD)
    for workers in options.workers:
        for crop in options.crops:
            jobs = make_jobs(options, pairs, workers, crop)
            result = compare(jobs, options.batches, options.repeats)
            report["rows"].append({"workers": workers, "crop": crop, **result})
            print(row(crop, workers, result), flush=True)
    report["load_after"] = os.getloadavg()
    print(
        f"load average {report['load_before'][0]:.1f} before, {report['load_after'][0]:.1f} after"
    )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
