"""The command line: `flaxseg COMMAND`, see `COMMANDS`."""

import contextlib
import dataclasses
import functools
import gc
import importlib
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro
from rich.console import Console

from flaxseg.completion import WHAT, Asked, Shell, arguments_of, script
from flaxseg.errors import ConfigError, FlaxsegError
from flaxseg.pictures.kinds import USUAL, Kind
from flaxseg.pictures.open import MAX_PIXELS
from flaxseg.precision import Precision
from flaxseg.tpu import quiet_libtpu

if TYPE_CHECKING:
    from flaxseg.training import TrainConfig

# Each command imports what it needs when it runs: the list of commands need not wait for JAX.

T = TypeVar("T")

ModelArg = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
"""Where a command takes a model."""

MEND = 2
"""Exit code of errors that the user can mend."""

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

NEW_OBJECTS = 100_000
"""After how many new objects Python looks for garbage. It does after 700 or 2,000 by itself, which
is a third of the time that JAX takes to trace a network: what it makes then is mostly kept."""


def main(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs a command.

    Args:
        args: arguments, those of the process if None; the first one names the command.
        prog: name of the command in help texts.

    Returns:
        The exit code: 0, 2 after one line on standard error, 130 after Ctrl-C, or what a command
        returns.
    """
    gc.set_threshold(NEW_OBJECTS)
    quiet_libtpu()
    words = sys.argv[1:] if args is None else list(args)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else MEND
    with warnings.catch_warnings():
        # About damaged tags of pictures, without the file's name: what they cost is told of.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        code = guarded(lambda: _run(words, prog))
    if args is None and code == INTERRUPTED:
        # The process is ours, and JAX crashes at its end if a compilation was interrupted.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(args: list[str], prog: str | None) -> int | None:
    if args[0] not in COMMANDS:
        raise ConfigError(f"unknown command {args[0]!r}: use one of {', '.join(COMMANDS)}")
    return COMMANDS[args[0]](args[1:], prog or f"flaxseg {args[0]}")


def guarded(command: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit code: its own, or 2 after one line on standard error."""
    code = None
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has seen enough; nothing is to be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (FlaxsegError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return MEND
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED
    return code or 0


def train(args: Sequence[str], prog: str = "flaxseg train") -> None:
    """Train a network; the same work directory again resumes."""
    from flaxseg.distributed import is_first, joined
    from flaxseg.heap import keep_memory
    from flaxseg.planning.choice import choose_batch_size
    from flaxseg.training import fit
    from flaxseg.training.recipes import find_recipe

    config = parse_train_config(args, prog)
    start = find_recipe(config.model, config.recipe, config.data).start
    with joined(config.launch):
        keep_memory()
        if start and not config.init and is_first():
            print(
                f"--recipe {config.recipe} starts from {start}; without --init from random numbers"
            )
        config = choose_batch_size(config, print if is_first() else None)
        reader = _converters().start_from if config.init else None
        fit(config, reader=reader)


def _converters(module: str = "convert") -> Any:
    """The converters, by name: nothing below the commands knows them, who know all of flaxseg."""
    return importlib.import_module(module)


def _opened(model: str) -> Path:
    """MODEL as a directory of ours; about a checkpoint of another kind one line is printed."""
    return _converters().as_directory(model, say=print)


def parse_train_config(
    args: Sequence[str],
    prog: str = "flaxseg train",
    about: str = "Train a segmentation network.",
) -> "TrainConfig":
    """Reads the settings of a training run; flags beat `--config`, which beats `--recipe`.

    Args:
        args: arguments of `flaxseg train`.
        prog: name in the help text.
        about: what it says the command does.

    Returns:
        The settings, validated.

    Raises:
        ConfigError: an unknown flag, or a value that does not fit.
    """
    return _parse_train_config(args, prog, about)[0]


def _parse_train_config(
    args: Sequence[str], prog: str, about: str, more: Any = None
) -> tuple["TrainConfig", Any]:
    """The settings of a training run, and what else `more` has flags for."""
    from flaxseg.training import RECIPES
    from flaxseg.training.flags import parse_flags

    about = f"{about} Recipes: {', '.join(RECIPES)}."
    parser = functools.partial(parse, args=args, prog=prog, description=about)
    config, more = parse_flags(parser, _train_defaults(args), more)
    return config.validate(), more


def _train_defaults(args: Sequence[str]) -> "TrainConfig":
    """What the settings of a run are where the command line does not name them."""
    from flaxseg.training import make_config
    from flaxseg.training.recipes import IN_STEPS

    # They supply the defaults that the second, full parse starts from and shows as help.
    default = make_config(**{name: _peek(args, name) for name in _PEEKED})
    for epochs, steps in IN_STEPS.items():
        if _peek(args, epochs) and not _peek(args, steps):
            default = dataclasses.replace(default, **{steps: None})
    return default


_PEEKED = ("model", "data", "recipe", "config")


def plan(args: Sequence[str], prog: str = "flaxseg plan") -> None:
    """Show what a training step costs on devices that need not be there; takes train's flags."""
    from flaxseg.planning.command import PlanSettings

    about = "Show what a training step costs on devices that need not be there."
    # Without a value of its own a flag is required, as it should be.
    default = PlanSettings(topology=tyro.MISSING)
    config, settings = _parse_train_config(args, prog, about, default)
    settings(config, Console())


def bench(args: Sequence[str], prog: str = "flaxseg bench") -> None:
    """Measure a network's speed, memory and compile time on the device at hand."""
    from flaxseg.bench.command import BenchArgs
    from flaxseg.heap import keep_memory

    given = parse(BenchArgs, args, prog)
    keep_memory()
    given(Console(), opened=_opened)


@dataclasses.dataclass(frozen=True)
class RecipesArgs:
    """List the recipes with their numbers."""

    model: str | None = None
    """Show every field of this network's recipes."""


def recipes(args: Sequence[str], prog: str = "flaxseg recipes") -> None:
    """List the recipes with their numbers."""
    given = parse(RecipesArgs, args, prog)
    from flaxseg.training.recipes.table import recipes_table

    Console().print(recipes_table(given.model))


def groups(args: Sequence[str], prog: str = "flaxseg groups") -> None:
    """Show which weights learn faster or do not decay in a training; takes its flags."""
    about = "Show which weights learn faster or do not decay in a training."
    config = parse_train_config(args, prog, about)
    from flaxseg.models import abstract_model, get_config
    from flaxseg.training.config import parse_overrides
    from flaxseg.training.optim.configured import configured_table

    model = abstract_model(get_config(config.model, **parse_overrides(config.override)))
    Console().print(configured_table(config, model))


@dataclasses.dataclass(frozen=True)
class PredictArgs:
    """Segment photos: mask, colours and overlay of each, or what --write names."""

    model: ModelArg
    """Work directory of a training run, model directory, or any checkpoint that `flaxseg convert
    formats` lists: file, folder or hf:owner/name[@revision]; or a file of `flaxseg export`."""

    images: tyro.conf.Positional[tuple[str, ...]]
    """Photos, videos, folders of them, with their subfolders, or patterns such as 'photos/*.jpg'; -
    is one picture from standard input, @FILE a text file with one of these a line."""

    out: Path = Path("predictions")
    """Folder to write to; what it holds of the same model and settings is not done again."""

    write: tuple[Kind, ...] = USUAL
    """Files of each photo: mask (palette PNG of the class numbers), color, overlay, confidence
    (PNG of the highest probability, 255 is 1), probabilities (npz), and coco (one file with the
    regions of all photos). Of a video they are videos, mask and confidence lossless ones.
    summary.csv is always written."""

    min_confidence: float = 0.0
    """Pixels whose highest probability is lower become 255 in the mask and get no colour."""

    out_size: Literal["own", "model"] | tuple[int, int] = "own"
    """Size of what is written: the photo's own, that at which the model sees the photo, or a height
    and a width in pixels."""

    overwrite: bool = False
    """Do all anew, whatever the output folder holds."""

    alpha: float = 0.5
    """Share of the colours in the overlay, 0 to 1."""

    multiple: int | None = None
    """Pixels to which height and width are filled up inside. None: nothing is filled up, and four
    programs serve photos of all sizes, where the network can be told how far a photo reaches."""

    size: tuple[int, int] | None = None
    """Height and width to which photos are stretched before, in pixels. None: the validation size
    of the training run, if it has one, or else their own."""

    max_side: int | None = 2048
    """Longest side, in pixels, of photos that are neither stretched nor seen through windows;
    larger ones are shrunk before. None: no limit."""

    window: tuple[int, int] | None = None
    """Height and width of overlapping windows through which the network looks at a photo, in
    pixels. None: as in the evaluations of the training run."""

    stride: tuple[int, int] | None = None
    """Rows and columns from one window to the next, in pixels. None: two thirds of the window."""

    scales: tuple[float, ...] = (1.0,)
    """Scales at which the network looks at a photo, such as 0.5 1 1.5; their probabilities are
    averaged."""

    flip: bool = False
    """Look at the mirrored photo, too, at each scale, and average."""

    batch_size: int | None = None
    """Photos of like size, or windows, that the network sees at a time. None: what makes two
    million pixels on each device, as 8 of 512 x 512."""

    max_pixels: int = MAX_PIXELS
    """Largest area of a photo or a frame, in pixels; larger ones are left out. 0 has no limit."""

    matmul_precision: Precision = "highest"
    """Of float32 products. highest: float32 itself; default: what the device does fastest, TF32 on
    NVIDIA GPUs, one pass of bfloat16 on TPUs."""

    distributed: Literal["auto", "off"] = "auto"
    """Share the photos with the other processes of the job if SLURM, Open MPI or a TPU pod started
    several, or keep to this one."""

    coordinator: str | None = None
    """HOST:PORT at which process 0 waits for the others, where nothing tells it by itself."""

    num_processes: int | None = None
    """Number of processes that share the photos, with COORDINATOR."""

    process_id: int | None = None
    """This process, 0 to NUM_PROCESSES - 1, with COORDINATOR."""


def predict(args: Sequence[str], prog: str = "flaxseg predict") -> None:
    """Segment photos: index mask, coloured mask and overlay of each."""
    given = parse(PredictArgs, args, prog)
    from flaxseg.distributed import Launch, is_first, joined
    from flaxseg.inference.predicting import predict_files

    launch = Launch(given.distributed, given.coordinator, given.num_processes, given.process_id)
    with joined(launch):
        files = predict_files(
            _opened(given.model),
            given.images,
            given.out,
            write=given.write,
            min_confidence=given.min_confidence,
            out_size=given.out_size,
            overwrite=given.overwrite,
            alpha=given.alpha,
            multiple=given.multiple,
            size=given.size,
            max_side=given.max_side,
            window=given.window,
            stride=given.stride,
            scales=given.scales,
            flip=given.flip,
            batch_size=given.batch_size,
            max_pixels=given.max_pixels,
            matmul_precision=given.matmul_precision,
            console=Console(),
        )
        if is_first():
            print(f"{len(files)} files in {given.out}")


def demo(args: Sequence[str], prog: str = "flaxseg demo") -> None:
    """Segment pictures on a page in the browser."""
    from flaxseg.demo.command import DemoArgs

    parse(DemoArgs, args, prog)(_opened)


def data(args: Sequence[str], prog: str = "flaxseg data") -> None:
    """Prepare, check or show a data set."""
    from flaxseg.data.commands import Command

    parse(Command, args, prog)()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewArgs:
    """What is looked at, and how; None is as in the training run."""

    split: str = "val"
    """Split to score on: train, val, or test where the data set has one."""

    data: str | None = None
    """Data set."""

    data_dir: str | None = None
    """Folder of the data set."""

    batch_size: int | None = None
    """Images per step."""

    eval_size: tuple[int, int] | None = None
    """Height and width to which pictures are stretched, in pixels."""

    eval_base_size: tuple[int, int] | None = None
    """Longer and shorter side within which pictures are fitted, in pixels."""

    eval_multiple: int | None = None
    """Sides are then stretched up to multiples of it, in pixels."""

    eval_window: tuple[int, int] | None = None
    """Height and width of the windows through which the network looks at pictures, in pixels."""

    eval_stride: tuple[int, int] | None = None
    """Rows and columns from one window to the next, in pixels."""

    eval_scales: tuple[float, ...] | None = None
    """Scales at which the network looks at a picture, such as 0.5 1 1.5; their probabilities are
    averaged."""

    eval_flip: bool = False
    """Look at the mirrored picture, too, at each scale, and average."""

    eval_canvas: bool | None = None
    """Look at pictures of all sizes through few programs; scores are the same but for rounding."""

    classes_by_number: bool = False
    """Compare classes by their numbers, though the data set has other names for them."""

    missing_mask: str | None = None
    """What becomes of photos without label map: an "error", left out ("skip"), or pictures of the
    class of this name alone."""

    max_pixels: int | None = None
    """Most pixels that a photo may have; 0 has no limit."""

    matmul_precision: Precision = "highest"
    """Of float32 products. highest: float32 itself; default: what the device does fastest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalArgs(ViewArgs):
    """Score a trained network on a split of its data set; None is as in the training run."""

    path: ModelArg
    """Work directory of a training run, model directory, or any checkpoint that `flaxseg convert
    formats` lists: file, folder or hf:owner/name[@revision]; or a file of `flaxseg export`."""

    metrics: tuple[str, ...] | None = None
    """Further scores: accuracy_of_all, micro_iou, micro_iou:CLASS, soft_iou, boundary_iou."""

    calibrate: tyro.conf.FlagCreatePairsOff[bool] = False
    """Find the temperature with which the model's probabilities fit this split best, and store it
    in the model directory unless it is no better. `flaxseg predict` uses it for confidence and
    probabilities; no label changes."""

    report: Path | None = None
    """Folder for a page that shows the evaluation (report.html), all numbers (scores.json) and the
    confusion matrix of each picture (per_image.npz)."""


def evaluate(args: Sequence[str], prog: str = "flaxseg eval") -> None:
    """Score a trained network on a split of its data set."""
    options = dataclasses.asdict(parse(EvalArgs, args, prog))
    named, report = options.pop("path"), options.pop("report")
    path = _opened(named)
    if options["calibrate"] and path != Path(named):
        raise ConfigError(
            f"--calibrate writes into a model directory, and {named} is read through a cache: "
            f"flaxseg convert import {named} DIR makes one, then give DIR"
        )
    if report is None:
        from flaxseg.inference.evaluating import evaluate_dir

        evaluate_dir(path, **options, console=Console())
    else:
        from flaxseg.report import report_evaluation

        report_evaluation(path, report, **options, console=Console())


def convert(args: Sequence[str], prog: str = "flaxseg convert") -> None:
    """Inspect, import and export checkpoints of other programs."""
    _converters("convert.__main__").run(args, prog)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareArgs(ViewArgs):
    """Compare two trained networks on the same pictures: what B gains, with 95 % intervals.

    The intervals come from drawing the pictures anew (paired bootstrap). Options say how both look
    at the pictures; None is as in the training run of each.
    """

    a: ModelArg
    """Work directory of a training run, model directory, any checkpoint as of `flaxseg eval`, or
    folder that `flaxseg eval --report` wrote, which needs neither model nor data."""

    b: ModelArg
    """Likewise."""

    report: Path | None = None
    """Folder for a page that shows the comparison (compare.html) and all numbers (compare.json)."""

    resamples: int = 2000
    """How often the pictures are drawn anew."""

    seed: int = 0
    """Of the draws."""

    other_settings: bool = False
    """The networks may look at the pictures in different ways, such as through windows or not."""


def compare(args: Sequence[str], prog: str = "flaxseg compare") -> None:
    """Compare two trained networks on the same pictures."""
    options = dataclasses.asdict(parse(CompareArgs, args, prog))
    from flaxseg.report import compare_models, is_report

    sides = (options.pop(name) for name in ("a", "b"))
    a, b = (Path(side) if is_report(side) else _opened(side) for side in sides)
    compare_models(a, b, **options, console=Console())


@dataclasses.dataclass(frozen=True)
class RunsArgs:
    """List the training runs in a folder, the best first, with the settings that differ."""

    folder: tyro.conf.Positional[Path] = Path("runs")
    """Folder; runs are looked for in the folders below it, too."""

    json: bool = False
    """Print a list of JSON objects."""

    csv: bool = False
    """Print a table for other programs."""


def runs(args: Sequence[str], prog: str = "flaxseg runs") -> None:
    """List the training runs in a folder, the best first."""
    given = parse(RunsArgs, args, prog)
    if given.json and given.csv:
        raise ConfigError("--json and --csv are two forms of the same: give one")
    from flaxseg.training.runs.table import show_runs

    form = "json" if given.json else "csv" if given.csv else "table"
    show_runs(given.folder, Console(), form=form)


def export(args: Sequence[str], prog: str = "flaxseg export") -> None:
    """Write a network with its weights as one file that runs without flaxseg."""
    from flaxseg.export.command import ExportArgs

    def write_onnx(*args: Any, **options: Any) -> Any:
        return _converters("convert.onnx_file").write_onnx(*args, **options)

    parse(ExportArgs, args, prog)(_opened, write_onnx)


def push(args: Sequence[str], prog: str = "flaxseg push") -> None:
    """Put a model on the Hugging Face hub, with a card that explains it."""
    from flaxseg.hub.command import PushArgs

    parse(PushArgs, args, prog)(_opened)


@dataclasses.dataclass(frozen=True)
class InfoArgs:
    """Show what a model is: network, classes, sizes, costs, normalisation and origin."""

    model: ModelArg
    """Work directory of a training run, model directory, or any checkpoint that `flaxseg convert
    formats` lists: file, folder or hf:owner/name[@revision]; or a file of `flaxseg export`."""

    size: tuple[int, int] | None = None
    """Height and width of the picture for which FLOPs are counted, in pixels. None: the only one
    that the network takes, or 512 512."""

    json: bool = False
    """Print the same as JSON."""


def info(args: Sequence[str], prog: str = "flaxseg info") -> None:
    """Show what a model is: network, classes, sizes, costs, normalisation and origin."""
    given = parse(InfoArgs, args, prog)
    from flaxseg.info import print_info, read_info

    found = read_info(_opened(given.model), given.size)
    if given.json:
        print(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        print_info(found, Console())


@dataclasses.dataclass(frozen=True)
class DoctorArgs:
    """Look for what is wrong with the installation, and tell what to type against it."""

    clean: bool = False
    """Remove compiled programs, imported models and prepared data from the cache. No run should be
    at work."""


def doctor(args: Sequence[str], prog: str = "flaxseg doctor") -> int:
    """Look for what is wrong with the installation, and tell what to type against it."""
    given = parse(DoctorArgs, args, prog)
    from flaxseg.doctor.command import examine

    return examine(Console(), clean=given.clean)


@dataclasses.dataclass(frozen=True)
class CompletionArgs:
    """Print a script after which a shell completes flaxseg's commands, flags and their values."""

    shell: tyro.conf.Positional[Shell]
    """bash, zsh or fish. What is printed belongs, for bash, in a file that ~/.bashrc sources; for
    zsh in a file _flaxseg in a folder of $fpath; for fish in ~/.config/fish/completions."""


def completion(args: Sequence[str], prog: str = "flaxseg completion") -> None:
    """Print what makes a shell complete flaxseg's commands, flags and their values."""
    given = parse(CompletionArgs, args, prog)
    commands = {name: arguments_of(run) for name, run in COMMANDS.items()}
    print(script("flaxseg", commands, given.shell))


COMMANDS: dict[str, Callable[[Sequence[str], str], int | None]] = {
    "train": train,
    "plan": plan,
    "bench": bench,
    "data": data,
    "predict": predict,
    "demo": demo,
    "eval": evaluate,
    "compare": compare,
    "runs": runs,
    "export": export,
    "push": push,
    "info": info,
    "doctor": doctor,
    "recipes": recipes,
    "groups": groups,
    "convert": convert,
    "completion": completion,
}
"""What `flaxseg NAME` runs."""


def parse(target: type[T], args: Sequence[str], prog: str, **options: Any) -> T:
    """Reads a command line into a dataclass; `--help` prints and exits.

    Args:
        target: the dataclass, or a union of several for subcommands.
        args: the arguments.
        prog: name of the command in help texts.
        **options: of `tyro.cli`.

    Raises:
        ConfigError: a malformed command line.
    """
    if args is WHAT:
        raise Asked(target, options)
    report = io.StringIO()
    try:
        with contextlib.redirect_stderr(report):
            return tyro.cli(target, args=list(args), prog=prog, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
    # tyro draws a box around its message; the first line is only a heading.
    lines = [line.strip("╭╮╰╯│─ ") for line in report.getvalue().splitlines()]
    raise ConfigError(" ".join(line for line in lines[1:] if line.strip("-")))


def _usage() -> str:
    rows = [f"  {name:8} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items()]
    more = "flaxseg COMMAND --help shows a command's options."
    return "\n".join(["usage: flaxseg COMMAND ...", "", *rows, "", more])


def _peek(args: Sequence[str], name: str) -> str | None:
    """The last value of `--name` in a command line that is not parsed yet."""
    value = None
    flag = "--" + name.replace("_", "-")
    for arg, following in zip(args, [*args, None][1:], strict=True):
        if arg == flag:
            value = following
        elif arg.startswith(f"{flag}="):
            value = arg.partition("=")[2]
    return value


if __name__ == "__main__":
    sys.exit(main())
