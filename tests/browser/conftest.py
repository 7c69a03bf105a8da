"""Chromium without a network, and the commands whose pages it looks at."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.data.shapes import Shapes
from flaxseg.labels import LabelSet
from flaxseg.pictures import write_image
from flaxseg.preprocess import Preprocess

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
LABELS = LabelSet(
    "pets",
    ("cat", "dog", "sofa", "grass", "sky"),
    ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)),
)
PREPROCESS = Preprocess((0.1, 0.4, 0.7), (0.2, 0.3, 0.4), "bgr")


@pytest.fixture(scope="session")
def chromium():
    assert CHROMIUM, "no Chromium: apt-get install -y chromium, or name one in $CHROMIUM"
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[nowhere], chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens a page; at the end nothing may have gone wrong or been asked of another host."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    told, asked = [], []
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    context.on("request", lambda request: asked.append(request.url))
    bases = []

    def open_page(url, refused=0):
        bases.append((url, refused))
        page.goto(url)
        page.wait_for_selector("#examples button img")
        return page

    yield open_page
    (url, refused) = bases[0]
    # Chromium writes a line of its own about every answer that is a refusal.
    refusals = [text for text in told if "status of 4" in text]
    assert len(refusals) == refused and told == refusals
    assert asked and all(address.startswith((url, "blob:" + url)) for address in asked)
    context.close()


@pytest.fixture(scope="session")
def directories(tmp_path_factory):
    """Two narrow networks with random weights."""
    found = {}
    for name in ("segformer_b0", "bisenetv2"):
        config = small_config(name)
        model = native.fill(models.abstract_model(config), random_state(config, 0))
        found[name] = tmp_path_factory.mktemp("models") / name
        native.save(model, found[name], labels=LABELS, preprocess=PREPROCESS, name=name)
    return found


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "scene.png"
    write_image(path, Shapes("val", image_size=(96, 128))[2].image)
    return path


@pytest.fixture(scope="session")
def serve():
    """Runs a command that prints its address; ends it at the end of the session."""
    running = []

    def start(*command):
        process = subprocess.Popen(
            [sys.executable, "-u", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        line = next(line for line in process.stdout if "http://" in line)
        return "http://" + line.partition("http://")[2].split("/")[0] + "/"

    yield start
    for process in running:
        process.terminate()
        process.wait()
        process.stdout.close()
