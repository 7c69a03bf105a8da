"""What an evaluation found in each picture: a confusion matrix, and the predicted label map."""

import dataclasses
import zipfile
import zlib
from pathlib import Path

import numpy as np

from flaxseg.errors import DataError
from flaxseg.files import replace_file
from flaxseg.inference.metrics import ratio

_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True, eq=False)
class PerImage:
    """Confusion matrices of single pictures, whose sum is that of all.

    Attributes:
        names: of N pictures.
        matrices: (N, K, K) int64 pixel counts, rows the true class, columns the predicted one.
    """

    names: tuple[str, ...]
    matrices: np.ndarray

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each class that are hit, true and predicted, (N, 3, K)."""
        hits = self.matrices.diagonal(axis1=1, axis2=2)
        return np.stack([hits, self.matrices.sum(2), self.matrices.sum(1)], axis=1)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class in each picture, (N, K); nan where it is not."""
        return iou_of_areas(self.areas)

    @property
    def scores(self) -> np.ndarray:
        """One number for each picture, (N,): the mean IoU of the classes that its labels hold.

        A class that is only predicted takes from the IoU of those whose pixels it took. nan for a
        picture without a labelled pixel.
        """
        present = self.areas[:, 1] > 0
        total = np.where(present, self.iou, 0).sum(1)
        return ratio(total, present.sum(1))

    def save(self, path: Path) -> None:
        """Writes the two arrays to a compressed npz file, `names` and `matrices`."""
        with replace_file(path) as partial, partial.open("wb") as file:
            names = np.array(self.names, np.str_)
            np.savez_compressed(file, names=names, matrices=self.matrices)

    @classmethod
    def load(cls, path: Path) -> "PerImage":
        """Reads what `save` wrote.

        Raises:
            DataError: there is no such file, or it holds something else.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                names, matrices = arrays["names"], arrays["matrices"]
        except _DAMAGED as error:
            raise DataError(f"{path} cannot be read ({error}): evaluate again") from error
        count, classes = len(names), matrices.shape[-1] if matrices.ndim else 0
        if matrices.shape != (count, classes, classes) or matrices.dtype != np.int64:
            raise DataError(
                f"{path} holds {matrices.dtype} {matrices.shape} for {count} names, it must be "
                "int64 (N, K, K): evaluate again"
            )
        return cls(tuple(map(str, names)), matrices)


def iou_of_areas(areas: np.ndarray) -> np.ndarray:
    """Intersection over union of hit, true and predicted areas (..., 3, K): (..., K)."""
    hits, truth, predicted = np.moveaxis(areas, -2, 0)
    return ratio(hits, truth + predicted - hits)


class PictureLog:
    """Watches an evaluation, and keeps a matrix and the predicted label map of every picture."""

    def __init__(self, num_classes: int):
        """Takes the number of classes K."""
        self._num_classes = num_classes
        self._found: dict[int, tuple[np.ndarray, tuple[int, ...], bytes]] = {}

    def __call__(self, index: int, label: np.ndarray, prediction: np.ndarray) -> None:
        """Takes a picture: its index, true and predicted class ids, both (H, W) uint8."""
        matrix = count_picture(label, prediction, self._num_classes)
        # Label maps are mostly areas of one number: a hundredth of their size, in little time.
        packed = zlib.compress(prediction.astype(np.uint8).tobytes(), 1)
        self._found[index] = matrix, prediction.shape, packed

    @property
    def indices(self) -> list[int]:
        """The pictures that were seen, in the order of their source."""
        return sorted(self._found)

    def prediction(self, index: int) -> np.ndarray:
        """The predicted class ids of a picture, (H, W) uint8."""
        _, shape, packed = self._found[index]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)

    def per_image(self, names: list[str]) -> PerImage:
        """The matrices, under the names of the pictures in the order of `indices`."""
        return PerImage(tuple(names), np.stack([self._found[i][0] for i in self.indices]))


def count_picture(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """The confusion matrix of a picture, (K, K) int64.

    Args:
        label: true class ids, (H, W) uint8; what is no class does not count.
        prediction: predicted class ids, (H, W) uint8.
        num_classes: number of classes K.
    """
    labelled = label < num_classes
    cells = label[labelled].astype(np.int64) * num_classes + prediction[labelled]
    counts = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)
