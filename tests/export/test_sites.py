"""What `flaxseg export MODEL site/` writes; tests/browser looks at it."""

import hashlib
import io
import json
import tarfile
import urllib.error

import pytest

from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.cli import main
from flaxseg.errors import CheckpointError
from flaxseg.export import runtime
from flaxseg.export.check import Agreement
from flaxseg.labels import LabelSet
from flaxseg.preprocess import Preprocess

PREPROCESS = Preprocess((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bgr")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    config = small_config("vitseg")
    model = native.fill(models.abstract_model(config), random_state(config, 0))
    folder = tmp_path_factory.mktemp("sites") / "pets"
    native.save(model, folder, labels=LabelSet.generic(5), preprocess=PREPROCESS)
    return folder


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package like onnxruntime-web's, whose checksum is the expected one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in (*runtime.FILES, "ort.all.js"):
            info = tarfile.TarInfo(f"package/dist/{name}")
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    monkeypatch.setattr(runtime, "SHA512", hashlib.sha512(buffer.getvalue()).hexdigest())
    path = tmp_path / "ort.tgz"
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture
def written(monkeypatch):
    """The real converter takes long, and has tests of its own."""

    def write(path, header, arrays, **told):
        path.write_bytes(b"a network")
        return Agreement(8, 1.0, 2e-7)

    monkeypatch.setattr("convert.onnx_file.write_onnx", write)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_holds_all_that_the_page_needs(
    directory, package, written, tmp_path, capsys, exists
):
    site = tmp_path / "site"
    if exists:
        site.mkdir()
    assert main(["export", str(directory), f"{site}/", "--runtime", str(package)]) == 0
    assert f"python -m http.server --directory {site}" in capsys.readouterr().out
    about = json.loads((site / "page.json").read_text())
    (model,) = about["models"]
    assert model["title"] == "pets" and len(model["classes"]) == 5
    assert model["preprocess"] == PREPROCESS.to_json()
    assert model["size"]["fixed"] == list(small_config("vitseg").fixed_size)
    page = "engine.js icon.svg index.html page.js page.json paint.js panel.js png.js style.css"
    pictures = [picture["file"] for picture in about["pictures"]]
    runtimes = [f"ort/{name}" for name in runtime.FILES]
    assert names(site) == sorted([*page.split(), "worker.js", "model.onnx", *pictures, *runtimes])
    assert (site / "model.onnx").read_bytes() == b"a network"
    assert (site / runtimes[0]).read_bytes() == runtime.FILES[0].encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ort.tgz", "site"]


def test_a_network_that_cannot_be_written_leaves_nothing(directory, package, tmp_path, monkeypatch):
    def fail(path, header, arrays, **told):
        path.write_bytes(b"half")
        raise CheckpointError("both differ")

    monkeypatch.setattr("convert.onnx_file.write_onnx", fail)
    site = tmp_path / "site"
    assert main(["export", str(directory), str(site), "--runtime", str(package)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["ort.tgz"]


def test_what_does_not_fit_is_told(directory, package, tmp_path, capsys, monkeypatch):
    def refused(*args):
        assert main(["export", str(directory), *map(str, args)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    site = tmp_path / "site"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    assert "no empty folder" in refused(tmp_path / "full", "--runtime", package)
    assert "--size is for files" in refused(site, "--size", 32, 48)
    assert "--runtime is for pages" in refused(tmp_path / "a.onnx", "--runtime", package)
    assert "cannot be read" in refused(site, "--runtime", tmp_path / "nothing.tgz")
    package.write_bytes(package.read_bytes()[:-1])
    assert "npm pack onnxruntime-web@" in refused(site, "--runtime", package)
    assert not site.exists()


def test_the_package_is_downloaded_once(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://mirror.example/")
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return io.BytesIO(package.read_bytes())

    monkeypatch.setattr("urllib.request.urlopen", answer)
    for _ in range(2):
        assert list(runtime.runtime_files(None)) == list(runtime.FILES)
    assert asked == [
        f"http://mirror.example/onnxruntime-web/-/onnxruntime-web-{runtime.VERSION}.tgz"
    ]
    assert "downloading" in capsys.readouterr().out


@pytest.mark.parametrize("trouble", [urllib.error.URLError("no network"), b"another package"])
def test_without_a_network_the_mend_is_told(directory, tmp_path, monkeypatch, capsys, trouble):
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "cache"))

    def answer(url, timeout):
        if isinstance(trouble, bytes):
            return io.BytesIO(trouble)
        raise trouble

    monkeypatch.setattr("urllib.request.urlopen", answer)
    assert main(["export", str(directory), str(tmp_path / "site")]) == 2
    error = capsys.readouterr().err
    assert f"npm pack onnxruntime-web@{runtime.VERSION}, and give --runtime" in error
    assert names(tmp_path) == []
