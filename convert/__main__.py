"""`python -m convert`: inspects, imports and exports checkpoints, and lists the known formats."""

import argparse
import dataclasses
import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from convert import onnx_file
from convert.formats import FORMATS, TORCH_REF
from convert.load import (
    NATIVE,
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
from flaxseg.cli import guarded
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.model_dir import Tensor, make_header, read_directory, write_directory
from flaxseg.preprocess import Channels, Preprocess

DTYPES = ("float32", "float16", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, or 2 after one line on standard error."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m convert", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="show what a checkpoint holds")
    inspect.add_argument("file", help="file, folder or hf:owner/name[@revision]")
    _add_weights(inspect)
    inspect.set_defaults(run=_inspect)

    import_ = commands.add_parser("import", help="write a checkpoint as a model directory")
    import_.add_argument("file", help="file, folder or hf:owner/name[@revision]")
    import_.add_argument("out", type=Path, help="directory to write; must not exist")
    import_.add_argument("--format", help="name of the layout; found out by default")
    import_.add_argument("--model", help="name of the network; found out by default")
    import_.add_argument("--num-classes", type=int, help="start classifiers for so many anew")
    import_.add_argument(
        "--inplace-abn", action="store_true", help="norms are InPlaceABN: scale by |weight| + 1e-5"
    )
    import_.add_argument(
        "--plain-norms",
        action="store_true",
        help="they are not, though the authors' CCNet has them",
    )
    import_.add_argument("--allow-nonfinite", action="store_true", help="import NaN and Inf too")
    import_.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights")
    _add_weights(import_)
    _add_preprocess(import_)
    import_.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=importlib.util.find_spec("torch") is not None,
        help="compare both frameworks on a random image first; needs torch",
    )
    import_.set_defaults(run=_import)

    export = commands.add_parser("export", help="write a model directory in a published layout")
    export.add_argument("directory", type=Path, help="what import or flaxseg.save wrote")
    export.add_argument("file", type=Path, help="file to write; must not exist")
    export.add_argument("--format", help="name of the layout, such as mmseg; not for .onnx")
    export.add_argument(
        "--plain-norms",
        action="store_true",
        help="write weights of norms as they are, though the authors' CCNet has InPlaceABN",
    )
    export.set_defaults(run=_export)

    formats = commands.add_parser("formats", help="list the known layouts")
    formats.set_defaults(run=_formats)
    return parser


def _add_weights(parser: argparse.ArgumentParser) -> None:
    help_ = "set of tensors to take, where the file holds several, such as ema_state_dict"
    parser.add_argument("--weights", metavar="NAME", help=help_)


def _add_preprocess(parser: argparse.ArgumentParser) -> None:
    whose = "of the images that it was trained on, 0 to 1; found out by default"
    for flag, what in (("--mean", "mean"), ("--std", "standard deviation")):
        help_ = f"{what} of red, green and blue {whose}"
        parser.add_argument(flag, nargs=3, type=float, metavar=("R", "G", "B"), help=help_)
    parser.add_argument(
        "--channels",
        choices=get_args(Channels),
        help="order in which the network takes them; found out by default",
    )


def _inspect(options: argparse.Namespace) -> None:
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


def _import(options: argparse.Namespace) -> None:
    if options.out.exists():
        raise CheckpointError(f"{options.out} exists: choose another directory or remove it")
    told = _told_preprocess(options)
    arrays, report = read_native(
        options.file,
        format=options.format,
        model=options.model,
        num_classes=options.num_classes,
        inplace_abn=options.inplace_abn,
        plain_norms=options.plain_norms,
        allow_nonfinite=options.allow_nonfinite,
        weights=options.weights,
    )
    report = _with_preprocess(report, told)
    print(report)
    header = make_header(
        report.config,
        labels=report.labels,
        preprocess=report.preprocess,
        name=report.model_name,
    )
    weights = _cast(arrays, options.dtype)
    del arrays
    if not options.verify or options.allow_nonfinite:
        write_directory(options.out, header, weights)
    else:
        expected = torch_logits(report.config, weights)

        def check(new: Path) -> None:
            weights.clear()  # they are read from the new file: no two copies at once
            apart = check_directory(new, expected)
            print(f"verified   PyTorch and Flax differ by {apart:.1e} of the largest logit")

        write_directory(options.out, header, weights, check=check)
    print(f"wrote      {options.out}")


def _told_preprocess(options: argparse.Namespace) -> dict[str, Any]:
    """What the flags say of it, checked before a large file is read.

    Raises:
        ConfigError: a value that does not fit, by its flag.
    """
    told = {
        "mean": options.mean and tuple(options.mean),
        "std": options.std and tuple(options.std),
        "channels": options.channels,
    }
    told = {name: value for name, value in told.items() if value is not None}
    try:
        Preprocess(**told)
    except ConfigError as error:
        raise ConfigError(f"--{error}") from None
    return told


def _with_preprocess(report: Report, told: dict[str, Any]) -> Report:
    if not told:
        return report
    assumed = tuple(line for line in report.assumed if line != ASSUMED)
    preprocess = dataclasses.replace(report.preprocess, **told)
    return dataclasses.replace(report, preprocess=preprocess, assumed=assumed)


def _cast(arrays: dict[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """The tensors in another dtype; those that have it are not touched."""
    import ml_dtypes

    target = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return {
        key: tensor if tensor.dtype == target else np.asarray(tensor).astype(target)
        for key, tensor in arrays.items()
    }


def _export(options: argparse.Namespace) -> None:
    if options.file.exists():
        raise CheckpointError(f"{options.file} exists: choose another name or remove it")
    if options.file.suffix == onnx_file.SUFFIX and options.format in (None, onnx_file.ONNX):
        return _export_onnx(options)
    if options.format is None:
        raise ConfigError("--format says the layout to write: python -m convert formats")
    loaded = load(options.directory, format=NATIVE)
    plain = options.plain_norms or None
    for note in save(loaded, options.file, format=options.format, plain_norms=plain):
        print(f"note       {note}")
    print(f"wrote      {options.file}: {options.format} {loaded.report.model_name}")


def _export_onnx(options: argparse.Namespace) -> None:
    header, arrays = read_directory(options.directory)
    apart = onnx_file.write_onnx(
        options.file, header.config, arrays, labels=header.labels, preprocess=header.preprocess
    )
    print(f"verified   onnxruntime and Flax differ by {apart:.1e} of the largest logit")
    print(f"wrote      {options.file}: {onnx_file.ONNX} {header.name}")


def _formats(options: argparse.Namespace) -> None:
    print(f"{NATIVE:14} {'all':10} config.json and model.safetensors of flaxseg.save")
    print(f"{onnx_file.ONNX:14} {'all':10} to write only: export DIRECTORY FILE.onnx")
    for layout in (*FORMATS, *TORCH_REF):
        print(f"{layout.name:14} {layout.architecture:10} {layout.origin}")


if __name__ == "__main__":
    sys.exit(main())
