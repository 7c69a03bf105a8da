"""Downloads from a server on the loopback address."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest

from flaxseg.data import download as downloading
from flaxseg.data import lock
from flaxseg.data.archives import Archive
from flaxseg.data.download import download
from flaxseg.data.pets import PETS
from flaxseg.data.prepared import PreparedSource, prepare
from flaxseg.errors import DataError


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files and counts what was asked for."""

    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        """Says nothing."""


@pytest.fixture
def server(tmp_path):
    """The folder of a server and its address."""
    root = tmp_path / "server"
    root.mkdir()
    handler = functools.partial(Handler, directory=root)
    Handler.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield root, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def archive(server, name="images.tar.gz", content=b"content", sha256=None):
    root, url = server
    (root / name).write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest() if sha256 is None else sha256
    return Archive(name, ".*", url + name, len(content), checksum)


@pytest.mark.parametrize("sha256", [None, ""])
def test_downloaded_once(server, tmp_path, sha256, capsys):
    wanted = [archive(server, sha256=sha256)]
    for _ in range(2):
        found = download("pets", wanted, tmp_path / "downloads")
        assert found[wanted[0]].read_bytes() == b"content"
    assert Handler.asked == ["/images.tar.gz"]
    assert "pets: downloading images.tar.gz" in capsys.readouterr().err


def test_two_at_once_download_once(server, tmp_path, monkeypatch):
    """Both have found nothing before either takes the lock."""
    wanted, both = [archive(server)], threading.Barrier(2, timeout=30)

    def locked_together(folder):
        both.wait()
        return lock.one_at_a_time(folder)

    monkeypatch.setattr(downloading, "one_at_a_time", locked_together)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        tries = [threads.submit(download, "pets", wanted, tmp_path / "downloads") for _ in "ab"]
    first, second = (one.result() for one in tries)
    assert first == second and first[wanted[0]].read_bytes() == b"content"
    assert Handler.asked == ["/images.tar.gz"]


def test_wrong_checksum(server, tmp_path):
    wrong = archive(server, sha256=hashlib.sha256(b"other").hexdigest())
    message = "pets: http.*images.tar.gz cannot be downloaded .*checksum.*give --data-dir their fo"
    with pytest.raises(DataError, match=message):
        download("pets", [wrong], tmp_path / "downloads")
    right = dataclasses.replace(wrong, sha256=hashlib.sha256(b"content").hexdigest())
    assert download("pets", [right], tmp_path / "downloads")[right].read_bytes() == b"content"


def test_file_that_the_server_does_not_have(server, tmp_path):
    gone = dataclasses.replace(archive(server), url=server[1] + "gone.tar.gz")
    with pytest.raises(DataError, match="gone.tar.gz cannot be downloaded .*404.*get images"):
        download("pets", [gone], tmp_path / "downloads")


def test_nobody_answers(tmp_path):
    nowhere = Archive("images.tar.gz", ".*", "http://127.0.0.1:9/images.tar.gz", 1, "00")
    with pytest.raises(DataError, match="pets: http.* cannot be downloaded .*refused"):
        download("pets", [nowhere], tmp_path / "downloads")


def test_data_set_from_its_address(server, tmp_path, cache, save, pack, monkeypatch, rng):
    """From nothing but a name to pixels."""
    root, url = server
    files = tmp_path / "files"
    for kind, suffix, folder in (("images", "jpg", ""), ("annotations", "png", "trimaps/")):
        for name in "ab":
            save(
                files / kind / kind / folder / f"{name}.{suffix}",
                rng.integers(1, 4, (4, 5), np.uint8),
            )
    (files / "annotations/annotations/trainval.txt").write_text("a 1 1 1\n")
    (files / "annotations/annotations/test.txt").write_text("b 1 1 1\n")
    served = []
    for official in PETS.archives:
        data = pack(files / official.file.split(".")[0], root / official.file).read_bytes()
        served.append(
            dataclasses.replace(
                official,
                url=url + official.file,
                size=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
        )
    pets = dataclasses.replace(PETS, archives=tuple(served))
    directory = prepare(pets, None, cache_dir=cache)
    assert [PreparedSource(directory, split).name(0) for split in ("train", "val")] == [
        *("images/a.jpg", "images/b.jpg")
    ]
    assert prepare(pets, None, cache_dir=cache) == directory
    assert sorted(Handler.asked) == ["/annotations.tar.gz", "/images.tar.gz"]
