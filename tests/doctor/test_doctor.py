"""What `flaxseg doctor` finds, in installations that are broken in one way each."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flaxseg.cli import main
from flaxseg.doctor import clashes, devices, packages
from flaxseg.doctor.store import find_stores

ROOT = Path(__file__).parents[2]
CLEAN = ("JAX_", "XLA_", "FLAXSEG_", "PYTHONPATH")


def doctor(*paths):
    """Exit code and report of the command with further folders on the path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(CLEAN)}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, [*paths, ROOT]))
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-m", "flaxseg.cli", "doctor"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not run.stderr, run.stderr
    return run.returncode, run.stdout


def install(folder, name, version, *requirements, extras=()):
    """Makes it look as if a distribution were installed there."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir()
    lines = [f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
    (place / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_jax_that_cannot_be_imported(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise ImportError('libcudart.so.13: no file')")
    code, report = doctor(tmp_path)
    assert code == 1
    assert "wrong: jax cannot be imported: libcudart.so.13: no file\n  mend: pip inst" in report
    for words in ("python ", "optax ", "compiled programs", "JAX_PLATFORMS=cpu"):
        assert words in report


def test_tensorflow_beside_a_plugin_for_gpus(tmp_path):
    install(tmp_path, "tensorflow", "2.99.0")
    install(tmp_path, "jax-cuda13-plugin", "0.0.1")
    code, report = doctor(tmp_path)
    assert code == 1
    assert re.search(r"wrong: tensorflow 2\.99\.0 is installed.*\n  mend: pip uninstall", report)
    assert re.search(r"wrong: jax-cuda13-plugin is 0\.0\.1, jaxlib .* must be the same", report)
    assert "wrong: jax-cuda13-plugin is installed, but JAX sees no GPU of NVIDIA: " in report
    assert "1 x cpu (cpu)" in report


def test_the_exit_code_is_0_where_nothing_is_found(monkeypatch, capsys):
    nothing = packages.Section("nothing", ["fine"], [])
    for name in ("packages", "clashes", "devices"):
        monkeypatch.setattr(f"flaxseg.doctor.command.examine_{name}", lambda: nothing)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("nothing is wrong\n")


def test_versions_that_do_not_fit(path):
    install(
        path, "flaxseg", "0.1.0", "optax>=99", "no-such-thing>=1", "torch>=99; extra == 'torch'"
    )
    install(path, "jax", "0.10.2", "jaxlib<=0.0.1,>=0.0.1", "jaxlib==7; extra == 'ci'")
    install(path, "torch", "1.0", 'nvidia-cuda-runtime-cu12==12.8.90; platform_system == "Linux"')
    found = {finding.what: finding.mend for finding in packages.examine_packages().findings}
    told = " / ".join(found)
    assert re.search(r"optax is \S+, flaxseg needs >=99", told)
    assert "no-such-thing is not installed, flaxseg needs >=1" in found
    assert found["torch is 1.0, flaxseg needs >=99"] == "pip install 'torch>=99'"
    assert len([what for what in found if what.startswith("jaxlib")]) == 1


@pytest.mark.parametrize(
    ("version", "requirement", "cuda"),
    [
        ("2.13.0+cu128", "filelock", 12),
        ("2.13.0+cpu", "filelock", None),
        ("2.9.0", 'nvidia-cuda-runtime-cu12==12.8.90; platform_system == "Linux"', 12),
        ("2.13.0", 'nvidia-cuda-runtime==13.0.96; platform_system == "Linux"', 13),
    ],
)
def test_torch_for_another_cuda(path, version, requirement, cuda):
    install(path, "torch", version, requirement)
    install(path, "jax-cuda13-plugin", packages.installed("jaxlib"))
    assert packages.cuda_of_torch() == cuda
    found = [finding.what for finding in clashes.examine_clashes().findings]
    clash = f"torch {version} is for CUDA {cuda}, JAX's plugin for CUDA 13"
    assert any(what.startswith(clash) for what in found) == (cuda == 12)


def test_variables_that_slow_everything_down(monkeypatch):
    for name in clashes.SLOW:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".5")
    section = clashes.examine_clashes()
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=.5" in section.lines and not section.findings
    monkeypatch.setenv("JAX_DISABLE_JIT", "0")
    assert not clashes.examine_clashes().findings
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    assert [f.mend for f in clashes.examine_clashes().findings] == ["unset JAX_DISABLE_JIT"]


def test_a_gpu_without_the_plugin(monkeypatch):
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    monkeypatch.setattr(devices, "installed", lambda name: None)
    (finding,) = devices.examine_devices().findings
    assert finding.what.startswith("JAX could use a GPU of NVIDIA here, but its plugin")
    assert "[cuda]" in finding.mend


def test_cleaning_removes_what_flaxseg_has_written_and_nothing_else(tmp_path, monkeypatch, capsys):
    digest, key = "0123456789abcdef" * 4, "01234567-0123456789abcdef"
    ours = [f"xla/jit_step-{digest}-cache", f"camvid/CamVid-{key}/index.json"]
    ours += [f"coco/a-{key}-skip/1.png", f"xla/jit_step-{digest}-atime"]
    ours += [f"models/{digest[:32]}/model/config.json"]
    theirs = [
        "xla/notes.txt",
        "models/mine.txt",
        "camvid/CamVid/0001.png",
        "mine.txt",
        f"downloads/a-{key}/a.zip",
    ]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "photo.jpg").write_bytes(bytes(5))
    for name in ours + theirs:
        file = tmp_path / "cache" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(3000))
    (tmp_path / "cache" / "camvid" / f"link-{key}").symlink_to(outside)
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "cache"))
    counts = [len(store.paths) for store in find_stores(tmp_path / "cache")]
    assert counts == [2, 1, 2, 1]
    main(["doctor"])
    assert re.search(rf"compiled programs +6000 B +{tmp_path}", capsys.readouterr().out)
    assert all((tmp_path / "cache" / name).is_file() for name in ours + theirs)
    main(["doctor", "--clean"])
    assert "removed 2 of 2 compiled programs" in capsys.readouterr().out
    assert not any((tmp_path / "cache" / name).exists() for name in ours)
    assert all((tmp_path / "cache" / name).is_file() for name in theirs)
    assert (outside / "photo.jpg").is_file()


def test_the_list_of_commands_needs_no_jax(tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError('broken')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [tmp_path, ROOT]))}
    command = [sys.executable, "-m", "flaxseg.cli", "--help"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "doctor" in run.stdout
