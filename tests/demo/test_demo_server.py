"""The server of `flaxseg demo`, asked without a browser; with FUZZ set by 2,000 broken pictures."""

import base64
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flaxseg.cli import main
from flaxseg.data.shapes import Shapes
from flaxseg.demo.app import Limits, Served
from flaxseg.demo.guard import HEADERS
from flaxseg.demo.models import open_models
from flaxseg.demo.pages import Shown, title_of
from flaxseg.inference import predict_files
from flaxseg.inference.pixels import Pixels
from flaxseg.labels import LabelSet

ROOT = Path(__file__).parents[2]
MAX_SIDE = 64
MUTATIONS = 2000 if "FUZZ" in os.environ else 300


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def bomb(width, height):
    """A PNG of a few bytes that says it holds many pixels."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    )


@pytest.fixture(scope="module")
def server(directories, serving):
    served = open_models([str(path) for path in directories], Path, max_side=MAX_SIDE)
    with serving(served) as server:
        yield server


@pytest.fixture(scope="module")
def scene():
    return Shapes("val", image_size=(40, 56))[2].image


@pytest.mark.parametrize("model", [0, 1])
def test_an_upload_gets_what_predict_writes(
    server, directories, scene, tmp_path, model, compiled_once
):
    (tmp_path / "a.png").write_bytes(encoded(scene))
    options = {"write": ["mask", "confidence"], "max_side": MAX_SIDE}
    mask, confidence, _ = predict_files(
        directories[model], [tmp_path / "a.png"], tmp_path / "out", **options
    )
    answer = server.ask(f"/segment?model={model}", (tmp_path / "a.png").read_bytes())
    assert answer.status == 200
    labels = decoded(answer.json["labels"])
    assert labels.tobytes() == np.asarray(Image.open(mask)).tobytes()
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(
        decoded(answer.json["confidence"]), np.asarray(Image.open(confidence))
    )
    assert answer.json["seconds"] > 0 and "photo" not in answer.json


def test_a_picture_that_browsers_cannot_show_comes_back_as_one_that_they_can(server, scene):
    answer = server.ask("/segment?model=1&photo=1", encoded(scene, "TIFF"))
    photo = decoded(answer.json["photo"])
    assert photo.shape == scene.shape and np.abs(photo - scene.astype(float)).mean() < 12
    assert answer.json["remarks"] == ["seen at 48 × 32"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"hello, this is a text", 422, "notes.txt: is no readable picture (no PNG, JPEG"),
        (b"", 422, "notes.txt: is no readable picture"),
        (bomb(30_000, 30_000), 422, "notes.txt: has 30000 x 30000 = 900000000 pixels, more than"),
        (bomb(32, 32)[:-30], 422, "notes.txt: is no readable picture"),
        (bytes(100_001), 413, "notes.txt: has more than the 100,000 bytes that are taken"),
    ],
)
def test_what_is_no_picture_is_told(server, body, status, told):
    answer = server.ask("/segment?name=/home/me/notes.txt", body)
    assert answer.status == status and answer.json["error"].startswith(told)


def test_a_body_without_length_is_counted(server):
    parts = (bytes(1000) for _ in range(101))
    answer = server.ask("/segment", parts, method="POST", chunked=True, Transfer_Encoding="chunked")
    assert answer.status == 413


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/page/../../../pyproject.toml",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "/..%2fapp.py",
        "/..%5c..%5capp.py",
        "/etc/passwd",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/style.css/../app.py",
        "/style.css/",
        "/style.css%00.png",
        "/page/style.css",
        "/server.js",
        "/worker.js",
        "/__init__.py",
        f"{ROOT}/pyproject.toml",
        f"file://{ROOT}/pyproject.toml",
    ],
)
def test_nothing_but_the_page_can_be_read(server, path):
    answer = server.ask(path)
    assert answer.status == 404 and answer.json == {"error": "Not Found"}


def test_a_link_beside_the_files_of_the_page_leads_nowhere(server):
    link = ROOT / "flaxseg" / "demo" / "page" / "link-of-a-test.css"
    link.symlink_to(ROOT / "pyproject.toml")
    try:
        assert server.ask(f"/{link.name}").status == 404
    finally:
        link.unlink()


def test_the_page_is_whole(server):
    index = server.ask("/")
    assert index.headers["content-type"].startswith("text/html")
    about = server.ask("/page.json").json
    assert [model["title"] for model in about["models"]] == ["ccnet", "vitseg"]
    assert about["models"][0]["classes"][1] == {"name": "dog", "color": [200, 0, 0]}
    names = "style.css icon.svg page.js panel.js paint.js png.js engine.js".split()
    for name in [*names, *(picture["file"] for picture in about["pictures"])]:
        assert server.ask(f"/{name}").status == 200, name
    text = b"".join(server.ask(f"/{name}").body for name in ["", *names])
    addresses = text.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"http:" not in addresses and b"https:" not in addresses and b'"//' not in addresses


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_who_may_ask(server, headers, status):
    answer = server.ask("/page.json", **headers)
    assert answer.status == status
    assert status == 200 or "asked by" in answer.json["error"]
    assert HEADERS.items() <= answer.headers.items()


def test_other_requests_are_refused_in_json(server):
    assert server.ask("/segment").status == 405
    assert server.ask("/", method="POST", body=b"").json == {"error": "Method Not Allowed"}
    answer = server.ask("/segment?model=2", b"x")
    assert answer.status == 404 and answer.json["error"].endswith("ask for 0, 1")
    assert HEADERS.items() <= server.ask("/nothing").headers.items()


def mutated(rng, data):
    """A file with other, missing or repeated bytes; a part of them has the right checksums."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(len(data)))
        match rng.integers(4):
            case 0:
                data[place] = rng.integers(256)
            case 1:
                del data[place : place + int(rng.integers(1, 40))]
            case 2:
                data[place:place] = data[place : place + int(rng.integers(1, 40))]
            case _:
                data[place : place + 4] = rng.bytes(4)
        data = data or bytearray(b"x")
    return bytes(data)


