"""The native model directory: `config.json` beside `model.safetensors`.

The tensors carry their dotted path in the network as key and torch's axis order, so that both
frameworks read the same file. Nothing here knows how a framework holds its tensors.
"""

import difflib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from copy import copy as shallow_copy
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from flaxseg import models
from flaxseg.errors import CheckpointError, FlaxsegError
from flaxseg.labels import LabelSet
from flaxseg.origin import Chain, chain_from_json, chain_to_json
from flaxseg.preprocess import Preprocess

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = "flaxseg"
FORMAT_VERSION = 1
MOST_COMPARISONS = 10_000
COUNTER = "num_batches_tracked"
"""torch's count of the batches a BatchNorm has seen: bookkeeping that no native file holds."""


class Header(NamedTuple):
    """What `config.json` holds.

    Attributes:
        name: registry name of the network.
        config: its configuration.
        labels: names and colours of its classes.
        preprocess: normalisation of its images.
        origin: where its weights come from.
        temperature: what its logits are divided by before they become probabilities; None: nobody
            has calibrated it, which is 1.
    """

    name: str
    config: models.Config
    labels: LabelSet
    preprocess: Preprocess
    origin: Chain = ()
    temperature: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The header as plain JSON values."""
        values = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "name": self.name,
            "model": models.config_to_json(self.config),
            "labels": self.labels.to_json(),
            "preprocess": self.preprocess.to_json(),
        }
        if self.temperature is not None:
            values["temperature"] = self.temperature
        return values | ({"origin": chain_to_json(self.origin)} if self.origin else {})


class TensorFile(io.FileIO):
    """A file that is closed once no tensor is left that reads from it."""

    def __del__(self):
        self.close()


class StoredTensor:
    """A tensor in a file, read when it is asked for.

    Large models need no second copy in memory that way, nor a mapping of the whole file.

    Attributes:
        shape: in torch's axis order.
        dtype: of the array that `numpy.asarray` makes of it.

    Args:
        file: open, and long enough.
        shape: of the tensor.
        dtype: as stored.
        offset: where the first element stands, in bytes.
        strides: in elements, none of them negative; None if the elements stand in order.
        swapped: the bytes of each number are not in this machine's order.
    """

    def __init__(
        self,
        file: io.RawIOBase | io.BytesIO,
        shape: tuple[int, ...],
        dtype: np.dtype,
        offset: int,
        *,
        strides: tuple[int, ...] | None = None,
        swapped: bool = False,
    ):
        self.shape, self.dtype = shape, dtype
        self._file, self._offset = file, offset
        self._stored, self._strides, self._swapped = dtype, strides, swapped

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array that `numpy.asarray` makes of it."""
        return self.size * self.dtype.itemsize

    def astype(self, dtype: Any, copy: bool = True) -> "StoredTensor":
        """The same tensor, cast when it is read."""
        other = shallow_copy(self)
        other.dtype = np.dtype(dtype)
        return other

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._read()
        return array.astype(self.dtype if dtype is None else dtype, copy=False)

    def _read(self) -> np.ndarray:
        if self._strides is None or not self.size:
            return self._elements(self.size).reshape(self.shape)
        steps = zip(self.shape, self._strides, strict=True)
        spread = self._elements(1 + sum((count - 1) * step for count, step in steps))
        places = tuple(step * self._stored.itemsize for step in self._strides)
        return np.lib.stride_tricks.as_strided(spread, self.shape, places).copy()

    def _elements(self, count: int) -> np.ndarray:
        """So many numbers from where the tensor starts."""
        content = np.empty(count * self._stored.itemsize, np.uint8)
        self._file.seek(self._offset)
        rest = content.data
        while rest:  # the system reads two gigabytes at once
            read = self._file.readinto(rest)
            if not read:
                name = getattr(self._file, "name", "the file")
                raise CheckpointError(f"{name} has become shorter while it was read")
            rest = rest[read:]
        if self._swapped:
            part = 2 if self._stored.kind == "c" else 1
            content = content.view(f"u{self._stored.itemsize // part}").byteswap()
        return content.view(self._stored)


Tensor = np.ndarray | StoredTensor
"""What `numpy.asarray` makes an array of."""


