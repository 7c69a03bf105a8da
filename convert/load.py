"""From any published checkpoint to a network, and from a network to any published layout."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from convert import huggingface, normalisation
from convert import labels as class_names
from convert.formats import huggingface_segformer, load_format
from convert.inplace_abn import plain_weights
from convert.io import write
from convert.onnx_file import ONNX, write_onnx
from convert.recognise import Recognition, identify
from convert.report import Report
from convert.sources import Checkpoint, open_checkpoint
from flaxseg import models, native
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.labels import LabelSet
from flaxseg.model_dir import Header, check_keys, is_model_directory, read_directory
from flaxseg.preprocess import Preprocess

NATIVE = "native"
"""The format of `flaxseg.save`."""

SEED = 0
"""Of what a file does not give, such as the classifier for another number of classes."""


class Loaded(NamedTuple):
    """A network from a checkpoint.

    Attributes:
        model: in eval mode, ready for inference.
        report: what was found, used and left out.
    """

    model: models.Model
    report: Report


class Native(NamedTuple):
    """A checkpoint under native keys, before any network holds it.

    Attributes:
        arrays: native key -> array in torch's axis order.
        report: what was found, used and left out.
    """

    arrays: dict[str, np.ndarray]
    report: Report


def recognise(path: str | os.PathLike) -> Recognition:
    """What a checkpoint is: format, configuration and registry name of its network.

    Raises:
        CheckpointError: it cannot be read, or none of the known formats fits.
    """
    return recognise_checkpoint(open_checkpoint(path))


def recognise_checkpoint(
    checkpoint: Checkpoint, *, like: models.Config | None = None
) -> Recognition:
    """Like `recognise`, of a checkpoint that is read already.

    Args:
        checkpoint: what to recognise.
        like: the network to choose where the file fits several.
    """
    return _in_file(checkpoint, identify(shapes_of(checkpoint.arrays), like=like))


def load(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    model: str | None = None,
    num_classes: int | None = None,
    inplace_abn: bool = False,
    allow_nonfinite: bool = False,
) -> Loaded:
    """The network of a checkpoint, in eval mode.

    Args:
        path: a file, a folder, or "hf:owner/name[@revision]"; see `convert.sources`.
        format: name of its layout, such as "mmseg"; found out if None.
        model: registry name of the network; found out if None.
        num_classes: another number than the file's starts the classifiers anew.
        inplace_abn: the norms are InPlaceABN layers, which scale by |weight| + eps; no file tells.
        allow_nonfinite: load NaN and infinite weights too.

    Raises:
        CheckpointError: what is missing, broken, ambiguous or does not fit, by file and key.
        ConfigError: an unknown format or network.
    """
    if _is_native(path, format):
        report = _native_report(path, read_directory(path)[0], model, num_classes)
        return Loaded(native.load(path), report)
    arrays, report = read_native(
        path,
        format=format,
        model=model,
        num_classes=num_classes,
        inplace_abn=inplace_abn,
        allow_nonfinite=allow_nonfinite,
    )
    network = native.fill(models.abstract_model(report.config), arrays)
    return Loaded(models.eval_view(network), report)


def read_native(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    model: str | None = None,
    num_classes: int | None = None,
    inplace_abn: bool = False,
    allow_nonfinite: bool = False,
) -> Native:
    """Like `load`, without building the network: arrays that the file gives are not copied."""
    if _is_native(path, format):
        header, stored = read_directory(path)
        report = _native_report(path, header, model, num_classes)
        check_keys(native.leaves(models.abstract_model(header.config)), stored, os.fspath(path))
        arrays = {key: np.asarray(array) for key, array in stored.items()}
        check_values(arrays, allow_nonfinite)
        return Native(plain_weights(arrays) if inplace_abn else arrays, report)
    checkpoint = open_checkpoint(path)
    try:
        found = identify(shapes_of(checkpoint.arrays), origin=format, model=model)
        found = _in_file(checkpoint, found)
        check_values(checkpoint.arrays, allow_nonfinite)
        foreign = plain_weights(checkpoint.arrays) if inplace_abn else checkpoint.arrays
        arrays, report = translate(checkpoint, found, foreign)
        untold = "norms scale by |weight| + 1e-5 of the file (InPlaceABN)"
        untold = untold if inplace_abn else found.format.untold
        if untold:
            report = dataclasses.replace(report, notes=(*report.notes, untold))
        if num_classes not in (None, found.config.num_classes):
            arrays, report = _with_classes(arrays, report, num_classes)
        return Native(arrays, report)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.source}: {error}") from None


def save(
    model: models.Model | Loaded,
    path: str | os.PathLike,
    *,
    format: str = NATIVE,
    labels: LabelSet | None = None,
    preprocess: Preprocess | None = None,
) -> tuple[str, ...]:
    """Writes a network in any layout that stores it.

    Args:
        model: a network, or what `load` returned, which also gives class names, normalisation and
            the tensors that the network does not use.
        path: a folder for "native", a folder or file for "huggingface", else a file: .pth, .pt,
            .bin, .ckpt or .safetensors, and .onnx for "onnx".
        format: "native", "onnx", or the name of a published layout, such as "mmseg".
        labels: class names and colours, where the layout keeps them.
        preprocess: normalisation of the images, likewise.

    Returns:
        What the layout has no place for and its readers will not guess, for the user to read.

    Raises:
        CheckpointError: the layout does not store this network, or the place cannot be written;
            what was there is untouched.
        ConfigError: an unknown format.
    """
    spares: Mapping[str, np.ndarray] = {}
    if isinstance(model, Loaded):
        labels = labels or model.report.labels
        preprocess = preprocess or model.report.preprocess
        spares = model.report.spares if model.report.format == format else {}
        model = model.model
    if format == NATIVE:
        native.save(model, path, labels=labels, preprocess=preprocess)
        return ()
    if format == ONNX:
        arrays = native.state_dict(model)
        write_onnx(path, model.config, arrays, labels=labels, preprocess=preprocess)
        return ()
    layout = load_format(format, models.architecture_of(model.config))
    state = layout.export_state(model, spares)
    config = model.config
    folder = layout is huggingface_segformer.FORMAT and not Path(path).suffix
    notes = ()
    if preprocess:
        notes = normalisation.not_stored(preprocess, layout, config.num_classes, folder=folder)
    if folder:
        assert isinstance(config, models.SegFormerConfig)  # the format stores no other
        labels = labels or LabelSet.generic(config.num_classes)
        huggingface.write_folder(path, state, config, labels, preprocess or Preprocess())
        return notes
    bare = Path(path).suffix == ".safetensors" or layout.wrapper is None
    write(
        path,
        state,
        wrapper=None if bare else layout.wrapper,
        meta=class_names.to_meta(layout, labels),
    )
    return notes


def check_values(arrays: Mapping[str, np.ndarray], allow_nonfinite: bool = False) -> None:
    """Refuses what cannot be weights.

    Raises:
        CheckpointError: names all tensors with NaN, infinite or complex values.
    """
    odd = [f"{key} ({a.dtype})" for key, a in arrays.items() if a.dtype.kind not in "fiub"]
    if odd:
        raise CheckpointError(f"{len(odd)} tensors hold no real numbers: {', '.join(odd[:10])}")
    bad = [key for key, a in arrays.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
    if bad and not allow_nonfinite:
        raise CheckpointError(
            f"{len(bad)} tensors hold NaN or infinite values: {', '.join(bad[:10])}; the training "
            "diverged or the file is damaged; --allow-nonfinite imports it all the same"
        )


def _is_native(path: str | os.PathLike, format: str | None) -> bool:
    return format == NATIVE or (format is None and is_model_directory(path))


def _native_report(
    path: str | os.PathLike, header: Header, model: str | None, num_classes: int | None
) -> Report:
    """Of a model directory, if that is the network that was asked for."""
    config = header.config
    name = models.name_of(config)
    if model not in (None, name):
        raise ConfigError(f"{path} holds {name}, not {model}: leave the network's name out")
    if num_classes not in (None, config.num_classes):
        raise ConfigError(
            f"{path} has {config.num_classes} classes, not {num_classes}: convert the file that it "
            "was made from once more, with another number of classes"
        )
    return Report(
        os.fspath(path),
        NATIVE,
        "flaxseg.save",
        name,
        config,
        header.labels,
        len(native.leaves(models.abstract_model(config))),
        {},
        preprocess=header.preprocess,
    )


def shapes_of(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Key -> shape."""
    return {key: tuple(array.shape) for key, array in arrays.items()}


