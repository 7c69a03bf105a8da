"""Where array_record has no wheel, as on Windows, everything but published archives works."""

import subprocess
import sys

import pytest

# Grain asks for array_record, too, except on Windows.
WITHOUT = """
import platform, sys
from unittest import mock

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "array_record":
            raise ModuleNotFoundError("No module named 'array_record'", name="array_record")

sys.meta_path.insert(0, Missing())
with mock.patch.object(platform, "system", lambda: "Windows"):
    import grain
from flaxseg.cli import main
sys.exit(max(main(line.split()) for line in sys.argv[1].splitlines()))
"""

TINY = (
    "--model vitseg --override patch_size=8 width=16 depth=1 num_heads=2 mlp_dim=16 "
    "--image-size 16 16 --eval-size 16 16 --batch-size 2 --steps 1 --limit 2 --devices 1"
)


@pytest.fixture
def run(tmp_path):
    """Runs commands, one a line, in one process without array_record; returns its end."""

    def run(*commands):
        return subprocess.run(
            [sys.executable, "-c", WITHOUT, "\n".join(commands)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def write_folder(folder, write_png):
    for split in ("train", "val"):
        for k in range(2):
            write_png(folder / "images" / split / f"{k}.png", (16, 16, 3))
            write_png(folder / "masks" / split / f"{k}.png", (16, 16))
    (folder / "classes.txt").write_text("sky\nroad\n")


@pytest.fixture
def write_png():
    """Writes a black picture."""

    def write(path, shape):
        import cv2
        import numpy as np

        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros(shape, np.uint8))

    return write


def test_trains_on_shapes_and_a_folder_evaluates_and_predicts(run, tmp_path, write_png):
    write_png(tmp_path / "photo.png", (16, 24, 3))
    write_folder(tmp_path / "mine", write_png)
    ended = run(
        f"train {TINY} --workdir run",
        "eval run",
        "predict run photo.png --out predictions",
        f"train {TINY} --data folder --data-dir mine --workdir other",
        "eval other",
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "predictions" / "photo_mask.png").exists()


def test_archives_say_what_they_need(run, tmp_path):
    for name in ("images.tar.gz", "annotations.tar.gz"):
        (tmp_path / name).write_bytes(b"never opened")
    ended = run("data check pets --data-dir .")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: pets: published archives need the package array_record")
    assert "extract the archive and point --data-dir at the folder" in ended.stderr
