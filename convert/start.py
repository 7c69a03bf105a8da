"""Weights that a training starts from: those of a whole network, or of an encoder alone.

Nothing is left out in silence. Of a whole network, only the classifiers may be for other classes,
of which those of the same name keep their rows, auxiliary heads may be missing or too many, the
table of positions may be for images of another size, and the first layer for images of other than
three channels. Everything that starts from random numbers is listed.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax import numpy as jnp

from convert import normalisation
from convert.by_name import rows_by_name
from convert.formats import FORMATS, Format
from convert.formats.format import differing_fields
from convert.load import NATIVE, match, recognise_checkpoint, translate
from convert.origins import origin_of
from convert.prefixes import unwrapped
from convert.recognise import encoders
from convert.report import short_list
from convert.reveal import reveal
from convert.sources import Checkpoint, locate, open_checkpoint
from convert.strays import layer_shapes
from flaxseg import models, native, ops
from flaxseg.errors import CheckpointError
from flaxseg.inference.opening import MODEL_FOLDER
from flaxseg.labels import LabelSet
from flaxseg.model_dir import CONFIG_FILE, Tensor, check_keys, is_model_directory, read_directory
from flaxseg.origin import Chain, licences
from flaxseg.preprocess import Preprocess
from flaxseg.training.config import TrainConfig, flag, show
from flaxseg.training.start import Start
from flaxseg.training.workdir import CHECKPOINTS

POSITIONS = {
    "setr": ("backbone.image_size", "backbone.pos_embed"),
    "vitseg": ("image_size", "pos_embed"),
}
"""Architecture -> field of the image size, and native key of the table of positions for it."""

AUXILIARY = "aux_head"
"""The keys of heads that training alone uses start with this."""


class _Found(NamedTuple):
    """What a checkpoint gives.

    Attributes:
        arrays: native key -> array.
        config: of a network with these shapes.
        lines: about it, for the user to read.
        preprocess: normalisation of its images, where known.
        encoder: it holds an encoder alone.
        fresh: native keys that it cannot give, for they are of a network for other images.
        origin: where they come from.
        labels: its classes, numbered ones where nothing names them; None of an encoder.
    """

    arrays: Mapping[str, Tensor]
    config: models.Config
    lines: list[str]
    preprocess: Preprocess | None
    encoder: bool = False
    fresh: tuple[str, ...] = ()
    origin: Chain = ()
    labels: LabelSet | None = None


def start_from(source: str, config: models.Config, labels: LabelSet | None = None) -> Start:
    """The weights of a checkpoint that fit a network about to be trained.

    Args:
        source: what `convert.load` takes, the work directory of a training run, or a file with an
            encoder alone.
        config: of the network.
        labels: its classes. Where some of them are among the checkpoint's under another number,
            each gets its own row of the classifiers; where they are not known, or none is shared,
            rows go by their numbers if these are as many.

    Raises:
        CheckpointError: it cannot be read, or holds another network.
    """
    place = locate(source)
    opened = _read_directory(place.path) or open_checkpoint(place)
    try:
        found = _read(opened, config) if isinstance(opened, Checkpoint) else opened
        found = found if found.encoder else _whole(found, config)
        arrays, resized = _resize_positions(found, config)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    rows = rows_by_name(arrays, found.labels, config, labels) if found.labels and labels else None
    arrays |= rows.arrays if rows else {}
    leaves = native.leaves(models.abstract_model(config))
    kept = {
        key: np.asarray(arrays[key])
        for key, shape in leaves.items()
        if key in arrays and arrays[key].shape == shape
    }
    fresh = [key for key in leaves if key not in kept]
    lines = [f"starts from {source}", *found.lines, *resized, *(rows.lines if rows else ())]
    lines.append(f"{len(kept)} of {len(leaves)} tensors start from it")
    if fresh:
        lines.append(f"random numbers in {', '.join(fresh)}")
    known = rows.known if rows else {}
    return Start(kept, lines, found.preprocess, known, found.origin)


def _read_directory(path: Path) -> _Found | None:
    """The network of a model directory or a work directory; None if it is neither."""
    for directory in (path, path / MODEL_FOLDER):
        if is_model_directory(directory):
            header, arrays = read_directory(directory)
            lines = [f"format {NATIVE}, {header.name}"]
            lines += [f"licence {words}" for words in licences(header.origin)]
            lines += [] if directory == path else [_which_weights(path)]
            told = {"origin": header.origin, "labels": header.labels}
            return _Found(arrays, header.config, lines, header.preprocess, **told)
    if (path / CHECKPOINTS).is_dir():
        raise CheckpointError(f"{path} has no model yet: a run writes it at its first evaluation")
    return None


def _which_weights(run: Path) -> str:
    """What the model of a work directory is, as evaluations choose it."""
    words = "its weights with the best score"
    if not (run / CONFIG_FILE).is_file():
        return words
    config = TrainConfig.load(run / CONFIG_FILE)
    averages = [name for name in ("ema", "swa_start") if getattr(config, name) is not None]
    return words + "".join(
        f", averaged by {flag(name)} {show(getattr(config, name))}" for name in averages
    )


def _read(checkpoint: Checkpoint, config: models.Config) -> _Found:
    checkpoint = unwrapped(checkpoint)
    candidates = encoders(layer_shapes(checkpoint.arrays))
    if candidates:
        return _encoder(checkpoint, candidates, config)
    arrays, report = translate(
        checkpoint,
        recognise_checkpoint(checkpoint, like=config),
        num_classes=config.num_classes,
        any_channels=True,
    )
    known = None if normalisation.ASSUMED in report.assumed else report.preprocess
    lines = str(report).splitlines()[1:]
    told = {"fresh": report.fresh, "origin": report.chain, "labels": report.labels}
    return _Found(arrays, report.config, lines, known, **told)


def _whole(found: _Found, config: models.Config) -> _Found:
    """A whole network's tensors, without auxiliary heads that this one lacks.

    Raises:
        CheckpointError: it is another network, by the fields or the tensors that differ.
    """
    odd = differing_fields(found.config, config, _free(config))
    if odd:
        what = ", ".join(f"{name} is {a!r} there and {b!r} here" for name, a, b in odd)
        raise CheckpointError(
            f"it holds {models.name_of(found.config)}, which computes something else than the "
            f"network to train: {what}; choose that with --model and --override"
        )
    expected = native.leaves(models.abstract_model(_sized_like(found.config, config)))
    arrays = {k: a for k, a in found.arrays.items() if k in expected or not _is_auxiliary(k)}
    free = {k for k in expected if k in found.fresh or _is_auxiliary(k)}
    check_keys({k: s for k, s in expected.items() if k in arrays or k not in free}, arrays)
    return found._replace(arrays=arrays)


def _encoder(checkpoint: Checkpoint, candidates: Iterable[Format], config: models.Config) -> _Found:
    """The tensors of an encoder.

    Raises:
        CheckpointError: the network has another one.
    """
    shapes = layer_shapes(checkpoint.arrays)
    architecture = models.architecture_of(config)
    problems = []
    for layout in candidates:
        sized = reveal(config, layout.names(shapes).native)
        theirs = _sized_like(sized, config, classes=False)
        try:
            _check_heads(layout, config)
            table = layout.table(models.abstract_model(theirs))
            found = match(layout, table, checkpoint.arrays, architecture, any_channels=True)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        lines = [f"format {layout}: {layout.origin}"]
        lines += [f"licence {layout.licence}"] if layout.licence else []
        taken_off = checkpoint.content.wrappers
        lines += [f"taken off {' > '.join(taken_off)}"] if taken_off else []
        lines += [f"left out {short_list(list(found.left_out))}"] if found.left_out else []
        lines += found.notes
        preprocess, _ = normalisation.from_checkpoint(checkpoint, layout, theirs.num_classes)
        origin = origin_of(checkpoint, layout)
        return _Found(found.arrays, theirs, lines, preprocess, encoder=True, origin=origin)
    raise CheckpointError(
        f"it holds an encoder that {models.name_of(config)} does not have: {'; or '.join(problems)}"
    )


def _check_heads(layout: Format, config: Any) -> None:
    """Refuses another number of attention heads, which no shape tells."""
    vit = _encoder_of(config)
    if layout.head_dim and vit.width != vit.num_heads * layout.head_dim:
        field = "backbone.num_heads" if vit is not config else "num_heads"
        raise CheckpointError(
            f"its heads have {layout.head_dim} channels, the network has {vit.num_heads} heads for "
            f"{vit.width}: --override {field}={vit.width // layout.head_dim}"
        )


def _free(config: models.Config) -> frozenset[str]:
    """Fields that shapes tell, or that the output of a trained network does not depend on."""
    architecture = models.architecture_of(config)
    published = (f for f in FORMATS if f.architecture == architecture and f.variants)
    return frozenset.intersection(*(layout.free for layout in published))


def _is_auxiliary(key: str) -> bool:
    return key.startswith(AUXILIARY)


def _sized_like(theirs: Any, ours: models.Config, *, classes: bool = True) -> models.Config:
    """Our network for their number of classes and size of images."""
    fields = ["num_classes"] if classes else []
    fields += [POSITIONS[name][0]] if (name := models.architecture_of(ours)) in POSITIONS else []
    return models.override(ours, {field: _field(theirs, field) for field in fields})


def _encoder_of(config: Any) -> Any:
    """The encoder's configuration; ViTSeg's is its own."""
    return getattr(config, "backbone", config)


def _field(config: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        config = getattr(config, name)
    return config


def _resize_positions(found: _Found, config: models.Config) -> tuple[dict[str, Tensor], list[str]]:
    """With the table of positions for our images, and a line about it if it had to change."""
    arrays = dict(found.arrays)
    architecture = models.architecture_of(config)
    if architecture not in POSITIONS:
        return arrays, []
    key = POSITIONS[architecture][1]
    theirs, ours = (_encoder_of(c).grid for c in (found.config, config))
    if theirs == ours:
        return arrays, []
    arrays[key] = resize_table(np.asarray(arrays[key]), theirs, ours)
    there, here = (f"{rows}x{cols}" for rows, cols in (theirs, ours))
    return arrays, [f"{key} resized from {there} to {here} patches, bilinear"]


def resize_table(table: np.ndarray, grid: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """Positions for another grid of patches; a class token's, in front, stays.

    Args:
        table: (..., n, width) with n = rows * cols, or one more in front.
        grid: rows and columns that it is for.
        target: rows and columns wanted.
    """
    width, patches = table.shape[-1], math.prod(grid)
    first, rest = np.split(table, [table.shape[-2] - patches], axis=-2)
    rest = ops.resize_bilinear(jnp.asarray(rest.reshape(1, *grid, width)), target)
    rest = np.asarray(rest, table.dtype).reshape(*table.shape[:-2], math.prod(target), width)
    return np.concatenate([first, rest], axis=-2)
