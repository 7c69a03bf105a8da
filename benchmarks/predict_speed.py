"""Speed and memory of `flaxseg predict` over many pictures, beside the bare network.

    python benchmarks/predict_speed.py [--pictures 1000] [--sizes 50] [--side 512] [--json FILE]

Draws JPEG files of many sizes and predicts a tenth of them, and then all, in a process each. The
difference is the time of the others: without start and compilation, with reading, canvases,
label maps and writing. The bare network is timed in another process at the same canvases and
batches: alone, up to the logits at its own resolution, and with a label map of all pixels.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from flax import nnx

from flaxseg import models, native
from flaxseg.inference import Predictor
from flaxseg.inference.canvas import Canvases
from flaxseg.inference.logits import image_labels, lowest_logits
from flaxseg.labels import LabelSet

PREDICT = """
import json, resource, sys, time
from flaxseg.inference import predict_files
start = time.perf_counter()
predict_files(sys.argv[1], ["@" + sys.argv[2]], sys.argv[3], **json.loads(sys.argv[4]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": time.perf_counter() - start, "peak_bytes": peak}))
"""


def sizes_of(count: int, side: int) -> list[tuple[int, int]]:
    """Different heights and widths, whose longer side is between half of `side` and all of it."""
    rng, found = np.random.default_rng(0), {}
    while len(found) < count:
        long = int(rng.integers(side // 2, side + 1))
        short = max(1, int(long * rng.uniform(0.55, 1)))
        found[(short, long) if rng.random() < 0.7 else (long, short)] = None
    return [*found]


def draw(folder: Path, count: int, sizes: list[tuple[int, int]]) -> list[Path]:
    """Smooth pictures with some grain, as large as JPEG files of photos."""
    rng, files = np.random.default_rng(1), []
    for index in range(count):
        height, width = sizes[index % len(sizes)]
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        grain = rng.integers(-12, 13, (height, width, 1))
        files.append(folder / f"{index:05d}.jpg")
        cv2.imwrite(str(files[-1]), np.clip(picture + grain, 0, 255).astype(np.uint8))
    return files


def predicted(model: Path, files: list[Path], out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Seconds and peak memory of a process that predicts files."""
    listed = out.with_suffix(".txt")
    listed.write_text("\n".join(map(str, files)))
    command = [sys.executable, "-c", PREDICT, str(model), str(listed), str(out)]
    done = subprocess.run(
        [*command, json.dumps(options)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def batches_of(
    model: Path, sizes: list[tuple[int, int]], options: dict[str, Any]
) -> dict[tuple[int, int, int], int]:
    """How many pictures go through each program, by its batch, height and width."""
    side, batch_size = options["max_side"], options["batch_size"]
    predictor = Predictor(
        *native.load_with_meta(model), canvases=Canvases.within(side), batch_size=batch_size
    )
    counts = Counter[tuple[int, int, int]]()
    for size in sizes:
        photo = predictor.prepare(np.zeros((*size, 3), np.uint8), max_side=side)
        counts[predictor.room(photo), *photo.places[0].size] += 1
    return dict(counts)


def bare_seconds(model: Path, shapes: dict[str, int], repeats: int) -> dict[str, float]:
    """Seconds of the network for all pictures: alone, and with label maps of all pixels."""
    loaded = native.load_with_meta(model)
    graphdef, state = nnx.split(loaded.model)
    total = {}
    for name, look in (("network", lowest_logits), ("network and labels", image_labels)):

        @jax.jit
        def run(state: nnx.State, images: jax.Array, look: Any = look) -> jax.Array:
            return look(nnx.merge(graphdef, state), loaded.labels, loaded.preprocess, images)

        total[name] = 0.0
        for shape, pictures in shapes.items():
            batch, height, width = map(int, shape.split("x"))
            images = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
            jax.block_until_ready(run(state, images))
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                jax.block_until_ready(run(state, images))
                times.append(time.perf_counter() - start)
            total[name] += statistics.median(times) * pictures / batch
    return total


def bare(model: Path, shapes: dict[str, int], repeats: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--bare", str(model), json.dumps(shapes), str(repeats)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    model = Path(given.path) if given.path else folder / "model"
    if not given.path:
        config = models.get_config(given.model, num_classes=given.classes)
        network = models.fresh_model(config, rngs=models.params_keys(0))
        native.save(network, model, labels=LabelSet.generic(given.classes))
    sizes = sizes_of(given.sizes, given.side)
    (folder / "photos").mkdir()
    files = draw(folder / "photos", given.pictures, sizes)
    options = {"max_side": given.side, "batch_size": given.batch_size, "write": given.write}
    few = max(len(files) // 10, given.sizes)  # so that all programs are compiled in both runs
    runs = {count: predicted(model, files[:count], folder / f"out{count}", options)
            for count in (few, len(files))}  # fmt: skip
    later = [sizes[index % len(sizes)] for index in range(few, len(files))]
    shapes = {"x".join(map(str, key)): n for key, n in batches_of(model, later, options).items()}
    return {
        "network": str(given.path or given.model),
        "pictures": given.pictures,
        "sizes": given.sizes,
        "batches": shapes,
        "options": options,
        "few": {"pictures": few, **runs[few]},
        "all": {"pictures": len(files), **runs[len(files)]},
        "seconds": {
            "flaxseg predict": runs[len(files)]["seconds"] - runs[few]["seconds"],
            **bare(model, shapes, given.repeats),
        },
        "device": jax.devices()[0].device_kind,
        "processor": platform.processor() or platform.machine(),
        "jax": jax.__version__,
    }


def table(found: dict[str, Any]) -> str:
    """The figures for people to read."""
    count = found["all"]["pictures"] - found["few"]["pictures"]
    own = found["seconds"]["flaxseg predict"]
    lines = [
        f"{found['network']} on {found['device']}: {found['sizes']} sizes, batches of",
        *(f"    {shape}: {pictures} pictures" for shape, pictures in found["batches"].items()),
        "| | pictures a second | predict's share |",
        "|---|---|---|",
    ]
    for name, seconds in found["seconds"].items():
        lines.append(f"| {name} | {count / seconds:.2f} | {seconds / own:.2f} |")
    for part in ("few", "all"):
        peak = found[part]["peak_bytes"] / 2**30
        lines.append(f"peak memory at {found[part]['pictures']} pictures: {peak:.2f} GB")
    return "\n".join(lines)


def main():
    """Prints the table."""
    if sys.argv[1:2] == ["--bare"]:
        _, _, model, shapes, repeats = sys.argv
        print(json.dumps(bare_seconds(Path(model), json.loads(shapes), int(repeats))))
        return
    parser = argparse.ArgumentParser(description="speed of flaxseg predict over many pictures")
    parser.add_argument("--model", default="segformer_b0", help="registry name, random weights")
    parser.add_argument("--path", help="work or model directory in place of --model")
    parser.add_argument(
        "--classes", type=int, default=19, help="of the network with random weights"
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--sizes", type=int, default=50)
    parser.add_argument("--side", type=int, default=512, help="longest side of a picture")
    parser.add_argument("--batch-size", type=int, help="as of flaxseg predict")
    parser.add_argument("--write", nargs="+", default=["mask"], help="as of flaxseg predict")
    parser.add_argument("--repeats", type=int, default=5, help="timings of the bare network")
    parser.add_argument("--json", type=Path, help="file for all figures")
    given = parser.parse_args()
    if given.pictures <= given.sizes:
        parser.error(f"--pictures {given.pictures}: give more than --sizes, {given.sizes}")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given, Path(folder))
    print(table(found))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