def _in_file(checkpoint: Checkpoint, found: Recognition) -> Recognition:
    """With what the file's own config.json says and no shape tells."""
    heads = checkpoint.config.get("num_attention_heads")
    if checkpoint.config.get("model_type") != "segformer" or not isinstance(heads, list):
        return found
    try:
        config = models.override(found.config, {"backbone.heads": tuple(heads)})
    except ConfigError as error:
        raise CheckpointError(f"config.json of {checkpoint.source}: {error}") from None
    return dataclasses.replace(found, config=config, model_name=models.name_of(config))


def translate(
    checkpoint: Checkpoint,
    found: Recognition,
    foreign: Mapping[str, np.ndarray] | None = None,
) -> Native:
    """A recognised checkpoint's tensors under native keys.

    Args:
        checkpoint: what was read.
        found: what it is.
        foreign: its tensors, if they are no longer those of the file.

    Raises:
        CheckpointError: keys, shapes or dtypes that do not fit, all of them named.
    """
    foreign = checkpoint.arrays if foreign is None else foreign
    layout = found.format
    table = layout.table(models.abstract_model(found.config))
    arrays = layout.to_native(table, foreign)
    odd = [key for key, a in arrays.items() if a.dtype.kind != "f"]
    if odd:
        raise CheckpointError(
            f"{len(odd)} weights are no floating-point numbers: {', '.join(odd[:10])}; quantised "
            "files must be turned back into float32 by their own program"
        )
    spares = {key: a for key, a in foreign.items() if key in table.spares}
    labels, notes = class_names.from_checkpoint(checkpoint, found.config.num_classes)
    preprocess, assumed = normalisation.from_checkpoint(
        checkpoint, layout, found.config.num_classes
    )
    notes += assumed
    if found.alternatives:
        others = ", ".join(found.alternatives)
        notes = (*notes, f"the file fits {others} just as well: --model or --format chooses")
    report = Report(
        checkpoint.source,
        layout.name,
        layout.origin,
        found.model_name,
        found.config,
        labels,
        len(foreign) - len(spares),
        {key: table.spares[key].reason for key in spares},
        notes=notes,
        licence=layout.licence,
        dtypes=checkpoint.content.dtypes,
        spares=spares,
        preprocess=preprocess,
    )
    return Native(arrays, report)


def _with_classes(arrays: dict[str, np.ndarray], report: Report, num_classes: int) -> Native:
    """With classifiers for another number of classes, started anew."""
    config = models.override(report.config, {"num_classes": num_classes})
    leaves = native.leaves(models.abstract_model(config))
    fresh = tuple(key for key, shape in leaves.items() if arrays[key].shape != shape)
    start = native.state_dict(models.fresh_model(config, rngs=nnx.Rngs(SEED)))
    arrays = {key: start[key] if key in fresh else array for key, array in arrays.items()}
    notes = (*report.notes, f"{report.config.num_classes} classes in the file, {num_classes} here")
    changes: dict[str, Any] = {"config": config, "fresh": fresh, "notes": notes, "spares": {}}
    changes["labels"] = LabelSet.generic(num_classes)
    changes["used"] = report.used - len(fresh)
    return Native(arrays, dataclasses.replace(report, **changes))
