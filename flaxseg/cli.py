"""The command line: `flaxseg train | predict | eval`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from flaxseg.errors import ConfigError, FlaxsegError

# Each command imports what it needs when it runs: `--help` need not wait for JAX.

MEND = 2
"""Exit code of errors that the user can mend."""


def main(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs a command.

    Args:
        args: arguments, those of the process if None; the first one names the command.
        prog: name in help texts.

    Returns:
        The exit code: 0, or 2 after one line on standard error.
    """
    args = sys.argv[1:] if args is None else list(args)
    try:
        if not args or args[0] in ("-h", "--help"):
            print(_usage())
            return 0 if args else MEND
        if args[0] not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise ConfigError(f"unknown command {args[0]!r}: use one of {known}")
        COMMANDS[args[0]](args[1:], prog or f"flaxseg {args[0]}")
    except (FlaxsegError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return MEND
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


def train(args: Sequence[str], prog: str) -> None:
    """Train a network; the same work directory again resumes."""
    from flaxseg.training import fit, parse_config

    fit(parse_config(args, prog))


def predict(args: Sequence[str], prog: str) -> None:
    """Segment photos: index mask, coloured mask and overlay for each."""

    def command(
        model_dir: tyro.conf.Positional[Path],
        images: tyro.conf.Positional[tuple[Path, ...]],
        /,
        out: Path = Path("predictions"),
        alpha: float = 0.5,
        multiple: int = 32,
        max_side: int | None = None,
    ) -> None:
        """Segment photos: index mask, coloured mask and overlay for each, at the photo's own size.

        Args:
            model_dir: Work directory of a training run, or model directory.
            images: Photos.
            out: Folder to write to.
            alpha: Share of the colours in the overlay, 0 to 1.
            multiple: Pixels to which height and width are rounded up inside.
            max_side: Longest side, in pixels, at which a photo is segmented. None: no limit.
        """
        from flaxseg.inference.files import predict_files

        console = Console()
        files = predict_files(
            model_dir,
            images,
            out,
            alpha=alpha,
            multiple=multiple,
            max_side=max_side,
            console=console,
        )
        console.print(f"{len(files)} files written to {out}", soft_wrap=True)

    tyro.cli(command, args=list(args), prog=prog)


def evaluate(args: Sequence[str], prog: str) -> None:
    """Score a trained network on a split of its data set."""

    def command(
        path: tyro.conf.Positional[Path],
        /,
        split: str = "val",
        data: str | None = None,
        data_dir: str | None = None,
        batch_size: int | None = None,
        eval_size: Annotated[
            tuple[int, int] | None, tyro.conf.arg(metavar="{None}|{H W}")
        ] = None,
    ) -> None:
        """Score a trained network on a split of its data set.

        Args:
            path: Work directory of a training run, or model directory.
            split: Split to score on: train or val.
            data: Data set. None: the one of the training run.
            data_dir: Folder of the data set. None: the one of the training run.
            batch_size: Images per step. None: as in the training run.
            eval_size: Height and width to which pictures are stretched, in pixels. None: as in
                the training run.
        """
        from flaxseg.inference.files import evaluate_dir

        evaluate_dir(
            path,
            split=split,
            data=data,
            data_dir=data_dir,
            batch_size=batch_size,
            eval_size=eval_size,
            console=Console(),
        )

    tyro.cli(command, args=list(args), prog=prog)


COMMANDS: dict[str, Callable[[Sequence[str], str], None]] = {
    "train": train,
    "predict": predict,
    "eval": evaluate,
}
"""What `flaxseg NAME` runs."""


def _usage() -> str:
    rows = [f"  {name:8} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items()]
    more = "flaxseg COMMAND --help shows a command's options."
    return "\n".join(["usage: flaxseg COMMAND ...", "", *rows, "", more])


if __name__ == "__main__":
    sys.exit(main())
