"""The way of one photo through `flaxseg predict`: from its file to those that are written."""

import dataclasses
from collections.abc import Callable, Sequence
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
from flaxseg.inference.pixels import Pixels
from flaxseg.inference.remarks import Remarks
from flaxseg.inference.segmenter import Segmenter
from flaxseg.inference.windows import Size
from flaxseg.pictures.photos import look_at_photo

Job = tuple[Input, Target]
OutSize = Literal["own", "model"] | tuple[int, int]


class Read(NamedTuple):
    """A photo in memory.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        remarks: what was assumed about its file.
        state: of the file before it was read, see `Input.state`.
    """

    pixels: np.ndarray
    remarks: tuple[str, ...]
    state: tuple[int, int] | None


class Started(NamedTuple):
    """A photo that the device has got."""

    job: Job
    photo: Read
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
        return Read(photo.pixels, photo.facts.remarks, state)

    def start(self, job: Job, photo: Read) -> Started:
        """Gives the photo to the device, and says what is to be said about it."""
        own: Size = (photo.pixels.shape[0], photo.pixels.shape[1])
        inner = self.segmenter.inner_size(own)
        for remark in photo.remarks:
            self.remarks.say_of(job[0].path, remark)
        if self.segmenter.shrinks(own):
            sizes = f"{own[0]} x {own[1]} pixels are segmented at {inner[0]} x {inner[1]}"
            shrunk = "shrunk, see --max-side"
            self.remarks.say_of(job[0].path, f"{sizes}, see --max-side", kind=shrunk)
        wait = self.segmenter.start(
            photo.pixels,
            out_size=self._out_size(own, inner),
            detail=needed_detail(self.kinds, self.min_confidence),
        )
        return Started(job, photo, wait)

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
        (source, target), photo, wait = started
        pixels = without_unsure(wait(), self.min_confidence)
        result = Segmented(photo.pixels, pixels, self.segmenter.predictor.label_set, self.alpha)
        outputs = [OUTPUTS[kind] for kind in self.kinds if kind in OUTPUTS]
        for output, file in zip(outputs, target.files, strict=True):
            make_folder(file.parent)
            output.write(file, result)
        return {
            "name": target.name,
            "file": str(source.path),
            "state": photo.state,
            "kinds": list(self.kinds),
            **facts_of(result, self.kinds),
        }
