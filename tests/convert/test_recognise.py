"""Every published checkpoint is told by its keys and shapes."""

import pytest

from convert.parity import goldens
from convert.recognise import identify
from flaxseg.errors import CheckpointError, ConfigError

PUBLISHED = {
    "coincheung_bisenetv2": ("coincheung", "bisenetv2_coincheung", 19),
    "fudan_setr_naive_512": ("original", "setr_naive_original", 150),
    "fudan_setr_pup_512": ("original", "setr_pup_original", 150),
    "hf5_segformer_b0": ("huggingface5", "segformer_b0_hf", 150),
    "hf_segformer_b0": ("huggingface", "segformer_b0_hf", 150),
    "hf_segformer_b3": ("huggingface", "segformer_b3_hf", 150),
    "mmseg_bisenetv2": ("mmseg", "bisenetv2_mmseg", 19),
    "mmseg_ccnet_r101-d8": ("mmseg", "ccnet_r101", 19),
    "mmseg_ccnet_r50-d8": ("mmseg", "ccnet_r50", 19),
    "mmseg_segformer_b0": ("mmseg", "segformer_b0_mmseg", 150),
    "mmseg_segformer_b1": ("mmseg", "segformer_b1_mmseg", 19),
    "mmseg_setr_naive": ("mmseg", "setr_naive", 150),
    "mmseg_setr_pup_cityscapes": ("mmseg", "setr_pup_cityscapes", 19),
    "notebook_vit_pets": ("notebook", "vitseg", 3),
    "nvlabs_segformer_b1": ("nvlabs", "segformer_b1", 150),
    "nvlabs_segformer_b4": ("nvlabs", "segformer_b4", 19),
    "original_ccnet_r101": ("original", "ccnet_r101_original", 19),
    "tutorial_bisenetv2": ("tutorial", "bisenetv2_matmul", 33),
    "tutorial_ccnet": ("tutorial", "ccnet", 33),
    "tutorial_segformer_b0": ("tutorial", "segformer", 19),
}
ENCODERS = ("hf_mit_b0", "timm_vit_base_patch16_384", "torchvision_resnet50")


def shapes(name):
    return dict(goldens.load_keys(name).shapes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(name):
    found = identify(shapes(name))
    assert (found.format.name, found.model_name, found.config.num_classes) == PUBLISHED[name]


def test_sizes_that_no_variant_has():
    found = identify(shapes("tutorial_segformer_b2"))
    assert found.config.backbone.depths == (3, 4, 6, 3) and found.config.channels == 768
    found = identify(shapes("fudan_setr_naive"))
    assert found.config.backbone.image_size == (192, 192)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_alone(name):
    with pytest.raises(CheckpointError, match="holds an encoder alone .*train.py --init"):
        identify(shapes(name))


def test_what_fits_twice_is_said():
    assert identify(shapes("tutorial_bisenetv2")).alternatives == ("bisenetv2 (tutorial)",)
    assert identify(shapes("tutorial_segformer_b0")).alternatives == ("segformer_b0 (nvlabs)",)
    assert identify(shapes("nvlabs_segformer_b0")).alternatives == ()


def test_the_user_chooses():
    found = identify(shapes("tutorial_bisenetv2"), model="bisenetv2")
    assert found.config.fusion == "sum" and found.config.num_classes == 33
    found = identify(shapes("tutorial_segformer_b0"), origin="nvlabs")
    assert found.model_name == "segformer_b0"


def test_without_auxiliary_heads():
    kept = {k: s for k, s in shapes("coincheung_bisenetv2").items() if not k.startswith("aux")}
    found = identify(kept)
    assert found.format.name == "coincheung" and found.config.aux_channels == ()
    kept = {k: s for k, s in shapes("mmseg_ccnet_r50-d8").items() if "auxiliary" not in k}
    assert identify(kept).config.aux_channels == 0


def test_a_damaged_file_is_still_told():
    found = shapes("mmseg_segformer_b0")
    del found["decode_head.conv_seg.bias"]
    found["decode_head.conv_seg.weights"] = (150,)
    assert identify(found).format.name == "mmseg"


def test_strangers():
    with pytest.raises(CheckpointError, match="none of the known formats .* keys: a, b"):
        identify({"a": (1,), "b": (2,)})
    with pytest.raises(CheckpointError, match="none of the known formats"):
        identify({})


def test_unknown_names():
    with pytest.raises(ConfigError, match="no format is called 'mmsegg', expected one of coin"):
        identify(shapes("tutorial_ccnet"), origin="mmsegg")
    with pytest.raises(ConfigError, match="no format nvlabs stores ccnet"):
        identify(shapes("tutorial_ccnet"), origin="nvlabs", model="ccnet")