def make_header(
    config: models.Config,
    *,
    labels: LabelSet | None = None,
    preprocess: Preprocess | None = None,
    name: str | None = None,
    origin: Chain = (),
    temperature: float | None = None,
) -> Header:
    """A header, with numbered classes, ImageNet's normalisation and the registry's name for the
    configuration where nothing is given.

    Raises:
        CheckpointError: labels and configuration differ in their number of classes.
    """
    labels = labels or LabelSet.generic(config.num_classes)
    if labels.num_classes != config.num_classes:
        raise CheckpointError(
            f"label set {labels.name!r} has {labels.num_classes} classes, "
            f"the model has {config.num_classes}: pass the labels it was trained with"
        )
    name, preprocess = name or models.name_of(config), preprocess or Preprocess()
    return Header(name, config, labels, preprocess, origin, temperature)


def write_directory(
    directory: str | os.PathLike,
    header: Header,
    arrays: Mapping[str, Tensor],
    *,
    check: Callable[[Path], None] | None = None,
):
    """Writes a model directory; one that exists is replaced only once the new one is whole.

    Args:
        directory: where to write.
        header: what `config.json` holds.
        arrays: the tensors.
        check: called with the new directory before it takes its place; an error leaves the old.

    Raises:
        CheckpointError: the place holds something else than a model directory, or cannot be
            written; what was there is untouched.
    """
    target = Path(directory).absolute()
    staging, aside = _neighbours(target)
    try:
        if target.exists() and not _is_replaceable(target):
            raise CheckpointError(
                f"{target} exists and is no model directory: choose another place"
            )
        _clear_up(target)
        write_files(staging, header, arrays)
        if check:
            check(staging)
        if target.exists():
            target.rename(aside)
        staging.rename(target)
    except (DamagedTensorsError, OSError) as error:
        raise CheckpointError(
            f"{target} cannot be written ({error}); what was there before is whole"
        ) from None
    finally:
        _clear_up(target)


def write_files(directory: Path, header: Header, arrays: Mapping[str, Tensor]) -> None:
    """Writes a model directory that does not exist, in place and not at once.

    Raises:
        OSError: the disk is full or read-only.
    """
    directory.mkdir(parents=True)
    save_tensors(arrays, directory / WEIGHTS_FILE)
    (directory / CONFIG_FILE).write_text(json.dumps(header.to_json(), indent=2) + "\n")


def save_tensors(arrays: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file, one tensor after the other: none but the present one is in memory.

    The bytes are those of the safetensors library: wide dtypes first, then by key.

    Raises:
        TypeError: a dtype that safetensors files do not know.
        OSError: the disk is full or read-only.
    """
    names = {key: _name(np.dtype(array.dtype)) for key, array in arrays.items()}
    order = sorted(arrays, key=lambda key: (-DTYPES.index(names[key]), key.encode()))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key in order:
        start, end = end, end + arrays[key].nbytes
        shape = list(arrays[key].shape)
        header[key] = {"dtype": names[key], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in order:
            array = np.asarray(arrays[key], order="C")
            file.write(array.reshape(-1).view(np.uint8).data)


def read_directory(directory: str | os.PathLike) -> tuple[Header, dict[str, StoredTensor]]:
    """The header and the tensors of a model directory, checked as far as files go.

    Raises:
        CheckpointError: a file is missing or broken.
    """
    directory = _whole(Path(directory))
    header = _read_header(directory / CONFIG_FILE)
    try:
        return header, open_tensors(directory / WEIGHTS_FILE)
    except (DamagedTensorsError, OSError) as error:
        raise CheckpointError(
            f"{directory / WEIGHTS_FILE} cannot be read ({error}): copy or convert it again"
        ) from None


def read_header(directory: str | os.PathLike) -> Header:
    """What `config.json` of a model directory holds.

    Raises:
        CheckpointError: a file is missing, or that one is broken.
    """
    return _read_header(_whole(Path(directory)) / CONFIG_FILE)


def _whole(directory: Path) -> Path:
    """The directory, or the one that it is about to be replaced by, with both files in it."""
    aside = _neighbours(directory.absolute())[1]
    if not directory.exists() and aside.exists():
        # A writer was killed, or is busy, between stepping aside and moving in.
        directory = aside
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise CheckpointError(
                f"{directory} is no model directory: it has no {name} (flaxseg.save writes both)"
            )
    return directory


def is_model_directory(path: str | os.PathLike) -> bool:
    """Whether a folder's `config.json` is that of a model directory."""
    return Path(path).is_dir() and _is_ours(Path(path) / CONFIG_FILE)


def check_keys(
    expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any], what: str = "weights"
):
    """Compares keys and shapes with what the network needs.

    Raises:
        CheckpointError: names all missing, unexpected and misshapen keys.
    """
    missing = [key for key in expected if key not in arrays]
    unexpected = [key for key in arrays if key not in expected]
    misshapen = [
        f"{key}: {tuple(arrays[key].shape)}, expected {tuple(shape)}"
        for key, shape in expected.items()
        if key in arrays and tuple(arrays[key].shape) != tuple(shape)
    ]
    if not (missing or unexpected or misshapen):
        return
    # Names that do not fit at all are many, and comparing each with each would take minutes.
    few = len(unexpected) * len(missing) <= MOST_COMPARISONS
    unexpected = [key + _near(key, missing) if few else key for key in unexpected]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    lines = [f"{len(keys)} {name}: {', '.join(keys)}" for name, keys in groups.items() if keys]
    raise CheckpointError(f"{what} do not fit the network; {'; '.join(lines)}")


