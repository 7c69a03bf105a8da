"""From any published checkpoint to a network, and from a network to any published layout."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from flax import nnx

from convert import huggingface, normalisation, one_output
from convert import labels as class_names
from convert.channels import CHANNELS, channels_in, check_channels, without_first_layer
from convert.formats import Format, huggingface_segformer, load_format
from convert.inplace_abn import (
    AS_INPLACE_ABN,
    AS_PLAIN,
    inplace_weights,
    norm_weights,
    plain_weights,
)
from convert.io import write
from convert.onnx_file import ONNX, write_onnx
from convert.origins import origin_of
from convert.prefixes import unwrapped
from convert.recognise import Recognition, identify
from convert.report import Report
from convert.rules import Table
from convert.sources import Checkpoint, Place, locate, open_checkpoint
from convert.strays import find_strays, layer_shapes
from flaxseg import models, native
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.labels import LabelSet
from flaxseg.model_dir import (
    Header,
    Tensor,
    check_keys,
    is_model_directory,
    make_header,
    read_directory,
)
from flaxseg.origin import licences
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
        arrays: native key -> tensor in torch's axis order.
        report: what was found, used and left out.
    """

    arrays: dict[str, Tensor]
    report: Report

    def stored(self, dtype: str = "float32") -> tuple[Header, dict[str, Tensor]]:
        """What a model directory holds of it; tensors that have the dtype are not read yet."""
        report = self.report
        header = make_header(
            report.config,
            labels=report.labels,
            preprocess=report.preprocess,
            name=report.model_name,
            origin=report.chain,
            temperature=report.temperature,
        )
        target = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        return header, {
            key: tensor if tensor.dtype == target else np.asarray(tensor).astype(target)
            for key, tensor in self.arrays.items()
        }


def recognise(path: str | os.PathLike) -> Recognition:
    """What a checkpoint is: format, configuration and registry name of its network.

    Raises:
        CheckpointError: it cannot be read, or none of the known formats fits.
    """
    return recognise_checkpoint(unwrapped(open_checkpoint(path)))


def recognise_checkpoint(
    checkpoint: Checkpoint, *, like: models.Config | None = None
) -> Recognition:
    """Like `recognise`, of a checkpoint that is read and unwrapped already.

    Args:
        checkpoint: what to recognise.
        like: the network to choose where the file fits several.
    """
    return _in_file(checkpoint, identify(layer_shapes(checkpoint.arrays), like=like))


def load(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    model: str | None = None,
    num_classes: int | None = None,
    inplace_abn: bool = False,
    plain_norms: bool = False,
    allow_nonfinite: bool = False,
    weights: str | None = None,
) -> Loaded:
    """The network of a checkpoint, in eval mode.

    Args:
        path: a file, a folder, or "hf:owner/name[@revision]"; see `convert.sources`.
        format: name of its layout, such as "mmseg"; found out if None.
        model: registry name of the network; found out if None.
        num_classes: another number than the file's starts the classifiers anew. A file with one
            output becomes two classes of the same function unless this is 1.
        inplace_abn: the norms are InPlaceABN layers, which scale by |weight| + eps; no file tells.
            Those of the authors' CCNet are taken for such.
        plain_norms: the norms are plain ones, also in that layout.
        allow_nonfinite: load NaN and infinite weights too.
        weights: name of the set of tensors, where the file holds several; the only one that is no
            average of another if None.

    Raises:
        CheckpointError: what is missing, broken, ambiguous or does not fit, by file and key.
        ConfigError: an unknown format or network, or norms of both kinds.
    """
    place = locate(path)
    if _is_native(place, format):
        report = _native_report(place, read_directory(place.path)[0], model, num_classes)
        return Loaded(native.load(place.path), report)
    arrays, report = read_native(
        place,
        format=format,
        model=model,
        num_classes=num_classes,
        inplace_abn=inplace_abn,
        plain_norms=plain_norms,
        allow_nonfinite=allow_nonfinite,
        weights=weights,
    )
    network = native.fill(models.abstract_model(report.config), arrays)
    return Loaded(models.eval_view(network), report)


