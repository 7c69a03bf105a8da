"""`--batch-size auto`."""

import dataclasses
import json
import types

import jax
import pytest

from flaxseg import cli
from flaxseg.errors import ConfigError
from flaxseg.planning import DoesNotFit, choice
from flaxseg.planning.choice import choose_batch_size
from flaxseg.training import TrainConfig, make_config
from flaxseg.training.setup import Setup

MIB = 2**20
TINY = ("depth=1", "width=16", "num_heads=2", "mlp_dim=16", "dropout=0.0")


@pytest.fixture
def config(tmp_path):
    """A run on 96 small pictures and two devices."""
    return make_config(
        "vitseg",
        override=TINY,
        limit=96,
        devices=2,
        batch_size="auto",
        image_size=(32, 32),
        eval_size=(32, 32),
        workdir=str(tmp_path / "run"),
    )


@pytest.fixture
def memory(monkeypatch):
    """A machine of so many MiB, on which a step needs 10, and 3 for each image of a device."""

    def peak(blueprint, _):
        images = blueprint.config.images_per_step // blueprint.mesh.size
        return types.SimpleNamespace(peak=(10 + 3 * images) * MIB)

    def machine(mib):
        monkeypatch.setattr(choice, "_machine_memory", lambda: 2 * mib * MIB)  # two devices

    monkeypatch.setattr(choice, "compile_step", lambda *_: None)
    monkeypatch.setattr(choice.Memory, "of", peak)
    machine(100)
    return machine


@pytest.mark.parametrize(
    ("mib", "fields", "batch"),
    [
        (100, {}, 60),
        (99, {}, 58),
        (100, {"accumulate": 4}, 56),
        (13, {}, 2),
        (100, {"limit": 30}, 30),
        (100, {"limit": 31}, 30),
        (1000, {"accumulate": 5}, 90),
    ],
)
def test_the_most_images_that_fit(mib, fields, batch, config, memory):
    memory(mib)
    said = []
    chosen = choose_batch_size(dataclasses.replace(config, **fields), said.append)
    assert chosen == dataclasses.replace(config, **fields, batch_size=batch)
    (line,) = said
    assert line.startswith(f"--batch-size auto: {batch} images, 0.")
    assert line.endswith(f"--lr stays {config.lr:g}")
    assert ("whole training set" in line) == (batch == chosen.limit)


def test_nothing_fits(config, memory):
    memory(12)
    with pytest.raises(DoesNotFit, match=r"a step of 2 images needs 0.01 GiB on each device, and"):
        choose_batch_size(config)
    with pytest.raises(ConfigError, match="1 training images are fewer than one for each of 2 dev"):
        choose_batch_size(dataclasses.replace(config, limit=1))


def test_a_number_stays(config, memory):
    numbered = dataclasses.replace(config, batch_size=7)
    assert choose_batch_size(numbered) is numbered
    with pytest.raises(ConfigError, match="auto is chosen by flaxseg train, for the devices"):
        Setup.of(config)


@pytest.mark.usefixtures("compiled_once")
def test_what_is_chosen_is_kept(config, memory, monkeypatch, capsys):
    memory(22)
    values = (config.workdir, *config.override)
    args = (
        "train --model vitseg --data shapes --limit 24 --devices 2 --batch-size auto --image-size "
        "16 16 --eval-size 16 16 --max-steps {} --workdir {} --override {} {} {} {} {}"
    )
    assert cli.main(args.format(1, *values).split()) == 0
    assert "--batch-size auto: 8 images, 0.02 GiB of 0.02 GiB on each" in capsys.readouterr().out
    written = json.loads((config.directory / "config.json").read_text())
    assert TrainConfig.from_json(written).batch_size == 8
    memory(1000)
    assert cli.main(args.format(2, *values).split()) == 0
    said = capsys.readouterr().out
    assert "--batch-size auto: 8 images, as the run began" in said and "resuming" in said


def test_the_devices_tell_their_memory(config):
    device = types.SimpleNamespace(
        process_index=jax.process_index(), memory_stats=lambda: {"bytes_limit": 1000 * MIB}
    )
    mesh = types.SimpleNamespace(devices=types.SimpleNamespace(flat=[device]))
    assert choice._available(mesh) == 900 * MIB


@pytest.mark.usefixtures("compiled_once")
def test_steps_are_compiled(config):
    """Real programs, of which the largest takes all pictures."""
    said = []
    assert choose_batch_size(config, said.append).batch_size == 96
    assert "the whole training set" in said[0]
