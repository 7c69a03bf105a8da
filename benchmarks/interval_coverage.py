"""How often the 95 % interval of `flaxseg compare` covers the true difference.

Two models on pictures drawn from a population of 20,000, whose mIoU is known. Some pictures are
hard for both, and the last classes are rare.

    python benchmarks/interval_coverage.py --drawings 100 --pictures 101
"""

import argparse

import numpy as np

from flaxseg.inference.paired import compare
from flaxseg.inference.per_image import PerImage

POPULATION, PIXELS, GAIN = 20_000, 2000, 0.1


def population(rng: np.random.Generator, classes: int) -> list[np.ndarray]:
    """Confusion matrices (N, K, K) of both models; the second one is a little better."""
    truth = rng.multinomial(PIXELS, rng.dirichlet(np.linspace(2, 0.3, classes), POPULATION))
    hard = rng.normal(size=(POPULATION, 1))
    models = []
    for gain in (0, GAIN):
        skill = 1 + gain + hard + rng.normal(size=truth.shape) / 2
        hits = rng.binomial(truth, 1 / (1 + np.exp(-skill)))
        matrices = np.zeros((POPULATION, classes, classes), np.int64)
        for k in range(classes):
            others = np.delete(np.arange(classes), k)
            shares = np.full(classes - 1, 1 / (classes - 1))
            matrices[:, k, others] = rng.multinomial(truth[:, k] - hits[:, k], shares)
            matrices[:, k, k] = hits[:, k]
        models.append(matrices)
    return models


def covered(drawings: int, pictures: int, classes: int) -> tuple[float, np.ndarray]:
    """The true difference, and for mIoU and each class how many intervals cover theirs."""
    models = population(np.random.default_rng(0), classes)
    every = tuple(map(str, range(POPULATION)))
    true = compare(*(PerImage(every, each) for each in models), resamples=1).difference
    counts = np.zeros(classes + 1, int)
    for seed in range(drawings):
        chosen = np.random.default_rng((1, seed)).integers(0, POPULATION, pictures)
        names = tuple(map(str, chosen))
        found = compare(*(PerImage(names, each[chosen]) for each in models), seed=seed)
        counts += (found.low <= true) & (true <= found.high)
    return true[-1], counts


def main() -> None:
    """Prints how many intervals cover the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawings", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=101)
    parser.add_argument("--classes", type=int, default=11)
    given = parser.parse_args()
    true, counts = covered(given.drawings, given.pictures, given.classes)
    print(f"true difference of mIoU: {100 * true:+.2f} points")
    print(f"covered by {counts[-1]} of {given.drawings} intervals; of the classes' {counts[:-1]}")


if __name__ == "__main__":
    main()