def read_native(
    path: str | os.PathLike | Place,
    *,
    format: str | None = None,
    model: str | None = None,
    num_classes: int | None = None,
    inplace_abn: bool = False,
    plain_norms: bool = False,
    allow_nonfinite: bool = False,
    weights: str | None = None,
) -> Native:
    """Like `load`, without building the network: what the file has as it is is not read yet."""
    if inplace_abn and plain_norms:
        raise ConfigError("--inplace-abn and --plain-norms contradict each other: give one of them")
    place = locate(path)
    if _is_native(place, format):
        header, stored = read_directory(place.path)
        report = _native_report(place, header, model, num_classes)
        check_keys(native.leaves(models.abstract_model(header.config)), stored, place.name)
        check_values(stored, allow_nonfinite)
        return Native(plain_weights(stored) if inplace_abn else {**stored}, report)
    checkpoint = open_checkpoint(place, weights=weights)
    try:
        checkpoint = unwrapped(checkpoint)
        shapes = layer_shapes(checkpoint.arrays)
        found = _in_file(checkpoint, identify(shapes, origin=format, model=model))
        arrays, report = translate(
            checkpoint,
            found,
            num_classes=num_classes,
            inplace_abn=inplace_abn or (False if plain_norms else None),
            allow_nonfinite=allow_nonfinite,
        )
        if num_classes not in (None, report.config.num_classes):
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
    plain_norms: bool | None = None,
) -> tuple[str, ...]:
    """Writes a network in any layout that stores it.

    Args:
        model: a network, or what `load` returned, which also gives class names, normalisation and,
            where the weights come from and, for the layout that it came in, the file's keys in
            their order, the tensors that the network does not use, and how its norms and its
            outputs are meant.
        path: a folder for "native", a folder or file for "huggingface", else a file: .pth, .pt,
            .bin, .ckpt or .safetensors, and .onnx for "onnx".
        format: "native", "onnx", or the name of a published layout, such as "mmseg".
        labels: class names and colours, where the layout keeps them.
        preprocess: normalisation of the images, likewise.
        plain_norms: whether weights of norms are written as they are where the layout's own norms
            are InPlaceABN layers; None goes by the layout, or by the file where it came in that.

    Returns:
        What the layout has no place for and its readers will not guess, such as licences, for the
        user to read.

    Raises:
        CheckpointError: the layout does not store this network, or the place cannot be written;
            what was there is untouched.
        ConfigError: an unknown format.
    """
    own, told = None, {}
    if isinstance(model, Loaded):
        report = model.report
        labels, preprocess = labels or report.labels, preprocess or report.preprocess
        told = {"origin": report.chain, "temperature": report.temperature}
        own = report if report.format == format else None
        model = model.model
    if format == NATIVE:
        native.save(model, path, labels=labels, preprocess=preprocess, **told)
        return ()
    if format == ONNX:
        arrays = native.state_dict(model)
        write_onnx(path, model.config, arrays, labels=labels, preprocess=preprocess, **told)
        return ()
    layout = load_format(format, models.architecture_of(model.config))
    if own and own.one_output and model.config.num_classes == 2:
        model = _one_output_model(model)
    inplace = own.inplace_abn if own else layout.inplace_abn
    inplace = inplace if plain_norms is None else inplace and not plain_norms
    state = _in_layout(model, layout, own, inplace)
    config = model.config
    folder = layout is huggingface_segformer.FORMAT and not Path(path).suffix
    notes = tuple(
        f"not stored: licence {words}"
        for words in licences(told.get("origin", ()))
        if words != layout.licence
    )
    if inplace != layout.inplace_abn:
        meant, usual = (AS_INPLACE_ABN, AS_PLAIN)[:: 1 if inplace else -1]
        notes += (f"not stored: {meant}; for its readers {usual}",)
    if preprocess:
        notes += normalisation.not_stored(preprocess, layout, config.num_classes, folder=folder)
    if folder:
        assert isinstance(config, models.SegFormerConfig)  # the format stores no other
        labels = labels or LabelSet.generic(config.num_classes)
        if config.num_classes == 1:  # an output has a name there, so one alone is the foreground's
            labels = LabelSet(labels.name, labels.classes[-1:], labels.palette[-1:])
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


def _one_output_model(model: models.Model) -> models.Model:
    """The network of two classes as the one of one output that a file came with."""
    arrays = one_output.to_one_output(native.state_dict(model), model.config)
    config = one_output.with_classes(model.config, 1)
    return native.fill(models.abstract_model(config), arrays)


