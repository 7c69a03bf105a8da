"""What the wheel and the source archive hold, built from this tree."""

import email.parser
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from trove_classifiers import classifiers

import flaxseg

ROOT = Path(__file__).parents[1]
PACKAGES = ("convert", "flaxseg", "torch_ref")


def below(*folders: str) -> set[str]:
    """The paths of all files of folders, without what Python and Sphinx make of them."""
    made = {"__pycache__", "_build"}
    files = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if not made & {*path.parts}}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return folder


def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def metadata(built: Path):
    with wheel(built) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def test_wheel_holds_the_three_packages_and_nothing_else(built):
    with wheel(built) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == below(*PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_source_archive_holds_what_the_suite_needs(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    single = {"train.py", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile"}
    single |= {"pyproject.toml", "constraints.txt", "constraints-newest.txt"}
    assert below(*PACKAGES, "tests", "docs", "benchmarks") | single <= names


def test_version_and_classifiers(built):
    fields = metadata(built)
    assert fields["Version"] == flaxseg.__version__
    assert fields["License-Expression"] == "Apache-2.0"
    assert set(fields.get_all("Classifier")) <= classifiers
    assert "Semantic segmentation" in fields.get_payload()


def test_version_is_the_newest_of_the_changelog():
    """Until the first release, everything is unreleased."""
    headings = [
        line[3:]
        for line in (ROOT / "CHANGELOG.md").read_text().splitlines()
        if line.startswith("## ")
    ]
    assert headings[0] == "Unreleased" or headings[0].split()[0] == flaxseg.__version__
