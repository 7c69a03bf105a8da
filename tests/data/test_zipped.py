import os
import zipfile

import numpy as np
import pytest

from flaxseg.data import zipped
from flaxseg.data.folder import find_folder
from flaxseg.errors import DataError


@pytest.fixture
def packed(plain_dir, pack, tmp_path):
    """The plain folder as a zip."""
    return pack(plain_dir, tmp_path / "downloads/export.zip")


def names(folder):
    return [pair.name for pair in folder.splits["val"]]


def test_zip_and_folder_that_holds_it(packed, cache):
    assert names(find_folder(packed, cache=cache)) == ["images/p4.png", "images/p9.png"]
    (packed.parent / "README.txt").write_text("exported")
    (packed.parent / ".hidden").mkdir()
    folder = find_folder(packed.parent, cache=cache)
    assert names(folder) == ["images/p4.png", "images/p9.png"]
    assert f"unpacked from {packed}" in folder.lines
    assert [path.name for path in packed.parent.iterdir() if path.is_dir()] == [".hidden"]


def test_unpacked_once(packed, cache, monkeypatch):
    first = find_folder(packed, cache=cache)
    monkeypatch.setattr(zipped, "unpack", None)
    assert find_folder(packed, cache=cache).root == first.root


def test_of_one_zip_the_two_newest_stay(packed, cache):
    roots = []
    for k in range(4):
        os.utime(packed, (k, k))
        roots.append(find_folder(packed, cache=cache).root)
        if k < 3:
            os.utime(roots[-1], (1000 + k, 1000 + k))
    assert [root.is_dir() for root in roots] == [False, False, True, True]


def test_zip_beside_data_is_left_alone(packed, plain_dir, cache):
    packed.rename(plain_dir / "backup.zip")
    assert find_folder(plain_dir, cache=cache).root == plain_dir
    assert not cache.exists()


def test_two_zips(packed, cache):
    (packed.parent / "other.zip").write_bytes(packed.read_bytes())
    with pytest.raises(DataError, match=r"holds 2 zip files \(export.zip, other.zip\); name one"):
        find_folder(packed.parent, cache=cache)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])
    return "export.zip: is neither a folder nor a zip file"


def damaged(path):
    data = bytearray(path.read_bytes())
    data[100:160] = bytes(60)
    path.write_bytes(data)
    return "export.zip: is no whole archive"


def out_of_its_folder(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil.txt", "x")
    return "its member '../evil.txt' would be written outside of the folder"


def link(path):
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo("images/link.png")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    return "its member 'images/link.png' is a link or device, no file"


@pytest.mark.parametrize("fault", [cut, damaged, out_of_its_folder, link])
def test_bad_zip_is_refused_and_leaves_nothing(packed, cache, fault):
    message = fault(packed)
    with pytest.raises(DataError, match=message) as caught:
        find_folder(packed, cache=cache)
    assert "\n" not in str(caught.value)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert not (cache.parent / "evil.txt").exists()


def test_more_than_fits_is_not_unpacked(packed, cache, monkeypatch):
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.bin", np.zeros(2**22, np.uint8).tobytes())
    usage = zipped.shutil.disk_usage(packed)
    monkeypatch.setattr(
        zipped.shutil, "disk_usage", lambda path: usage._replace(free=2**30 + 2**21)
    )
    with pytest.raises(DataError, match="export.zip: holds 0.0 GiB, but 1.0 GiB are free in"):
        find_folder(packed, cache=cache)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
