"""Commands and Python of README and docs/ run, small, in the order of their page."""

import dataclasses
import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from reading import PAGES, ROOT, SHELL, blocks, commands, ours

import convert
from convert.parity.networks import small_config
from flaxseg import cli
from flaxseg.models import fresh_model

ONLY_READ = {
    r"flaxseg (plan|bench) |python train\.py|--init": "takes minutes to hours",
    r"hf:|https?:|export \S+ site/": "asks another host",
    r"flaxseg push ": "asks another host",
    r"--calibrate": "wants a network that has learned something",
    r"flaxseg demo ": "serves until Ctrl-C",
    r"\.onnx": "torch exports it in half a minute; tests/convert does that",
}
"""Commands that are read and not run, with the reason: test_pages.py reads all of them."""

NARROW = """--override backbone.width=4 backbone.blocks=1,1,1,1 channels=8 --devices 1
    --batch-size 2 --limit 4 --epochs 1 --eval-every 1 --image-size 16 16""".split()
"""What a training is given in addition: the last of equal flags counts."""

SMALL = {
    'create_model("ccnet_r50"': 'create_model("segformer_b0", **{"backbone.depths": (1, 1, 1, 1)}',
    "(1, 512, 1024, 3)": "(1, 32, 64, 3)",
    '"hf:owner/name"': '"my_model"',
    "range(200)": "range(10)",
    "--size 360 480": "--size 32 48",
}
"""What is written smaller in a test."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder that holds what the pages take for granted: runs, checkpoints, photos."""
    folder = tmp_path_factory.mktemp("world")
    before = os.getcwd(), os.environ["HOME"]
    os.chdir(folder)
    os.environ["HOME"] = str(folder)
    run(ROOT / "docs" / "five-minutes.md")
    for other in ("ccnet-camvid", "other-camvid", "setr_pup-ade20k", "a", "b"):
        shutil.copytree("runs/mine", f"runs/{other}")
    for other in ("a", "b"):
        shutil.copytree("report", f"reports/{other}")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))
    for name in ("photo.jpg", "map.tif", "photos/a.jpg", "photos/b/c.png"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        photo.save(name)
    (folder / "list.txt").write_text("photo.jpg\n")
    film = "-f lavfi -i testsrc=size=48x32:rate=10:duration=0.3 ride.mp4".split()
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *film], check=True, capture_output=True)
    for name, network, layout in (
        ("ccnet_r50-d8.pth", "ccnet_r50", "mmseg"),
        ("segformer.b0.512x512.ade.160k.pth", "segformer_b0", "nvlabs"),
    ):
        convert.save(fresh_model(small_config(network), rngs=nnx.Rngs(0)), name, format=layout)
    yield folder
    os.chdir(before[0])
    os.environ["HOME"] = before[1]


def run(page):
    """Runs the blocks of a page that need nothing that is not there."""
    names: dict = {}
    for block in blocks(page.read_text(), page.name):
        if block.needs is not None:
            continue
        for large, small in SMALL.items():
            block = dataclasses.replace(block, text=block.text.replace(large, small))
        if block.language == "python":
            _run_python(block.text, names, block.place)
        elif block.language in SHELL:
            for command in commands(block):
                _run_command(command, block.place)


def _run_python(text, names, place):
    if script := re.match(r"# (\w+\.py)\n", text):
        Path(script[1]).write_text(text)
    else:
        exec(compile(text, place, "exec"), names)


def _run_command(command, place):
    words = shlex.split(command, comments=True)
    if words[0] == "python" and os.path.exists(words[1]):
        runpy.run_path(words[1])
    for args in ours(command) if would_run(command) else ():
        more = NARROW if args[0] == "train" else []
        args = [os.path.expanduser(arg) for arg in args]
        # What is wrong with the machine is no mistake of the page.
        fine = (0, 1) if args == ["doctor"] else (0,)
        assert cli.main([*args, *more]) in fine, f"{place}: {command}"


def would_run(command):
    """Whether a command is of ours, and short."""
    return ours(command) and not any(re.search(pattern, command) for pattern in ONLY_READ)


RUN = ["README.md"]
RUN += [f"docs/{n}.md" for n in ("evaluation photos export convert recipes networks/index").split()]


def test_pages_run(world):
    """All in one, as one world serves all of them."""
    assert (world / "predictions" / "new_overlay.png").exists()
    assert (world / "report" / "report.html").exists()
    for name in RUN:
        run(ROOT / name)


def test_a_block_that_fails_is_seen(tmp_path):
    for text in ("```sh\nflaxseg info runs/nobody\n```\n", "```python\nassert 1 == 2\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(AssertionError):
            run(page)


def test_no_page_is_forgotten():
    """Every block with Python or short commands runs, or says what it needs."""
    done = {*RUN, "docs/five-minutes.md"}
    done |= {"CONTRIBUTING.md"}  # by tests/convert/test_contributing.py
    left = [
        block.place
        for page in PAGES
        if str(page.relative_to(ROOT)) not in done
        for block in blocks(page.read_text(), page.name)
        if block.needs is None
        and (
            block.language == "python"
            or (block.language in SHELL and any(would_run(c) for c in commands(block)))
        )
    ]
    assert left == []
