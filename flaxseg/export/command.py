"""`flaxseg export`."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from flaxseg import models
from flaxseg.demo.pages import title_of
from flaxseg.errors import ConfigError
from flaxseg.export.about import Step, told_besides
from flaxseg.export.site import write_site
from flaxseg.export.stablehlo import SUFFIX, divisor, write_stablehlo
from flaxseg.files import sha256_of
from flaxseg.inference.opening import resolve_model_dir, run_settings
from flaxseg.inference.run_view import VIEW, predict_view, view_flags
from flaxseg.model_dir import WEIGHTS_FILE, read_directory
from flaxseg.origin import licences

ONNX_SUFFIX = ".onnx"
SITE_SUFFIX = ""
"""Of a folder."""

USUAL_SIZE = (512, 512)
"""Height and width for a network that takes any."""


@dataclasses.dataclass(frozen=True)
class ExportArgs:
    """Write a network with its weights as a file, or a page, that runs without flaxseg.

    Before a file is kept its answers are compared with the model's.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Work directory of a training run, model directory, or any checkpoint that `flaxseg convert
    formats` lists: file, folder or hf:owner/name[@revision]."""

    out: tyro.conf.Positional[Path]
    """File to write: NAME.stablehlo, for JAX on CPUs, GPUs and TPUs, or NAME.onnx. A name without
    ending is a folder: a page for any file server, which segments in the visitor's browser."""

    steps: Annotated[tuple[Step, ...], tyro.conf.arg(name="with")] = ()
    """What becomes part of the program. preprocess: pictures are bytes, red, green and blue;
    argmax: label maps of bytes come out in place of logits."""

    size: tuple[int, int] | None = None
    """The only height and width of the pictures, in pixels. None: any that the network takes; of
    .stablehlo multiples of 32, and 512 512 for a network whose positions are resized."""

    opset: int | None = None
    """Version of the operators of an .onnx file, 18 to 23. None: 20."""

    check: Path | None = None
    """Folder of photos to compare on. None: noise and drawn shapes."""

    runtime: Path | None = None
    """Package of onnxruntime-web, as npm pack writes it. None: downloaded once. Of pages alone."""

    def __call__(self, opened: Callable[[str], Path], write_onnx: Callable[..., Any]) -> None:
        """Writes the file, and says what it is.

        Args:
            opened: makes a directory of ours of what the user names.
            write_onnx: writes an .onnx file, as `convert.onnx_file.write_onnx`.

        Raises:
            FlaxsegError: a name that does not fit, or a program that differs from the model.
        """
        self._check_flags()
        if self.out.exists() and self.out.suffix != SITE_SUFFIX:
            raise ConfigError(f"{self.out} exists: choose another name or remove it")
        if not self.out.absolute().parent.is_dir():
            raise ConfigError(f"{self.out}: there is no folder {self.out.absolute().parent}")
        directory = resolve_model_dir(opened(self.model))
        header, arrays = read_directory(directory)
        config, size = header.config, self.size or header.config.fixed_size
        if size is not None:
            try:
                config.check_size(size)
            except ConfigError as error:
                raise ConfigError(f"--size {size[0]} {size[1]}: {error}") from None
        if size is None and self.out.suffix == SUFFIX and not config.one_program:
            size = USUAL_SIZE
        settings = run_settings(Path(self.model))
        view = {name: settings[name] for name in VIEW if name in settings}
        if size is not None and view.get("eval_size") != size:
            view = {}
        options = {"steps": self.steps, "photos": self.check, "view": view}
        onnx = {
            "opset": self.opset,
            "more": told_besides(directory, header),
            "weights_sha256": sha256_of(directory / WEIGHTS_FILE),
        }
        if self.out.suffix == SUFFIX:
            agreement = write_stablehlo(self.out, directory, size=size, **options)
        elif self.out.suffix == ONNX_SUFFIX:
            agreement = write_onnx(self.out, header, arrays, size=size, **options, **onnx)
        else:
            agreement = write_site(
                self.out,
                header,
                title_of(self.model),
                lambda file: write_onnx(file, header, arrays, size=size, **options, **onnx),
                runtime=self.runtime,
            )
        print(f"takes      any number of pictures of {self._taken(size, config)}")
        print(f"verified   {agreement} of {agreement.pictures} pictures")
        flags = predict_view(settings)
        if flags and (self.out.suffix == SITE_SUFFIX or not view):
            print(f"seen       by the run with {view_flags(flags)}{self._unseen(flags)}")
        for licence in licences(header.origin):
            print(f"licence    {licence}")
        print(f"wrote      {self.out}: {header.name}, {header.labels.num_classes} classes")
        if self.out.suffix == SITE_SUFFIX:
            print(f"served by  python -m http.server --directory {self.out}")

    def _unseen(self, view: Mapping[str, tuple[int, int]]) -> str:
        """That the program does not look as the run did, and the flags by which it does."""
        if self.out.suffix == SITE_SUFFIX:
            return ", which the page does not know"
        return f", which the file does not know: flaxseg predict {self.out} {view_flags(view)}"

    def _taken(self, size: tuple[int, int] | None, config: models.Config) -> str:
        """The sizes of pictures in words."""
        if size is not None:
            told = "" if self.size or config.fixed_size else ", choose with --size"
            return f"{size[0]} x {size[1]} pixels{told}"
        multiple = divisor(config) if self.out.suffix == SUFFIX else config.size_divisor
        sides = f" whose sides are multiples of {multiple} pixels" if multiple > 1 else ""
        return f"any size{sides}{', square' if config.square else ''}"

    def _check_flags(self) -> None:
        """Raises a `ConfigError` for a name that says nothing, or a flag that is not for it."""
        suffix = self.out.suffix
        if suffix not in (SUFFIX, ONNX_SUFFIX, SITE_SUFFIX):
            raise ConfigError(
                f"{self.out} ends in {suffix!r}: give it a name that ends in {SUFFIX} or "
                f"{ONNX_SUFFIX}, or in nothing for the folder of a page"
            )
        others = {
            "--with": (self.steps, suffix == SITE_SUFFIX, "files"),
            "--size": (self.size, suffix == SITE_SUFFIX, "files"),
            "--opset": (self.opset, suffix != ONNX_SUFFIX, f"{ONNX_SUFFIX} files"),
            "--runtime": (self.runtime, suffix != SITE_SUFFIX, "pages"),
        }
        for flag, (value, elsewhere, meant) in others.items():
            if value and elsewhere:
                raise ConfigError(f"{flag} is for {meant}, not for {self.out}: leave it out")