def test_broken_pictures_break_nothing(server, scene):
    rng = np.random.default_rng(0)
    kinds = [("PNG", {}), ("JPEG", {}), ("TIFF", {}), ("BMP", {}), ("WEBP", {}), ("GIF", {})]
    whole = [encoded(scene, kind, **options) for kind, options in kinds]
    whole += [encoded(np.zeros(shape, np.uint8)) for shape in ((1, 1), (1, 300), (300, 1))]
    statuses = []
    for number in range(MUTATIONS):
        data = mutated(rng, whole[number % len(whole)])
        answer = server.ask("/segment", data)
        statuses.append(answer.status)
        assert answer.status in (200, 422), (number, answer)
        assert ("error" in answer.json) == (answer.status == 422)
    assert {200, 422} == {*statuses}
    assert server.ask("/segment", whole[0]).status == 200


class SlowSegmenter:
    """Counts how many pictures are looked at together, and waits."""

    def __init__(self):
        self.go, self.inside, self.most, self.lock = threading.Event(), 0, 0, threading.Lock()

    def inner_size(self, own):
        return own

    def start(self, photo, detail):
        def wait():
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            assert self.go.wait(30)
            with self.lock:
                self.inside -= 1
            return Pixels(np.zeros(photo.shape[:2], np.uint8), np.ones(photo.shape[:2], np.float32))

        return wait


def test_one_picture_at_a_time_and_few_that_wait(serving, scene):
    slow = SlowSegmenter()
    shown = Shown("slow", "slow", LabelSet.generic(2), {})
    answers = []
    with serving([Served(shown, slow)], Limits(100_000, 0)) as server:  # pyright: ignore
        refused = threading.Event()

        def ask():
            answers.append(server.ask("/segment", encoded(scene)))
            if answers[-1].status == 429:
                refused.set()

        threads = [threading.Thread(target=ask) for _ in range(9)]
        for thread in threads:
            thread.start()
        assert refused.wait(30)
        assert server.ask("/page.json").status == 200  # while it computes
        slow.go.set()
        for thread in threads:
            thread.join()
    assert sorted(answer.status for answer in answers) == [200] * 8 + [429]
    assert slow.most == 1


def test_a_fault_of_ours_is_told_as_one(serving, scene, caplog):
    class Faulty(SlowSegmenter):
        def start(self, photo, detail):
            raise ZeroDivisionError

    shown = Shown("slow", "slow", LabelSet.generic(2), {})
    with serving([Served(shown, Faulty())], Limits(100_000, 0)) as server:  # pyright: ignore
        answer = server.ask("/segment", encoded(scene))
    assert answer.status == 500 and "bug to report" in answer.json["error"]


def test_the_command_serves_until_ctrl_c(directories, scene):
    command = [sys.executable, "-m", "flaxseg.cli", "demo", str(directories[1]), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("demo       http://127.0.0.1:"), process.stderr.read()
        port = int(line.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /page.json HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["models"][0]["title"] == "vitseg"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_what_the_command_refuses(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["demo", "nothing", "--port", port]) == 2
    assert f"--port {port}: Address already in use; choose" in capsys.readouterr().err
    assert main(["demo", "nothing", "--port", "99999"]) == 2
    assert "--port 99999: give 1 to 65535" in capsys.readouterr().err
    assert main(["demo", "nothing", "--host", "no such name"]) == 2
    assert "--host no such name --port 8000: " in capsys.readouterr().err
    assert main(["demo", "nothing", "--port", "0", "--max-bytes", "0"]) == 2
    assert "--max-bytes 0: give at least 1" in capsys.readouterr().err
    monkeypatch.setattr("flaxseg.demo.command.NEEDED", ("no_such_package",))
    assert main(["demo", "nothing"]) == 2
    assert capsys.readouterr().err == (
        "error: demo needs no_such_package: pip install 'flaxseg[demo]'\n"
    )


def test_titles_tell_no_paths():
    assert title_of("/home/me/runs/street") == title_of("runs/street/model") == "street"
    assert title_of("hf:owner/name") == "hf:owner/name"
