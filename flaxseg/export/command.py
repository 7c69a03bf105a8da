"""`flaxseg export`."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from flaxseg.errors import ConfigError
from flaxseg.export.stablehlo import SUFFIX, Step, write_stablehlo
from flaxseg.inference.files import resolve_model_dir
from flaxseg.model_dir import Header, read_directory
from flaxseg.origin import licences

ONNX_SUFFIX = ".onnx"
USUAL_SIZE = (512, 512)
"""Height and width for a network that takes any."""


@dataclasses.dataclass(frozen=True)
class ExportArgs:
    """Write a network with its weights as one file that runs without flaxseg.

    Before a file is kept its answers are compared with the model's.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Work directory of a training run, model directory, or any checkpoint that `flaxseg convert
    formats` lists: file, folder or hf:owner/name[@revision]."""

    out: tyro.conf.Positional[Path]
    """File to write: NAME.stablehlo, for JAX on CPUs, GPUs and TPUs, or NAME.onnx."""

    steps: Annotated[tuple[Step, ...], tyro.conf.arg(name="with")] = ()
    """What becomes part of the program. preprocess: pictures are bytes, red, green and blue;
    argmax: label maps come out in place of logits. Of .stablehlo alone."""

    size: tuple[int, int] | None = None
    """Height and width of the pictures, in pixels. None: the only one that the network takes, or
    512 512. Of .stablehlo alone; the .onnx takes any where the network does."""

    check: Path | None = None
    """Folder of photos to compare on. None: noise and drawn shapes. Of .stablehlo alone."""

    def __call__(self, opened: Callable[[str], Path], write_onnx: Callable[..., float]) -> None:
        """Writes the file, and says what it is.

        Args:
            opened: makes a directory of ours of what the user names.
            write_onnx: writes an .onnx file, as `convert.onnx_file.write_onnx`.

        Raises:
            FlaxsegError: a name that does not fit, or a program that differs from the model.
        """
        writers = {
            SUFFIX: self._write_stablehlo,
            ONNX_SUFFIX: functools.partial(self._write_onnx, write_onnx),
        }
        if self.out.suffix not in writers:
            raise ConfigError(
                f"{self.out} ends in {self.out.suffix or 'nothing'!r}: give it a name that ends in "
                f"{' or '.join(writers)}"
            )
        if self.out.exists():
            raise ConfigError(f"{self.out} exists: choose another name or remove it")
        if not self.out.absolute().parent.is_dir():
            raise ConfigError(f"{self.out}: there is no folder {self.out.absolute().parent}")
        directory = resolve_model_dir(opened(self.model))
        header, arrays = read_directory(directory)
        writers[self.out.suffix](directory, header, arrays)
        for licence in licences(header.origin):
            print(f"licence    {licence}")
        print(f"wrote      {self.out}: {header.name}, {header.labels.num_classes} classes")

    def _write_stablehlo(self, directory: Path, header: Header, _: Any) -> None:
        size = self.size or header.config.fixed_size or USUAL_SIZE
        try:
            header.config.check_size(size)
        except ConfigError as error:
            raise ConfigError(f"--size {size[0]} {size[1]}: {error}") from None
        options = {"size": size, "steps": self.steps, "photos": self.check}
        agreement = write_stablehlo(self.out, directory, **options)
        told = "" if self.size or header.config.fixed_size else ", choose with --size"
        print(f"takes      any number of pictures of {size[0]} x {size[1]} pixels{told}")
        print(f"verified   {agreement} of {agreement.pictures} pictures")

    def _write_onnx(
        self, write: Callable[..., float], _: Path, header: Header, arrays: Any
    ) -> None:
        given = {"--with": self.steps, "--size": self.size, "--check": self.check}
        for flag in (flag for flag, value in given.items() if value):
            raise ConfigError(f"{flag} is for {SUFFIX} files, not for {self.out}: leave it out")
        told = {
            "labels": header.labels,
            "preprocess": header.preprocess,
            "origin": header.origin,
            "temperature": header.temperature,
        }
        apart = write(self.out, header.config, arrays, **told)
        print(f"verified   onnxruntime and Flax differ by {apart:.1e} of the largest logit")
