"""Recipes: who has which, that each fits its network, and the published numbers."""

import pytest

from flaxseg import cli
from flaxseg.data import list_datasets
from flaxseg.errors import ConfigError
from flaxseg.models import get_config, list_models
from flaxseg.training import RECIPES, TrainConfig, make_config
from flaxseg.training.optim import check_combinations
from flaxseg.training.recipes import NAMED

EVERY = [(name, model) for name, recipes in NAMED.items() for model in recipes]


def chosen(config, expected):
    return {name: getattr(config, name) for name in expected}


def test_every_recipe_fits_its_network():
    for name, model in EVERY:
        config = make_config(model, recipe=name)
        check_combinations(config)
        assert config.data in list_datasets()
        network = get_config(model).with_image_size(config.image_size)
        network.check_size(config.image_size)


def test_every_network_has_a_recipe_for_every_kind_of_data():
    for model in list_models():
        make_config(model, "camvid")
    for name in ("ade20k", "cityscapes", "camvid"):
        assert set(NAMED[name]) == set(list_models()) - {"vitseg"}
    assert set(NAMED["pets"]) == set(list_models())
    assert set(RECIPES) == {"default", "tutorial", "ade20k", "cityscapes", "camvid", "pets"}


CAMVID = {
    "data": "camvid", "resize": "stretch", "scale": (1.0, 1.0), "hflip": 0.5, "vflip": 0.5,
    "jitter": 0.0, "optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0,
    "epochs": 100, "steps": None, "warmup_epochs": 0.0, "warmup_steps": None,
    "metrics": ("accuracy_of_all",), "train_accuracy": True,
}  # fmt: skip
FALL = {"schedule": "linear", "schedule_by": "epoch", "schedule_epochs": 74, "min_lr": 0.05}
SEGFORMER = {
    "optimizer": "adamw", "lr": 6e-5, "betas": (0.9, 0.999), "weight_decay": 0.01,
    "no_decay": ("layer_norm",), "head_lr": 10.0, "warmup": "linear", "warmup_steps": 1500,
    "warmup_ratio": 1e-6, "after_warmup": False, "schedule": "poly", "power": 1.0, "min_lr": 0.0,
    "steps": 160_000, "scale": (0.5, 2.0), "scale_law": "uniform", "resize": "crop",
    "cat_max_ratio": 0.75, "color": "photometric", "loss_average": "all",
}  # fmt: skip
POLY = {"optimizer": "sgd", "momentum": 0.9, "schedule": "poly", "power": 0.9}
PUBLISHED = [
    ("ccnet", "tutorial", {
        **CAMVID, "batch_size": 8, "image_size": (224, 224), "eval_size": (224, 224),
        "schedule": "step", "step_size": 50, "gamma": 0.5,
    }),
    ("setr", "tutorial", {
        **CAMVID, **FALL, "batch_size": 4, "image_size": (256, 256), "eval_size": (256, 256),
        "swa_start": 75, "swa_every": 1, "swa_lr": 0.05, "eval_every": 5,
    }),
    ("bisenetv2_matmul", "tutorial", {
        **CAMVID, **FALL, "batch_size": 16, "image_size": (448, 448), "swa_start": None,
    }),
    ("vitseg", "pets", {
        "data": "pets", "image_size": (128, 128), "batch_size": 64, "epochs": 50, "lr": 4e-4,
        "optimizer": "adam", "weight_decay": 0.0, "schedule": "step", "step_size": 12,
        "gamma": 0.8, "hflip": 0.5, "vflip": 0.0, "resize": "stretch", "jitter": 0.3,
        "color": "contrast", "interpolation": "nearest", "mean": (0, 0, 0), "std": (1, 1, 1),
        "metrics": ("micro_iou:background", "soft_iou"),
    }),
    ("segformer_b2", "ade20k", {
        **SEGFORMER, "batch_size": 16, "image_size": (512, 512), "base_size": (2048, 512),
        "eval_base_size": (2048, 512), "eval_multiple": 32, "eval_window": None,
    }),
    ("segformer_b5", "ade20k", {
        **SEGFORMER, "batch_size": 16, "image_size": (640, 640), "eval_base_size": (2560, 640),
    }),
    ("segformer_b5_mmseg", "ade20k", {**SEGFORMER, "image_size": (512, 512)}),
    ("segformer_b2_hf", "cityscapes", {
        **SEGFORMER, "batch_size": 8, "image_size": (1024, 1024), "eval_base_size": None,
        "eval_window": (1024, 1024), "eval_stride": (768, 768),
    }),
    ("ccnet_r50", "ade20k", {
        **POLY, "lr": 0.01, "weight_decay": 5e-4, "min_lr": 1e-4, "steps": 160_000,
        "batch_size": 16, "image_size": (512, 512), "head_lr": 1.0,
    }),
    ("ccnet_r101", "cityscapes", {
        **POLY, "lr": 0.01, "weight_decay": 5e-4, "min_lr": 1e-4, "steps": 80_000, "batch_size": 8,
        "image_size": (512, 1024),
    }),
    ("ccnet_r101_original", "cityscapes", {
        **POLY, "lr": 0.01, "weight_decay": 1e-4, "min_lr": 0.0, "steps": 60_000, "batch_size": 8,
        "image_size": (769, 769), "channels": "bgr", "std": (1 / 255, 1 / 255, 1 / 255),
        "mean": (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
    }),
    ("setr_naive", "ade20k", {
        **POLY, "lr": 0.01, "weight_decay": 0.0, "head_lr": 10.0, "min_lr": 1e-4,
        "steps": 160_000, "batch_size": 16, "image_size": (512, 512),
        "eval_base_size": (2048, 512), "eval_window": (512, 512), "eval_stride": (341, 341),
    }),
    ("setr_mla_original", "ade20k", {**POLY, "lr": 0.001, "head_lr": 10.0, "batch_size": 16}),
    ("setr_mla_cityscapes", "cityscapes", {
        **POLY, "lr": 0.002, "head_lr": 10.0, "steps": 80_000, "batch_size": 8,
        "image_size": (768, 768), "eval_window": (768, 768), "eval_stride": (512, 512),
    }),
    ("setr_pup_cityscapes", "camvid", {"eval_window": None, "eval_stride": None}),
    ("setr_pup", "pets", {"eval_window": None, "eval_base_size": None, "base_size": None}),
    ("bisenetv2", "cityscapes", {"image_size": (512, 1024), "eval_base_size": (1024, 512)}),
    ("bisenetv2", "camvid", {"image_size": (704, 960), "eval_base_size": None}),
    ("bisenetv2_mmseg", "cityscapes", {
        **POLY, "lr": 0.05, "weight_decay": 5e-4, "min_lr": 1e-4, "warmup": "linear",
        "warmup_steps": 1000, "warmup_ratio": 0.1, "steps": 160_000, "batch_size": 16,
        "image_size": (1024, 1024),
    }),
    ("bisenetv2_coincheung", "cityscapes", {
        **POLY, "lr": 5e-3, "weight_decay": 5e-4, "min_lr": 0.0, "warmup": "exponential",
        "warmup_steps": 1000, "warmup_ratio": 0.1, "after_warmup": True, "head_lr": 10.0,
        "no_decay": ("layer_norm", "batch_norm", "bias"), "steps": 150_000, "batch_size": 16,
        "image_size": (512, 1024), "scale": (0.25, 2.0), "color": "jitter", "jitter": 0.4,
        "loss": ("ohem",), "loss_average": "valid",
    }),
    ("bisenetv2_coincheung", "ade20k", {"weight_decay": 1e-4, "steps": 160_000}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "recipe", "expected"), PUBLISHED)
def test_published_numbers(model, recipe, expected):
    assert chosen(make_config(model, recipe=recipe), expected) == expected


def test_recipe_brings_its_data_unless_another_is_named():
    assert make_config("segformer_b0", recipe="ade20k").data == "ade20k"
    config = make_config("segformer_b0", "camvid", "ade20k")
    assert (config.data, config.image_size) == ("camvid", (512, 512))
    assert str(config.directory) == "runs/segformer_b0-camvid-ade20k"
    assert str(make_config("segformer_b0", recipe="ade20k").directory) == "runs/segformer_b0-ade20k"


def test_missing_recipe_lists_those_that_the_network_has():
    with pytest.raises(
        ConfigError, match="--model vitseg, only .*; vitseg has default and tutoria"
    ):
        make_config("vitseg", recipe="cityscapes")
    with pytest.raises(ConfigError, match="no network is called 'ccnat'; did you mean ccnet"):
        make_config("ccnat", recipe="cityscapes")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accumulate": 3}, "--accumulate is 3, which does not divide --batch-size 8"),
        ({"nesterov": True, "momentum": 0.0}, "--nesterov needs --momentum above 0"),
        ({"schedule": "multistep"}, "--schedule multistep needs --milestones"),
        ({"ema": 0.9, "swa_start": 1}, "--ema and --swa-start are two averages"),
        ({"swa_lr": 0.1}, "--swa-lr needs --swa-start"),
        ({"swa_start": 4}, "--swa-start is 4, it must be below --epochs 4"),
        ({"min_lr": 1.0}, "--min-lr is 1.0, above --lr 0.05"),
    ],
)
def test_settings_that_do_not_go_together(fields, message):
    with pytest.raises(ConfigError, match=message):
        check_combinations(make_config(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"milestones": (3, 2)}, "--milestones is 3 2, it must be rising numbers of epochs"),
        ({"milestones": ()}, "--milestones is empty, it must be rising"),
        ({"no_decay": ("norm",)}, "--no-decay is ..norm.,., it must be of type"),
        ({"betas": (0.9, 1.0)}, "--betas is 0.9 1.0, it must be from 0 to below 1"),
        ({"ema": 1.0}, "--ema is 1.0, it must be above 0 and below 1"),
        ({"layer_decay": 0.0}, "--layer-decay is 0.0, it must be above 0 and at most 1"),
        ({"warmup_ratio": 0.0}, "--warmup-ratio is 0.0, it must be above 0"),
    ],
)
def test_names_what_does_not_fit(fields, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**fields)