def _read_header(path: Path) -> Header:
    try:
        values = json.loads(path.read_text())
        if values["format"] != FORMAT or values["version"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} is format {values['format']!r} version {values['version']}, this "
                f"release reads {FORMAT!r} up to version {FORMAT_VERSION}: update flaxseg"
            )
        return Header(
            values["name"],
            models.config_from_json(values["model"]),
            LabelSet.from_json(values["labels"]),
            Preprocess.from_json(values["preprocess"]),
            chain_from_json(values.get("origin", [])),
            _temperature(values.get("temperature")),
        )
    except FlaxsegError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): save the model again") from None
    except KeyError as error:
        raise CheckpointError(f"{path} has no entry {error}: flaxseg.save writes it") from None


def _temperature(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (number and 0 < value < math.inf):
        return value
    raise CheckpointError(f"temperature is {value!r}, it must be a number above 0")


class DamagedTensorsError(ValueError):
    """A safetensors file that cannot be what was written."""


def open_tensors(path: Path) -> dict[str, StoredTensor]:
    """Key -> tensor of a safetensors file, none of them read yet.

    Raises:
        DamagedTensorsError: it is damaged, or holds a dtype that numpy lacks.
        OSError: it cannot be read.
    """
    # Networks without files start where safetensors is not installed.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass  # checks that all tensors lie within the file, each in a place of its own
    except SafetensorError as error:
        raise DamagedTensorsError(str(error)) from None
    file = TensorFile(path)
    length = int.from_bytes(file.read(8), "little")
    entries = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    return {
        key: StoredTensor(
            file,
            tuple(entry["shape"]),
            _dtype(entry["dtype"]),
            8 + length + entry["data_offsets"][0],
        )
        for key, entry in entries.items()
    }


OTHER_DTYPES = {
    "BF16": ml_dtypes.bfloat16,
    "BOOL": np.bool_,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
"""By their names in safetensors; those of all others are a letter and the number of bits."""

DTYPES = tuple("BOOL U8 I8 F8_E5M2 F8_E4M3 I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64".split())
"""Of safetensors, in the order that the library knows them in."""


def _dtype(name: str) -> np.dtype:
    """A dtype from its name in safetensors, such as F32, BF16 or BOOL."""
    if name not in DTYPES:
        raise DamagedTensorsError(f"numbers of type {name}, which numpy lacks")
    return np.dtype(OTHER_DTYPES.get(name) or f"{name[0].lower()}{int(name[1:]) // 8}")


def _name(dtype: np.dtype) -> str:
    for name in DTYPES:
        if _dtype(name) == dtype:
            return name
    raise TypeError(f"safetensors files hold no {dtype}")


def _near(key: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(key, candidates, n=1, cutoff=0.8)
    return f" (near {close[0]})" if close else ""


def _is_replaceable(target: Path) -> bool:
    """Whether a directory is empty, or holds a model of ours and nothing else."""
    if not target.is_dir():
        return False
    names = {path.name for path in target.iterdir()}
    if not names <= {CONFIG_FILE, WEIGHTS_FILE}:
        return False
    return CONFIG_FILE not in names or _is_ours(target / CONFIG_FILE)


def _is_ours(config_file: Path) -> bool:
    try:
        return json.loads(config_file.read_text())["format"] == FORMAT
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _neighbours(target: Path) -> tuple[Path, Path]:
    """Where a new model is written, and where the old one waits until the new one is in place."""
    return target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")


def _clear_up(target: Path):
    """Removes what a killed writer left; its old model moves back if no new one took its place."""
    staging, aside = _neighbours(target)
    if aside.exists() and not target.exists():
        aside.rename(target)
    for leftover in (staging, aside):
        shutil.rmtree(leftover, ignore_errors=True)
