"""The direction of imports: flaxseg knows neither torch nor the packages that know both."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FORBIDDEN = {
    "flaxseg": {"torch", "tensorflow", "torch_ref", "convert"},
    "torch_ref": {"tensorflow", "convert"},
    "convert": {"tensorflow"},
}


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_file_imports_what_its_package_must_not_know(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        roots = {name.partition(".")[0] for name in imported(path)}
        assert not roots & FORBIDDEN[package], path


def test_pictures_know_neither_data_nor_inference():
    for path in (ROOT / "flaxseg" / "pictures").glob("*.py"):
        above = {"flaxseg.data", "flaxseg.inference", "flaxseg.training", "flaxseg.models"}
        assert not {".".join(name.split(".")[:2]) for name in imported(path)} & above, path


def test_torch_ref_takes_only_configs_and_files_from_flaxseg():
    allowed = ("models", "errors", "labels", "preprocess", "model_dir")
    allowed = tuple(f"flaxseg.{name}" for name in allowed)
    for path in (ROOT / "torch_ref").rglob("*.py"):
        ours = {name for name in imported(path) if name.partition(".")[0] == "flaxseg"}
        assert all(name.startswith(allowed) for name in ours), (path, ours)


def test_importing_everything_needs_neither_torch_nor_tensorflow():
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "flaxseg").rglob("*.py")
        if path.name != "__main__.py"
    )
    script = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "tensorflow"):
            raise ImportError(name)

sys.meta_path.insert(0, Block())
for name in {modules!r}:
    __import__(name)
assert not {{"torch", "tensorflow"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_what_flaxseg_gives_is_there_when_it_is_asked_for():
    import flaxseg
    from flaxseg import models, native

    assert flaxseg.fold is models.fold and flaxseg.load is native.load
    assert flaxseg.models is models and "create_model" in dir(flaxseg)
    with pytest.raises(AttributeError, match="'flaxseg' has no attribute 'loads'"):
        flaxseg.loads  # noqa: B018
