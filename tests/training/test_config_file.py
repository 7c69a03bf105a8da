import pytest

from flaxseg import cli
from flaxseg.errors import ConfigError
from flaxseg.training import make_config
from flaxseg.training.config import differences


@pytest.fixture
def file(tmp_path):
    """Writes a file of settings and returns its path."""

    def write(text):
        path = tmp_path / "train.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_flags_beat_the_file_and_the_file_beats_the_recipe(file):
    path = file("model: setr\nrecipe: tutorial\nlr: 1e-2\nimage-size: [64, 96]\nno_decay: [bias]\n")
    config = cli.parse_train_config(["--config", path, "--lr", "0.3"])
    assert (config.model, config.recipe, config.data) == ("setr", "tutorial", "camvid")
    assert config.lr == 0.3
    assert (config.image_size, config.no_decay) == ((64, 96), ("bias",))
    assert (config.batch_size, config.swa_start) == (4, 75)
    assert config.config == path
    assert make_config(config=path).lr == 0.01
    other = cli.parse_train_config([f"--config={path}", "--model", "ccnet"])
    assert (other.model, other.step_size, other.swa_start) == ("ccnet", 50, None)


def test_numbers_may_be_written_as_the_command_line_takes_them(file):
    path = file("lr: 6e-5\nwarmup_ratio: 1E-6\nweight_decay: 1\nepochs: 3\nema: .999\n")
    config = make_config(config=path)
    assert (config.lr, config.warmup_ratio, config.weight_decay) == (6e-5, 1e-6, 1)
    assert (config.epochs, config.ema) == (3, 0.999)


def test_empty_file_changes_nothing(file):
    path = file("# nothing yet\n")
    assert differences(make_config(), make_config(config=path)) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("warmup-step: 1", "unknown setting 'warmup-step'; did you mean warmup_steps"),
        ("epoch: 1", "unknown setting 'epoch'; did you mean epochs"),
        ("config: other.yaml", "unknown setting 'config'"),
        ("7: 1", "unknown setting 7"),
        ("lr: fast", "lr is 'fast', it must be of type float"),
        ("image-size: 64", r"image-size is 64, it must be of type tuple\[int, int\]"),
        ("image_size: [64]", "image_size is .64,., it must be of type"),
        ("batch_size: 0", "batch_size is 0, it must be at least 1"),
        ("steps: 1e5", "steps is 100000.0, it must be of type int"),
        ("schedule: poli", "schedule is 'poli', it must be one of .* did you mean poly"),
        ("no_decay: [norm]", r"no_decay is .'norm',., it must be of type"),
        ("lr: 1\nmomentum: 0\nlr: 2", "line 3: a second 'lr'"),
        ("lr: [1", "line 1: "),
        ("- lr", "must hold lines such as 'lr: 0.01', got"),
        (b"\xff\xfe\x00", "is no text file"),
    ],
)
def test_mistakes_name_the_file_and_the_key(file, text, message):
    path = file(text)
    with pytest.raises(ConfigError, match=f"--config {path}.*{message}"):
        make_config(config=path)


def test_missing_file_is_one_line(capsys):
    assert cli.main(["train", "--config", "none.yaml"]) == 2
    assert capsys.readouterr().err == (
        "error: --config none.yaml cannot be read: No such file or directory\n"
    )
