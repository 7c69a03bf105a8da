"""`flaxseg convert`: inspects, imports and exports checkpoints, and lists the known formats."""

import dataclasses
import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from convert import onnx_file
from convert.formats import FORMATS, TORCH_REF
from convert.load import (
    NATIVE,
    Native,
    check_values,
    load,
    read_native,
    recognise_checkpoint,
    save,
)
from convert.normalisation import ASSUMED
from convert.prefixes import unwrapped
from convert.report import Report
from convert.sources import Checkpoint, open_checkpoint
from convert.verify import check_directory, torch_logits
from flaxseg.cli import guarded, parse
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.model_dir import Tensor, write_directory
from flaxseg.preprocess import Channels, Preprocess

ABOUT = "Carries weights between flaxseg and published checkpoints."

Flag = tyro.conf.FlagCreatePairsOff[bool]


def main(arguments: Sequence[str] | None = None, prog: str = "python -m convert") -> int:
    """Runs a command and returns its exit code: 0, or 2 after one line on standard error."""
    return guarded(lambda: run(sys.argv[1:] if arguments is None else arguments, prog))


def run(arguments: Sequence[str], prog: str) -> None:
    """Runs a command.

    Raises:
        FlaxsegError: what the user can mend.
    """
    parse(Command, arguments, prog, description=ABOUT)()


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show what a checkpoint holds."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """File, folder or hf:owner/name[@revision]."""

    weights: str | None = None
    """Set of tensors to take, where the file holds several, such as ema_state_dict."""

    def __call__(self) -> None:
        """Prints it."""
        _inspect(self)


@dataclasses.dataclass(frozen=True)
class Source:
    """What the file is; all of it is found out where the file tells."""

    format: str | None = None
    """Name of the layout."""

    model: str | None = None
    """Name of the network."""

    weights: str | None = None
    """Set of tensors to take, where the file holds several, such as ema_state_dict."""

    inplace_abn: Flag = False
    """Norms are InPlaceABN: scale by |weight| + 1e-5."""

    plain_norms: Flag = False
    """They are not, though the authors' CCNet has them."""

    allow_nonfinite: Flag = False
    """Import NaN and Inf too."""


@dataclasses.dataclass(frozen=True)
class Images:
    """How the images that it was trained on were normalised; found out by default."""

    mean: tuple[float, float, float] | None = None
    """Mean of red, green and blue, 0 to 1."""

    std: tuple[float, float, float] | None = None
    """Standard deviation of red, green and blue, 0 to 1."""

    channels: Channels | None = None
    """Order in which the network takes them."""

    def told(self) -> dict[str, Any]:
        """What the flags say of it, checked before a large file is read.

        Raises:
            ConfigError: a value that does not fit, by its flag.
        """
        told = {name: value for name, value in vars(self).items() if value is not None}
        try:
            Preprocess(**told)
        except ConfigError as error:
            raise ConfigError(f"--{error}") from None
        return told


@dataclasses.dataclass(frozen=True)
class Import:
    """Write a checkpoint as a model directory."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """File, folder or hf:owner/name[@revision]."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Directory to write; must not exist."""

    num_classes: int | None = None
    """Start classifiers for so many anew."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the weights."""

    verify: bool = dataclasses.field(
        default_factory=lambda: importlib.util.find_spec("torch") is not None
    )
    """Compare both frameworks on a random image first; needs torch."""

    source: tyro.conf.OmitArgPrefixes[Source] = Source()
    images: tyro.conf.OmitArgPrefixes[Images] = Images()

    def __call__(self) -> None:
        """Imports, and prints the report."""
        _import(self)


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a model directory in a published layout."""

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIRECTORY")]
    """What import or flaxseg.save wrote; for .onnx also the work directory of a training run."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """File to write; must not exist."""

    format: str | None = None
    """Name of the layout, such as mmseg; not for .onnx."""

    plain_norms: Flag = False
    """Write weights of norms as they are, though the authors' CCNet has InPlaceABN."""

    def __call__(self) -> None:
        """Exports, and prints what was written."""
        _export(self)


@dataclasses.dataclass(frozen=True)
class Formats:
    """List the known layouts."""

    def __call__(self) -> None:
        """Prints them."""
        _formats()