def _in_layout(
    model: models.Model, layout: Format, own: Report | None, inplace_abn: bool
) -> dict[str, np.ndarray]:
    """The tensors as a layout stores them; with the keys of the file that the network came in."""
    spares = {key: np.asarray(tensor) for key, tensor in own.spares.items()} if own else {}
    state = layout.export_state(model, spares)
    state = inplace_weights(state, spares) if inplace_abn else state
    needed = state.keys() - layout.table(model).spares.keys()
    if own is None or not needed <= set(own.keys):
        return state
    return {key: state[key] for key in own.keys if key in state}


def check_values(arrays: Mapping[str, Tensor], allow_nonfinite: bool = False) -> None:
    """Refuses what cannot be weights.

    Raises:
        CheckpointError: names all tensors with NaN, infinite or complex values.
    """
    odd = [
        f"{key} ({a.dtype})" for key, a in arrays.items() if np.dtype(a.dtype).kind not in "fiub"
    ]
    if odd:
        raise CheckpointError(f"{len(odd)} tensors hold no real numbers: {', '.join(odd[:10])}")
    floats = {key: a for key, a in arrays.items() if np.dtype(a.dtype).kind == "f"}
    bad = [key for key, a in floats.items() if not np.isfinite(np.asarray(a)).all()]
    if bad and not allow_nonfinite:
        raise CheckpointError(
            f"{len(bad)} tensors hold NaN or infinite values: {', '.join(bad[:10])}; the training "
            "diverged or the file is damaged; flaxseg convert import --allow-nonfinite imports it "
            "all the same"
        )


def _is_native(place: Place, format: str | None) -> bool:
    return format == NATIVE or (format is None and is_model_directory(place.path))


def _native_report(
    place: Place, header: Header, model: str | None, num_classes: int | None
) -> Report:
    """Of a model directory, if that is the network that was asked for."""
    config = header.config
    name = models.name_of(config)
    if model not in (None, name):
        raise ConfigError(f"{place.name} holds {name}, not {model}: leave the network's name out")
    if num_classes not in (None, config.num_classes):
        raise ConfigError(
            f"{place.name} has {config.num_classes} classes, not {num_classes}: convert the file "
            "that it was made from once more, with another number of classes"
        )
    return Report(
        place.name,
        NATIVE,
        "flaxseg.save",
        name,
        config,
        header.labels,
        len(native.leaves(models.abstract_model(config))),
        {},
        preprocess=header.preprocess,
        chain=header.origin,
        temperature=header.temperature,
    )


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


class Matched(NamedTuple):
    """A file's tensors under native keys, and what became of the rest.

    Attributes:
        arrays: native key -> tensor in torch's axis order.
        used: how many tensors of the file these are.
        left_out: key -> why nothing is lost without it.
        spares: what `Report.spares` says.
        keys: those of the layout that the file has, in its order.
        fresh: native keys that it cannot give.
        notes: about these.
    """

    arrays: dict[str, Tensor]
    used: int
    left_out: dict[str, str]
    spares: dict[str, np.ndarray]
    keys: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def match(
    layout: Format,
    table: Table,
    tensors: Mapping[str, Tensor],
    architecture: str,
    *,
    inplace_abn: bool = False,
    any_channels: bool = False,
    allow_nonfinite: bool = False,
) -> Matched:
    """A file's tensors under native keys, by the table of its network in its layout.

    Args:
        layout: of the file.
        table: of the network.
        tensors: the file's, by its own keys.
        architecture: of the network.
        inplace_abn: its norms are InPlaceABN layers.
        any_channels: a first layer for other images than those of three channels is left out.
        allow_nonfinite: take NaN and infinite weights too.

    Raises:
        CheckpointError: keys, shapes, values or dtypes that do not fit, all of them named.
    """
    left_out = find_strays(tensors, table)
    stored = {key: tensor for key, tensor in tensors.items() if key not in left_out}
    check_values(stored, allow_nonfinite)
    fresh, notes = (), ()
    channels = channels_in(stored, table, architecture)
    if any_channels and channels != CHANNELS:
        stored, table, fresh = without_first_layer(stored, table, architecture)
        notes = (f"it takes {channels} channels, this network {CHANNELS}: another first layer",)
    check_channels(CHANNELS if any_channels else channels)
    arrays = layout.to_native(table, plain_weights(stored) if inplace_abn else stored)
    odd = [key for key, a in arrays.items() if np.dtype(a.dtype).kind != "f"]
    if odd:
        raise CheckpointError(
            f"{len(odd)} weights are no floating-point numbers: {', '.join(odd[:10])}; quantised "
            "files must be turned back into float32 by their own program"
        )
    # Read now: they outlive the file, which may change.
    spares = {key: np.asarray(stored[key]) for key in stored if key in table.spares}
    used = len(stored) - len(spares)
    left_out |= {key: table.spares[key].reason for key in spares}
    if inplace_abn:
        spares |= {key: np.asarray(stored[key]) for key in norm_weights(stored)}
    return Matched(arrays, used, left_out, spares, tuple(stored), fresh, notes)


