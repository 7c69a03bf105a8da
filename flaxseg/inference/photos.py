"""The way of photos through `flaxseg predict`: from its file to those that are written."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from flaxseg.inference.inputs import Input, Target
from flaxseg.inference.outputs import (
    OUTPUTS,
    Segmented,
    facts_of,
    make_folder,
    needed_detail,
    without_unsure,
)
from flaxseg.inference.pipeline import Batching
from flaxseg.inference.pixels import Detail, Pixels
from flaxseg.inference.predict import Prepared
from flaxseg.inference.remarks import Remarks
from flaxseg.inference.segmenter import Segmenter
from flaxseg.inference.windows import Size
from flaxseg.pictures.coordinates import Coordinates, is_ours, read_coordinates
from flaxseg.pictures.photos import Photo, look_at_photo

Job = tuple[Input, Target]
_PIXELS = 2**27
"""Of all photos in work, as long as those are more than a few: 400 MB."""

OutSize = Literal["own", "model"] | tuple[int, int]


class Read(NamedTuple):
    """A photo in memory.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        remarks: what was assumed about its file.
        state: of the file before it was read, see `Input.state`.
        prepared: what the network is to see of it.
        at: where it lies on a map, if it tells.
    """

    pixels: np.ndarray
    remarks: tuple[str, ...]
    state: tuple[int, int] | None
    prepared: Prepared
    at: Coordinates | None


class Started(NamedTuple):
    """A photo that the device has got."""

    job: Job
    photo: np.ndarray
    at: Coordinates | None
    state: tuple[int, int] | None
    wait: Callable[[], Pixels]


@dataclasses.dataclass(frozen=True)
class PhotoTask:
    """The three steps that `flaxseg.inference.pipeline` takes each photo through.

    Attributes:
        segmenter: the network, and how it looks at photos.
        kinds: of outputs to write.
        out_size: "own", "model", or the height and width of what is written.
        min_confidence: pixels whose highest probability is lower get no class.
        alpha: share of the colours in the overlay.
        max_pixels: the largest area that is read; 0 has no limit.
        remarks: where lines about photos go.
    """

    segmenter: Segmenter
    kinds: Sequence[str]
    out_size: OutSize
    min_confidence: float
    alpha: float
    max_pixels: int
    remarks: Remarks

    def read(self, job: Job) -> Read:
        """Reads the file, in any thread.

        Raises:
            DataError: it cannot be used.
        """
        source, _ = job
        state = source.state()
        photo = look_at_photo(
            source.path, max_pixels=self.max_pixels, find_plain=False, data=source.read()
        )
        at, remarks = _coordinates(photo)
        return self.seen(photo.pixels, photo.facts.remarks + remarks, state, at)

    def seen(
        self,
        pixels: np.ndarray,
        remarks: tuple[str, ...] = (),
        state: tuple[int, int] | None = None,
        at: Coordinates | None = None,
    ) -> Read:
        """Makes of pixels what the network is to see, in any thread."""
        own: Size = (pixels.shape[0], pixels.shape[1])
        out = self._out_size(own, self.segmenter.inner_size(own))
        return Read(pixels, remarks, state, self.segmenter.prepare(pixels, out), at)

    @property
    def batching(self) -> Batching:
        """Photos that look alike to the network go to it together."""

        def alike(photo: Read) -> tuple[Hashable, int]:
            count = self.segmenter.predictor.room(photo.prepared, self.detail)
            # A result that is read strip by strip has the size at which the photo is seen.
            return (photo.prepared.places, count), count

        return Batching(alike, lambda photo: photo.pixels.size // 3, _PIXELS)

    @functools.cached_property
    def detail(self) -> Detail:
        """What must be known of the pixels."""
        return needed_detail(self.kinds, self.min_confidence)

    def start(self, photos: Sequence[tuple[Job, Read]]) -> list[Started]:
        """Gives photos to the device, and says what is to be said about them."""
        for job, photo in photos:
            self.remark(job[0].path, photo)
        waits = self.look([photo for _, photo in photos])
        return [
            # What the network has seen is not kept while the outputs are written.
            Started(job, photo.pixels, photo.at, photo.state, wait)
            for (job, photo), wait in zip(photos, waits, strict=True)
        ]

    def look(self, photos: Sequence[Read]) -> list[Callable[[], Pixels]]:
        """Gives photos to the device; what is returned waits for it."""
        return self.segmenter.predictor.start([photo.prepared for photo in photos], self.detail)

    def remark(self, path: Path, photo: Read) -> None:
        """Says what is to be said about a photo."""
        own: Size = (photo.pixels.shape[0], photo.pixels.shape[1])
        for remark in photo.remarks:
            self.remarks.say_of(path, remark)
        if self.segmenter.shrinks(own):
            inner = self.segmenter.inner_size(own)
            sizes = f"{own[0]} x {own[1]} pixels are segmented at {inner[0]} x {inner[1]}"
            shrunk = "shrunk, see --max-side"
            self.remarks.say_of(path, f"{sizes}, see --max-side", kind=shrunk)

    def _out_size(self, own: Size, inner: Size) -> Size:
        if self.out_size == "own":
            return own
        return inner if self.out_size == "model" else self.out_size

    def write(self, started: Started) -> dict[str, Any]:
        """Waits for the device and writes the outputs, in any thread.

        Returns:
            What is to be known of the photo, for the `Journal`.

        Raises:
            DataError: a file cannot be written.
        """
        (source, target), photo, at, state, wait = started
        result = self.result(photo, wait(), at)
        outputs = [OUTPUTS[kind] for kind in self.kinds if kind in OUTPUTS]
        for output, file in zip(outputs, target.files, strict=True):
            make_folder(file.parent)
            output.write(file, result)
        if at is None:
            _remove_ours(target.beside)  # of a photo that had the same name
        return {
            "name": target.name,
            "file": str(source.path),
            "state": state,
            "placed": at is not None,
            "kinds": list(self.kinds),
            **facts_of(result, self.kinds),
        }

    def result(self, photo: np.ndarray, pixels: Pixels, at: Coordinates | None = None) -> Segmented:
        """What is known of a photo when the network is through with it."""
        sure = without_unsure(pixels, self.min_confidence)
        return Segmented(photo, sure, self.segmenter.predictor.label_set, self.alpha, at)


def _coordinates(photo: Photo) -> tuple[Coordinates | None, tuple[str, ...]]:
    """Where a photo as it is shown lies on a map, and what is to be said about that."""
    try:
        stored = read_coordinates(photo.data)
    except ValueError as error:
        return None, (f"coordinates that make no sense ({error}): the outputs have none",)
    if stored is None:
        return None, ()
    told = f"pixels without data (GDAL's nodata {stored.no_data}) are segmented as any others"
    remarks = (told,) if stored.no_data else ()
    return stored.shown(photo.facts.size, photo.facts.orientation), remarks


def _remove_ours(files: Sequence[Path]) -> None:
    for file in files:
        if is_ours(file):
            file.unlink()
