"""Where the changes of values should happen: on the host with OpenCV, or compiled on the device.

    python benchmarks/host_or_device.py [--image-size 512 512] [--batch-size 8] [--repeats 15]

Flip, photometric distortion and normalisation of 8-bit crops, each timed on its own: on the host
image by image in one thread, as a thread of the loader does it; on the device as one compiled
program for the batch, with the draws made on the host. The training step has to wait for what the
device does, the host's threads work beside it. Times are milliseconds of CPU time per image, and on
an accelerator of wall time; medians over alternating repeats.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import cv2
import jax
import numpy as np
from jax import numpy as jnp

from flaxseg import data
from flaxseg.data.transforms.geometry import flip
from flaxseg.preprocess import Preprocess

Draws = tuple[np.ndarray, ...]


def host_flip(images: np.ndarray) -> list[np.ndarray]:
    """Every second picture mirrored."""
    label = np.zeros(images.shape[1:3], np.uint8)
    return [flip(data.Example(img, label), i % 2 == 0, False).image for i, img in enumerate(images)]


def host_distort(images: np.ndarray) -> list[np.ndarray]:
    """Photometric distortion with OpenCV."""
    distortion = data.PhotometricDistortion()
    return [distortion.draw(np.random.default_rng((0, i)))(image) for i, image in enumerate(images)]


def host_normalize(images: np.ndarray) -> list[np.ndarray]:
    """Normalisation to float32 with OpenCV, in one pass."""
    constants = Preprocess()
    scale = 1 / (255 * np.array(constants.std))
    offset = -np.array(constants.mean) / np.array(constants.std)
    matrix = np.column_stack((np.diag(scale), offset))
    return [cv2.transform(image.astype(np.float32), matrix) for image in images]


def draws_of(count: int) -> Draws:
    """Coins and strengths for a batch, each (B, 1, 1, 1) or, for flips, (B,)."""
    rng = np.random.default_rng(0)
    lows, highs = (-32, 0.5, 0.5, -36), (32, 1.5, 1.5, 36)
    strengths = [
        np.where(rng.uniform(size=count) < 0.5, rng.uniform(low, high, count), neutral)
        for low, high, neutral in zip(lows, highs, (0, 1, 1, 0), strict=True)
    ]
    strengths.append((rng.uniform(size=count) < 0.5).astype(float))
    return tuple(value.astype(np.float32).reshape(-1, 1, 1, 1) for value in strengths)


@jax.jit
def device_flip(images: jax.Array) -> jax.Array:
    """Every second picture mirrored."""
    turn = jnp.arange(len(images)) % 2 == 0
    return jnp.where(turn[:, None, None, None], images[:, :, ::-1], images)


@jax.jit
def device_distort(images: jax.Array, draws: Draws) -> jax.Array:
    """Photometric distortion in float32: saturation and hue by their closed forms in RGB."""
    brightness, contrast, saturation, hue, last = draws
    values = jnp.clip(images.astype(jnp.float32) + brightness, 0, 255)
    values = jnp.clip(values * jnp.where(last, 1, contrast), 0, 255)
    top = values.max(axis=-1, keepdims=True)
    chroma = top - values.min(axis=-1, keepdims=True)
    share = jnp.where(chroma > 0, jnp.minimum(saturation, top / jnp.maximum(chroma, 1)), 1)
    values = turn_hue(top - (top - values) * share, hue)
    values = jnp.clip(values * jnp.where(last, contrast, 1), 0, 255)
    return values.astype(jnp.uint8)


def turn_hue(values: jax.Array, degrees: jax.Array) -> jax.Array:
    """Turns the hue of HSV."""
    red, green, blue = jnp.split(values, 3, axis=-1)
    top, bottom = values.max(-1, keepdims=True), values.min(-1, keepdims=True)
    chroma = jnp.maximum(top - bottom, 1e-6)
    sector = jnp.where(
        top == red,
        (green - blue) / chroma,
        jnp.where(top == green, 2 + (blue - red) / chroma, 4 + (red - green) / chroma),
    )
    place = (jnp.array([5.0, 3.0, 1.0]) + sector + degrees / 60) % 6
    return top - (top - bottom) * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)


device_normalize = jax.jit(Preprocess())


def cpu_milliseconds(function: Callable, images: np.ndarray) -> float:
    """Of one call, per image: CPU time on a CPU, wall time on an accelerator."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    begin = clock()
    jax.block_until_ready(function(images))
    return (clock() - begin) / len(images) * 1e3


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="value changes on the host or on the device")
    parser.add_argument("--image-size", type=int, nargs=2, default=(512, 512))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    shape = (options.batch_size, *options.image_size, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise])
    distort = functools.partial(device_distort, draws=draws_of(len(images)))
    kinds: dict[str, tuple[Callable, Callable]] = {
        "flip": (host_flip, device_flip),
        "photometric distortion": (host_distort, distort),
        "normalisation": (host_normalize, device_normalize),
    }
    print(f"| ms per image | host | device ({jax.default_backend()}) |\n|---|---|---|")
    for name, sides in kinds.items():
        for side in sides:
            cpu_milliseconds(side, images)
        times = [[cpu_milliseconds(side, images) for side in sides] for _ in range(options.repeats)]
        host, device = (statistics.median(values) for values in zip(*times, strict=True))
        print(f"| {name} | {host:.2f} | {device:.2f} |", flush=True)


if __name__ == "__main__":
    main()
