"""samples.csv: which images each step was trained on, for whoever has to account for them."""

from pathlib import Path

import numpy as np

from flaxseg.files import replace_text

SAMPLES_FILE = "samples.csv"


class SampleFile:
    """A row per training step: its number, and the positions of its images in the training split.

    Like metrics.csv it has every step once, however often the run was interrupted.
    """

    def __init__(self, path: Path, step: int):
        """Opens the file and drops the rows that the run is about to write again.

        Args:
            path: file to append to; it is made if it does not exist.
            step: number of updates at which the run starts.
        """
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        # A kill may have cut off the last line.
        whole = [line for line in lines[1:] if line.endswith("\n")]
        kept = [line for line in whole if int(line.partition(",")[0]) <= step]
        replace_text(path, "".join(["step,indices\n", *kept]))

    def write(self, step: int, index: np.ndarray) -> None:
        """Appends the row of a step; `index` are positions in the training split, (B,)."""
        with self.path.open("a") as file:
            file.write(f"{step},{' '.join(map(str, index.tolist()))}\n")
