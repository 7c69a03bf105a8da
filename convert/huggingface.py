"""Hugging Face folders: `model.safetensors` beside the `config.json` that transformers reads."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from convert.io import write
from flaxseg.errors import CheckpointError
from flaxseg.labels import IGNORE, LabelSet
from flaxseg.models import SegFormerConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def write_folder(
    folder: str | os.PathLike,
    state: Mapping[str, np.ndarray],
    config: SegFormerConfig,
    labels: LabelSet,
) -> None:
    """Writes a folder for `SegformerForSemanticSegmentation.from_pretrained`.

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
        values = json.dumps(to_json(config, labels), indent=2)
        (staging / CONFIG_FILE).write_text(values + "\n", encoding="utf-8")
        staging.rename(target)
    except (OSError, safetensors.SafetensorError) as error:
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
