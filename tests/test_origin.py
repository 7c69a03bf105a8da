"""Where weights come from is written down, and every command that makes new ones adds to it."""

import hashlib
import json
import shutil

import pytest

import convert
from convert.__main__ import main as convert_main
from convert.formats import load_format
from convert.parity.runs import random_state
from flaxseg import data, models, native
from flaxseg.cli import main
from flaxseg.data.shapes import LABELS
from flaxseg.errors import CheckpointError
from flaxseg.model_dir import CONFIG_FILE, read_header
from flaxseg.origin import Origin, chain_from_json, chain_to_json, licences

TINY = {
    "num_classes": 3,
    "backbone.widths": (4, 8, 10, 16),
    "backbone.depths": (1, 1, 1, 1),
    "channels": 8,
}
TRAINED = Origin(data="camvid", fingerprint="ab" * 32, recipe="paper", scores={"miou": 0.5})


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory):
    """A file as NVIDIA's are, and the directory that an import makes of it."""
    folder = tmp_path_factory.mktemp("nvidia")
    config = models.get_config("segformer_b0", **TINY)
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    file, directory = folder / "segformer.b0.pth", folder / "imported"
    state = load_format("nvlabs", "segformer").export_state(model)
    convert.write(file, state, wrapper="state_dict")
    assert convert_main(["import", str(file), str(directory), "--no-verify"]) == 0
    return file, directory


def change(directory, **values):
    file = directory / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_an_import_says_what_it_was_made_of(nvidia):
    file, directory = nvidia
    (step,) = read_header(directory).origin
    assert (step.source, step.layout) == ("segformer.b0.pth", "nvlabs")
    assert step.files == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert step.non_commercial and "NVIDIA Source Code License" in step.licence
    assert str(file.parent) not in (directory / CONFIG_FILE).read_text()


def test_the_licence_goes_wherever_the_weights_go(nvidia, tmp_path, capsys):
    _, directory = nvidia
    chain = read_header(directory).origin
    start = convert.start_from(str(directory), read_header(directory).config)
    assert start.origin == chain and any("non-commercial" in line for line in start.lines)
    loaded = convert.load(directory)
    assert "non-commercial" in loaded.report.licence
    native.save(loaded.model, tmp_path / "trained", origin=(*chain, TRAINED))
    again = convert.load(tmp_path / "trained")
    assert convert.save(again, tmp_path / "again") == ()
    assert read_header(tmp_path / "again").origin == (*chain, TRAINED)
    notes = convert.save(again, tmp_path / "a.pth", format="torch_ref")
    assert notes == (f"not stored: licence {chain[0].licence}",)
    assert convert.save(again, tmp_path / "b.pth", format="nvlabs") == ()
    capsys.readouterr()
    assert main(["info", str(tmp_path / "again")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"licence {chain[0].licence}" in told and "segformer.b0.pth as nvlabs stores it" in told
    assert "trained on camvid by recipe paper; data abababababab…; miou 0.5" in told


def test_an_encoder_brings_its_licence(nvidia, tmp_path):
    config = read_header(nvidia[1]).config
    state = load_format("nvlabs", "mit").export_state(native.load(nvidia[1]))
    convert.write(tmp_path / "mit_b0.pth", state)
    (step,) = convert.start_from(str(tmp_path / "mit_b0.pth"), config).origin
    assert (step.source, step.non_commercial) == ("mit_b0.pth", True)


def test_what_a_later_release_wrote_is_kept():
    written = [{"source": "a.pth", "quantised": True}, TRAINED.to_json()]
    assert chain_to_json(chain_from_json(written)) == written
    assert licences([Origin(non_commercial=True)]) == ("non-commercial use only",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"origin": "hf:a/b"}, "'origin' is 'hf:a/b', it must be a list of steps"),
        ({"origin": ["a.pth"]}, "a step of 'origin' is 'a.pth', it must be a JSON object"),
        ({"origin": [{"licence": 3}]}, "licence in 'origin' is 3, it must be text"),
        ({"origin": [{"scores": {"miou": "high"}}]}, "it must be a JSON object of numbers"),
        ({"temperature": 0}, "temperature is 0, it must be a number above 0"),
        ({"temperature": True}, "temperature is True, it must be a number above 0"),
    ],
)
def test_a_damaged_header_is_named(nvidia, tmp_path, values, message):
    shutil.copytree(nvidia[1], tmp_path / "model")
    change(tmp_path / "model", **values)
    with pytest.raises(CheckpointError, match=f"config.json: .*{message}"):
        read_header(tmp_path / "model")


class Named:
    """A source that is asked for names alone."""

    labels = LABELS

    def __init__(self, *names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def name(self, index):
        """Of an example."""
        return self.names[index]


def test_a_fingerprint_tells_names_and_label_maps_apart():
    counted = data.count_labels(data.Shapes("train", image_size=(16, 16), length=2))
    first = data.content_fingerprint(Named("a.png", "b.png"), counted)
    assert len(first) == 64
    assert first == data.content_fingerprint(Named("a.png", "b.png"), counted.first(2))
    assert first != data.content_fingerprint(Named("a.png", "c.png"), counted)
    other = data.count_labels(data.Shapes("val", image_size=(16, 16), length=2))
    assert first != data.content_fingerprint(Named("a.png", "b.png"), other)