def translate(
    checkpoint: Checkpoint,
    found: Recognition,
    *,
    num_classes: int | None = None,
    inplace_abn: bool | None = None,
    any_channels: bool = False,
    allow_nonfinite: bool = False,
) -> Native:
    """A recognised checkpoint's tensors under native keys.

    Args:
        checkpoint: what was read, unwrapped.
        found: what it is.
        num_classes: that are wanted; one output becomes two classes if they are, or if it is None.
        inplace_abn: its norms are InPlaceABN layers; None goes by the layout.
        any_channels: as `match` has it.
        allow_nonfinite: take NaN and infinite weights too.

    Raises:
        CheckpointError: keys, shapes, values or dtypes that do not fit, all of them named.
    """
    layout, config = found.format, found.config
    matched = match(
        layout,
        layout.table(models.abstract_model(config)),
        checkpoint.arrays,
        models.architecture_of(config),
        inplace_abn=layout.inplace_abn if inplace_abn is None else inplace_abn,
        any_channels=any_channels,
        allow_nonfinite=allow_nonfinite,
    )
    arrays, notes = matched.arrays, matched.notes
    sigmoid = config.num_classes == 1 and num_classes in (None, 2)
    if sigmoid:
        arrays = one_output.to_two_classes(arrays, config)
        config = one_output.with_classes(config, 2)
        notes += (one_output.NOTE,)
    labels, named = class_names.from_checkpoint(checkpoint, config.num_classes, one_output=sigmoid)
    preprocess, assumed = normalisation.from_checkpoint(checkpoint, layout, config.num_classes)
    norms, said = _norms(layout, inplace_abn)
    notes += named + said
    if found.alternatives:
        others = ", ".join(found.alternatives)
        notes += (f"the file fits {others} just as well: --model or --format chooses",)
    report = Report(
        checkpoint.source,
        layout.name,
        layout.origin,
        found.model_name,
        config,
        labels,
        matched.used,
        matched.left_out,
        fresh=matched.fresh,
        notes=notes,
        assumed=norms + assumed,
        dtypes=checkpoint.content.dtypes,
        taken_off=checkpoint.content.wrappers,
        others=tuple(getattr(checkpoint.content, "others", ())),
        spares=matched.spares,
        keys=matched.keys,
        inplace_abn=layout.inplace_abn if inplace_abn is None else inplace_abn,
        one_output=sigmoid,
        preprocess=preprocess,
        chain=origin_of(checkpoint, layout),
    )
    return Native(arrays, report)


def _norms(layout: Format, inplace_abn: bool | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is assumed about the norms, and what was told."""
    if inplace_abn is None:
        assumed = f"{AS_INPLACE_ABN}, as its authors'; --plain-norms for plain ones"
        return ((assumed,) if layout.inplace_abn else ()), ()
    if inplace_abn:
        return (), (f"{AS_INPLACE_ABN}: --inplace-abn",)
    return (), (f"{AS_PLAIN}: --plain-norms",)


def _with_classes(arrays: dict[str, Tensor], report: Report, num_classes: int) -> Native:
    """With classifiers for another number of classes, started anew."""
    config = models.override(report.config, {"num_classes": num_classes})
    leaves = native.leaves(models.abstract_model(config))
    fresh = tuple(key for key, shape in leaves.items() if arrays[key].shape != shape)
    start = native.state_dict(models.fresh_model(config, rngs=nnx.Rngs(SEED)))
    arrays = arrays | {key: start[key] for key in fresh}
    notes = (*report.notes, f"{report.config.num_classes} classes in the file, {num_classes} here")
    changes: dict[str, Any] = {"config": config, "fresh": fresh, "notes": notes, "spares": {}}
    changes["labels"] = LabelSet.generic(num_classes)
    changes["used"] = report.used - len(fresh)
    return Native(arrays, dataclasses.replace(report, **changes))
