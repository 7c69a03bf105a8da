"""A file of every published layout, in the container in which its authors publish it.

Keys and shapes are the published ones where the goldens hold them, else those of the layout's own
table; the numbers are made by the goldens' rule. Names and places are those of the originals.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from convert.formats import Format
from convert.parity import golden_rule, goldens
from flaxseg import models
from flaxseg.data import known_labels

State = dict[str, torch.Tensor]
Writer = Callable[[Path, State], None]
ADE20K, CITYSCAPES = "ade20k", "cityscapes"


class Published(NamedTuple):
    """How a layout reaches its users.

    Attributes:
        file: name of the file, or "hf:owner/name" of a repository on the hub.
        write: makes the file, or the folder, of the state dict.
        keys: name of the golden keys; None if there are none.
    """

    file: str
    write: Writer
    keys: str | None = None


def bare(path: Path, state: State) -> None:
    """`torch.save(model.state_dict(), …)`."""
    torch.save(state, path)


def bare_before_torch_1_6(path: Path, state: State) -> None:
    """The same, in the form that is no zip archive."""
    torch.save(state, path, _use_new_zipfile_serialization=False)


def mmcv(data: str) -> Writer:
    """mmcv's runner, trimmed by mmsegmentation's publish_model."""

    def write(path: Path, state: State) -> None:
        labels = known_labels(data)
        meta = {
            "env_info": "sys.platform: linux\nPython: 3.7.7",
            "mmseg_version": "0.5.0+b57fb2b",
            "config": "model = dict(\n    type='EncoderDecoder')\n",
            "CLASSES": labels.classes,
            "PALETTE": [list(color) for color in labels.palette],
            "epoch": 2,
            "iter": 160000,
        }
        content = {"meta": meta, "state_dict": state, "optimizer": None}
        torch.save(content, path, _use_new_zipfile_serialization=False)

    return write


def mmengine(path: Path, state: State) -> None:
    """mmengine's runner: mmsegmentation 1.x."""
    labels = known_labels(CITYSCAPES)
    dataset = {"classes": labels.classes, "palette": [list(color) for color in labels.palette]}
    meta = {"dataset_meta": dataset, "seed": 0, "experiment_name": "bisenetv2", "iter": 160000}
    torch.save({"meta": meta, "state_dict": state, "message_hub": {}}, path)


def huggingface(path: Path, state: State) -> None:
    """nvidia's repositories on the hub."""
    path.mkdir(parents=True)
    names = {str(number): name for number, name in enumerate(known_labels(ADE20K).classes)}
    config = {
        "architectures": ["SegformerForSemanticSegmentation"],
        "model_type": "segformer",
        "num_channels": 3,
        "num_encoder_blocks": 4,
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [32, 64, 160, 256],
        "num_attention_heads": [1, 2, 5, 8],
        "sr_ratios": [8, 4, 2, 1],
        "decoder_hidden_size": 256,
        "id2label": names,
        "label2id": {name: int(number) for number, name in names.items()},
        "torch_dtype": "float32",
        "transformers_version": "4.12.0.dev0",
    }
    processor = {
        "feature_extractor_type": "SegformerFeatureExtractor",
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "reduce_labels": True,
        "size": 512,
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    (path / "README.md").write_text("---\nlicense: other\n---\n")
    (path / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    torch.save(state, path / "pytorch_model.bin")


MMCV_ADE20K, MMCV_CITYSCAPES = mmcv(ADE20K), mmcv(CITYSCAPES)

PUBLISHED = {
    "mmseg ccnet": Published(
        "ccnet_r50-d8_512x1024_40k_cityscapes.pth", MMCV_CITYSCAPES, "mmseg_ccnet_r50-d8"
    ),
    "mmseg segformer": Published(
        "segformer_mit-b0_512x512_160k_ade20k.pth", MMCV_ADE20K, "mmseg_segformer_b0"
    ),
    "mmseg setr": Published(
        "setr_naive_512x512_160k_b16_ade20k.pth", MMCV_ADE20K, "mmseg_setr_naive"
    ),
    "mmseg bisenetv2": Published("bisenetv2_fcn_4x4_1024x1024.pth", mmengine, "mmseg_bisenetv2"),
    "nvlabs segformer": Published(
        "segformer.b0.512x512.ade.160k.pth", MMCV_ADE20K, "nvlabs_segformer_b0"
    ),
    "huggingface segformer": Published(
        "hf:nvidia/segformer-b0-finetuned-ade-512-512", huggingface, "hf_segformer_b0"
    ),
    "huggingface5 segformer": Published("segformer.pt", bare, "hf5_segformer_b0"),
    "original ccnet": Published(
        "CS_scenes_60000.pth", bare_before_torch_1_6, "original_ccnet_r101"
    ),
    "original setr": Published("SETR_Naive_ADE20k.pth", MMCV_ADE20K, "fudan_setr_naive_512"),
    "coincheung bisenetv2": Published("model_final_v2_city.pth", bare, "coincheung_bisenetv2"),
    "tutorial bisenetv2": Published("BiSeNetV2.pt", bare, "tutorial_bisenetv2"),
    "tutorial ccnet": Published("CCNet.pt", bare, "tutorial_ccnet"),
    "tutorial segformer": Published("segformer_b0.pt", bare, "tutorial_segformer_b0"),
    "tutorial setr": Published("SETR.pt", bare),
    "notebook vitseg": Published("vit_pets.pt", bare, "notebook_vit_pets"),
    "torchvision resnet": Published("resnet50-0676ba61.pth", bare, "torchvision_resnet50"),
    "huggingface mit": Published("mit-b0.bin", bare, "hf_mit_b0"),
    "timm vit": Published("vit_base_patch16_224.pth", bare, "timm_vit_base_patch16_224"),
}
"""Layout -> its file. Of encoders alone, that no picture can be made of, one for each origin."""


def write(published: Published, layout: Format, path: Path) -> None:
    """Makes the file or folder at a place."""
    if published.keys is None:
        model = models.abstract_model(models.get_config(layout.variants[0]))
        keys = golden_rule.Keys(layout.table(model).foreign_shapes, {})
    else:
        keys = goldens.load_keys(published.keys)
    tensors = {key: torch.from_numpy(a) for key, a in golden_rule.weights(keys).items()}
    state = OrderedDict((key, tensors[keys.twins.get(key, key)]) for key in tensors)
    published.write(path, _as_torch_makes_it(state))


def _as_torch_makes_it(state: OrderedDict[str, torch.Tensor]) -> Any:
    """With the versions of modules that `state_dict()` hangs on it."""
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return state
