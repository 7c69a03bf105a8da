import subprocess
import sys
from pathlib import Path

import pytest

from flaxseg import cli
from flaxseg.errors import ConfigError
from flaxseg.training import make_config

ROOT = Path(__file__).parents[2]


def error_of(capsys, *args):
    """The one line on standard error of a command that ends with 2."""
    assert cli.main(list(args)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_flags_override_the_recipe_they_name():
    args = "--epochs 7 --recipe tutorial --data=camvid --image-size 96 128 --no-check-labels"
    config = cli.parse_train_config(args.split())
    expected = make_config(
        "ccnet", "camvid", "tutorial", epochs=7, image_size=(96, 128), check_labels=False
    )
    assert config == expected


def test_every_field_is_a_flag(tmp_path):
    (tmp_path / "c").write_text("")
    args = (
        "--on-bad-sample skip --missing-mask skip --max-pixels 99 "
        "--model ccnet_r50 --data camvid --data-dir D --workdir W --limit 3 --epochs 2 --steps 9 "
        "--batch-size 4 --image-size 8 9 --lr 0.2 --momentum 0.5 --weight-decay 0.1 "
        "--optimizer adamw --schedule step --warmup-epochs 1.5 --step-size 2 --gamma 0.3 --power 2 "
        "--resize stretch --scale 1 3 --hflip 0.1 --vflip 0.2 --jitter 0.4 --eval-size 5 6 "
        "--scale-law uniform --base-size 7 6 --cat-max-ratio 0.75 --rare-crop 0.3 --rotation 9 "
        "--interpolation nearest --color photometric --loader-threads 3 "
        "--keep-decoded 1.5 --mean 0 0.1 0.2 --std 1 2 3 --channels bgr "
        "--eval-batch-size 2 --eval-every 3 --log-every 4 --checkpoint-every 1 --seed 5 "
        "--dtype bfloat16 --matmul-precision high --init I --freeze encoder --devices 1 "
        "--override channels=64 backbone.width=16 "
        "--nesterov --betas 0.8 0.9 --no-decay bias position --head-lr 10 "
        "--layer-decay 0.9 --clip-grad 1 --accumulate 2 --min-lr 0.01 --schedule-epochs 3 "
        "--schedule-by epoch --warmup exponential --warmup-steps 5 --warmup-ratio 0.1 "
        "--after-warmup --milestones 1 2 --ema 0.9 --swa-start 1 --swa-every 2 --swa-lr 0.1 "
        f"--no-compile-cache --cache-dir X --config {tmp_path / 'c'} "
        "--loss ohem=2 dice --aux-loss focal --aux-weight 0.3 --class-weights auto "
        "--label-smoothing 0.1 --loss-average all --ohem-threshold None --ohem-min-kept 9 "
        "--focal-gamma 3 --loss-per-image --loss-align-corners --wandb P "
        "--eval-base-size 9 8 --eval-multiple 4 --eval-window 4 4 --eval-stride 3 3 --eval-canvas "
        "--metrics soft_iou micro_iou:tree --train-accuracy "
        "--patience 2 --hours 1.5 "
        "--max-steps 8 --allow-changes --flip-pairs a=b --log-samples --fsdp 2 --distributed off "
        "--coordinator h:1 --num-processes 2 --process-id 1"
    )
    config = cli.parse_train_config(args.split())
    assert config.override == ("channels=64", "backbone.width=16")
    assert (config.loss, config.aux_weight) == (("ohem=2", "dice"), (0.3,))
    assert (config.scale, config.eval_size, config.power) == ((1.0, 3.0), (5, 6), 2.0)
    default = make_config("ccnet_r50", "camvid")
    unchanged = {"recipe", "check_labels"}
    assert {
        name for name, value in vars(config).items() if value == getattr(default, name)
    } == unchanged | {"model", "data"}


def test_help_shows_units_and_the_defaults_of_the_recipe(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--recipe", "tutorial", "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Peak learning rate. (default: 0.1)" in text
    assert "Height and width of the training images, in pixels. (default: 224 224)" in text
    assert "Minutes between two checkpoints" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("train --lr=-1", "--lr is -1.0, it must be above 0"),
        ("train --recipe turorial", "--recipe 'turorial' is unknown; did you mean tutorial?"),
        ("train --model ccnat --workdir {}", "no network is called 'ccnat'; did you mean ccnet"),
        (
            "train --data shopes --workdir {}",
            "no data set is called 'shopes'; did you mean shapes",
        ),
        ("train --lerning-rate 1", "Unrecognized options: --lerning-rate, 1"),
        ("train --schedule poli", "invalid choice 'poli' for argument '--schedule'"),
        ("train --batch-size many", "many"),
        ("train --devices 2 --batch-size 3 --workdir {}", "which 2 devices cannot share equally"),
        ("train --devices 2 --fsdp 3 --workdir {}", "--fsdp is 3, of 2 devices it can be 1, 2"),
        ("train --process-id 1", "--process-id needs --coordinator and --num-processes too"),
        (
            "fit",
            "unknown command 'fit': use one of train, plan, bench, data, predict",
        ),
        ("predict {}/none photo.jpg", "w/none does not exist: give the work directory"),
        ("eval {}/none", "w/none does not exist: give the work directory"),
        ("predict", "MODEL"),
        ("train --data camvid --data-dir {0}/none --workdir {0}", "/w/none"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(args, message, capsys, tmp_path):
    assert message in error_of(capsys, *args.format(tmp_path / "w").split())
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_it_lists_them(capsys):
    assert cli.main([]) == 2
    usage = capsys.readouterr().out
    assert all(f"\n  {name}" in usage for name in ("train", "predict", "eval"))
    assert cli.main(["--help"]) == 0


def test_unwritable_place_is_no_traceback(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    line = error_of(capsys, "train", "--workdir", str(tmp_path / "file"))
    path = tmp_path / "file"
    assert line == f"--workdir {path}: {path} is a file, choose another folder"


@pytest.mark.parametrize("content", ["", "null", "{]"])
@pytest.mark.parametrize("command", ["train --workdir", "eval"])
def test_damaged_config_is_named(command, content, capsys, tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model/config.json", "model/model.safetensors"):
        (tmp_path / name).write_text(content)
    assert str(tmp_path / "config.json") in error_of(capsys, *command.split(), str(tmp_path))


def test_ctrl_c_ends_with_130(capsys, monkeypatch):
    def interrupt(args, prog):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "train", interrupt)
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_process_ends_at_once_after_ctrl_c():
    """JAX crashes at the end of an interpreter in which a compilation was interrupted."""
    script = """
import atexit, sys
from flaxseg import cli
def interrupt(args, prog):
    print("half a line", end="")
    raise KeyboardInterrupt
atexit.register(print, "the interpreter ends")
cli.COMMANDS["train"] = interrupt
sys.argv = ["flaxseg", "train"]
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    found = (ended.returncode, ended.stdout, ended.stderr)
    assert found == (130, "half a line", "error: interrupted\n")


def test_config_error_inside_a_command_has_no_traceback(capsys, monkeypatch):
    def fail(args, prog):
        raise ConfigError("two\nlines")

    monkeypatch.setitem(cli.COMMANDS, "train", fail)
    assert error_of(capsys, "train") == "two lines"


def test_train_py_is_the_train_command():
    command = [sys.executable, "train.py", "--lr", "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert ended.stderr == "error: --lr is 0.0, it must be above 0\n"


def test_no_flag_at_all_is_the_default_training():
    assert cli.parse_train_config([]) == cli.parse_train_config(["--model", "ccnet"])