def test_command_lists_them(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in NAMED) and "setr_naive_cityscapes" in text
    assert "…" not in text
    assert cli.main(["recipes", "--model", "segformer_b1"]) == 0
    text = capsys.readouterr().out
    assert "--warmup-steps 1500" in text and "--init FILE" in text
    assert cli.main(["recipes", "--model", "segformer_c1"]) == 2
    assert "did you mean segformer_b1" in capsys.readouterr().err


def test_command_shows_the_groups(capsys):
    args = "groups --model vitseg --override depth=1 --optimizer adamw --layer-decay 0.5"
    assert cli.main(args.split()) == 0
    text = capsys.readouterr().out
    assert "layer norm" in text and "encoder blocks" in text and "0.25" in text


def test_training_tells_what_the_recipe_starts_from(capsys, monkeypatch):
    configs = []
    monkeypatch.setattr("flaxseg.training.fit", lambda config, reader: configs.append(config))
    assert cli.main("train --model segformer_b0 --recipe ade20k".split()) == 0
    assert "starts from the encoder of the same size" in capsys.readouterr().out
    assert cli.main("train --model ccnet --recipe tutorial".split()) == 0
    assert capsys.readouterr().out == ""
    assert [config.data for config in configs] == ["ade20k", "camvid"]


def test_config_of_an_earlier_version_is_the_same_run():
    """Of a work directory without the settings of groups, averages and parts."""
    config = make_config("setr_pup", "camvid", lr=0.2, schedule="step", warmup_epochs=1.0)
    new = {
        "no_decay", "head_lr", "layer_decay", "clip_grad", "accumulate", "nesterov", "betas",
        "min_lr", "schedule_epochs", "schedule_by", "warmup", "warmup_steps", "warmup_ratio",
        "after_warmup", "milestones", "ema", "swa_start", "swa_every", "swa_lr", "config",
        "compile_cache", "cache_dir",
    }  # fmt: skip
    old = {name: value for name, value in config.to_json().items() if name not in new}
    assert TrainConfig.from_json(old) == config


def test_length_in_epochs_takes_the_place_of_the_recipes_steps(tmp_path):
    config = make_config("segformer_b0", recipe="ade20k", epochs=7)
    assert (config.epochs, config.steps, config.warmup_steps) == (7, None, 1500)
    (tmp_path / "c.yaml").write_text("warmup_epochs: 2\n")
    args = f"--model segformer_b0 --recipe ade20k --epochs=7 --config {tmp_path / 'c.yaml'}"
    config = cli.parse_train_config(args.split())
    assert (config.epochs, config.steps, config.warmup_epochs) == (7, None, 2)
    assert config.warmup_steps is None
    assert cli.parse_train_config([*args.split(), "--steps", "9"]).steps == 9
