"""Hugging Face folders: `model.safetensors` beside the `config.json` that transformers reads."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.io import write
from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.models import SegFormerConfig
from flaxseg.preprocess import Preprocess

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
WEIGHTS_FILE = "model.safetensors"


def write_folder(
    folder: str | os.PathLike,
    state: Mapping[str, np.ndarray],
    config: SegFormerConfig,
    labels: LabelSet,
    preprocess: Preprocess,
) -> None:
    """Writes a folder for `from_pretrained` of `SegformerForSemanticSegmentation` and, without the
    order of channels, of `SegformerImageProcessor`.

    Raises:
        CheckpointError: something is there already, or the place cannot be written; nothing is
            left behind.
    """
    target = Path(folder).absolute()
    if target.exists():
        raise CheckpointError(f"{folder} exists: choose another folder or remove it")
    staging = target.with_name(f".{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        write(staging / WEIGHTS_FILE, state)
        files = {CONFIG_FILE: to_json(config, labels), PREPROCESSOR_FILE: processor(preprocess)}
        for name, values in files.items():
            text = json.dumps(values, indent=2)
            (staging / name).write_text(text + "\n", encoding="utf-8")
        staging.rename(target)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error})") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def to_json(config: SegFormerConfig, labels: LabelSet) -> dict[str, Any]:
    """The network as transformers' SegformerConfig."""
    encoder = config.backbone
    stages = len(encoder.widths)
    names = dict(enumerate(labels.classes))
    return {
        "architectures": ["SegformerForSemanticSegmentation"],
        "model_type": "segformer",
        "num_channels": 3,
        "num_encoder_blocks": stages,
        "depths": list(encoder.depths),
        "hidden_sizes": list(encoder.widths),
        "num_attention_heads": list(encoder.heads),
        "sr_ratios": list(encoder.reductions),
        "mlp_ratios": [encoder.mlp_ratio] * stages,
        "patch_sizes": [7, *[3] * (stages - 1)],
        "strides": [4, *[2] * (stages - 1)],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": config.dropout,
        "drop_path_rate": encoder.drop_path,
        "decoder_hidden_size": config.channels,
        "semantic_loss_ignore_index": IGNORE,
        "reshape_last_stage": True,
        "id2label": {str(index): name for index, name in names.items()},
        "label2id": {name: index for index, name in names.items()},
    }


def processor(preprocess: Preprocess) -> dict[str, Any]:
    """The normalisation as transformers' SegformerImageProcessor; sizes are left to its defaults.

    It knows no other order of channels than red, green, blue.
    """
    return {
        "image_processor_type": "SegformerImageProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def to_preprocess(values: Mapping[str, Any]) -> Preprocess:
    """The normalisation that an image processor of transformers does.

    Args:
        values: of `preprocessor_config.json`. What it does not say is as SegFormer's does it.

    Raises:
        CheckpointError: mean or standard deviation are not those of three channels.
    """
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if values.get("do_normalize", True):
        mean = values.get("image_mean") or Preprocess.mean
        std = values.get("image_std") or Preprocess.std
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    try:
        mean, std = (tuple(value / (255 * factor) for value in part) for part in (mean, std))
        return Preprocess(mean, std)
    except (TypeError, ZeroDivisionError, ConfigError) as error:
        raise CheckpointError(
            f"its {PREPROCESSOR_FILE} does not fit ({error}): put the one beside it that it was "
            "saved with"
        ) from None
