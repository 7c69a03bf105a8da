"""How long a run was at work, by the times that its TensorBoard events carry."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

_HEAD, _TAIL = 12, 4  # bytes of a record's length with its checksum, and of its data's checksum
_TIME = b"\x09"  # protobuf: field 1 of an Event, `wall_time`, eight bytes


def seconds_at_work(folder: Path) -> float | None:
    """Time between the first and the last event of each start, added up; None without any.

    Every start writes a file of its own, so the pauses between them do not count, nor what was
    done after the last event that reached the disk.

    Args:
        folder: of files in the TFRecord format, whose records are Event messages:
            https://www.tensorflow.org/tutorials/load_data/tfrecord.
    """
    spans = [_span(path) for path in sorted(folder.glob("events.out.tfevents.*"))]
    known = [span for span in spans if span is not None]
    return sum(known) if known else None


def _span(path: Path) -> float | None:
    times = list(_times(path))
    return max(times) - min(times) if times else None


def _times(path: Path) -> Iterator[float]:
    with path.open("rb") as file:
        # A kill may have cut off the last record.
        while len(head := file.read(_HEAD)) == _HEAD:
            (length,) = struct.unpack_from("<Q", head)
            start = file.read(9)
            if len(start) < 9 or length < 9:
                return
            if start[:1] == _TIME:
                yield struct.unpack_from("<d", start, 1)[0]
            file.seek(length - 9 + _TAIL, os.SEEK_CUR)