Command: Any = Inspect | Import | Export | Formats


def _inspect(options: Inspect) -> None:
    checkpoint = unwrapped(open_checkpoint(options.file, weights=options.weights))
    for line in _contents(checkpoint):
        print(line)
    try:
        print(f"recognised {recognise_checkpoint(checkpoint)}")
    except CheckpointError as error:
        print(f"not recognised: {error}")
    try:
        check_values(checkpoint.arrays)
    except CheckpointError as error:
        print(f"WARNING    {error}")


def _contents(checkpoint: Checkpoint) -> list[str]:
    """Wrappers, dtypes, and keys grouped by their first two parts."""
    groups: dict[str, list[Tensor]] = {}
    for key, array in checkpoint.arrays.items():
        groups.setdefault(".".join(key.split(".")[:2]), []).append(array)
    values = sum(math.prod(array.shape) for array in checkpoint.arrays.values())
    content = checkpoint.content
    lines = [
        f"source     {checkpoint.source}",
        f"tensors    {len(checkpoint.arrays)}, {values:,} values, {', '.join(content.dtypes)}",
        f"wrappers   {' > '.join(content.wrappers) or 'none'}",
    ]
    lines += [f"others     {name}" for name in getattr(content, "others", ())]
    for group, arrays in groups.items():
        shapes = ", ".join("x".join(map(str, a.shape)) or "()" for a in arrays[:3])
        more = ", ..." if len(arrays) > 3 else ""
        lines.append(f"  {group:40} {len(arrays):>4} tensors  {shapes}{more}")
    return lines


def _import(options: Import) -> None:
    if options.out.exists():
        raise CheckpointError(f"{options.out} exists: choose another directory or remove it")
    told = options.images.told()
    arrays, report = read_native(
        options.file, num_classes=options.num_classes, **vars(options.source)
    )
    report = _with_preprocess(report, told)
    print(report)
    header, weights = Native(arrays, report).stored(options.dtype)
    del arrays
    if not options.verify or options.source.allow_nonfinite:
        write_directory(options.out, header, weights)
    else:
        expected = torch_logits(report.config, weights)

        def check(new: Path) -> None:
            weights.clear()  # they are read from the new file: no two copies at once
            apart = check_directory(new, expected)
            print(f"verified   PyTorch and Flax differ by {apart:.1e} of the largest logit")

        write_directory(options.out, header, weights, check=check)
    print(f"wrote      {options.out}")


def _with_preprocess(report: Report, told: dict[str, Any]) -> Report:
    if not told:
        return report
    assumed = tuple(line for line in report.assumed if line != ASSUMED)
    preprocess = dataclasses.replace(report.preprocess, **told)
    return dataclasses.replace(report, preprocess=preprocess, assumed=assumed)


def _export(options: Export) -> None:
    if options.file.exists():
        raise CheckpointError(f"{options.file} exists: choose another name or remove it")
    if options.file.suffix == onnx_file.SUFFIX and options.format in (None, onnx_file.ONNX):
        return _export_onnx(options)
    if options.format is None:
        raise ConfigError("--format says the layout to write: flaxseg convert formats")
    loaded = load(options.directory, format=NATIVE)
    plain = options.plain_norms or None
    for note in save(loaded, options.file, format=options.format, plain_norms=plain):
        print(f"note       {note}")
    print(f"wrote      {options.file}: {options.format} {loaded.report.model_name}")


def _export_onnx(options: Export) -> None:
    """As `flaxseg export DIRECTORY FILE.onnx` does, so that both tell a file the same."""
    from flaxseg.export.command import ExportArgs

    ExportArgs(str(options.directory), options.file)(Path, onnx_file.write_onnx)


def _formats() -> None:
    print(f"{NATIVE:14} {'all':10} config.json and model.safetensors of flaxseg.save")
    print(f"{onnx_file.ONNX:14} {'all':10} to write only: export DIRECTORY FILE.onnx")
    for layout in (*FORMATS, *TORCH_REF):
        print(f"{layout.name:14} {layout.architecture:10} {layout.origin}")


if __name__ == "__main__":
    sys.exit(main())
