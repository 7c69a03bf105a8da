import io
import random
import stat
import tarfile
import zipfile

import pytest

from flaxseg.data.archives import Archive, find_archives, unpack
from flaxseg.errors import DataError

ARCHIVE = Archive("data.tar.gz", r"images/[^/]+\.jpg")
CONTENT = random.Random(0).randbytes(3000)


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_only_what_is_needed_is_extracted(tmp_path, make):
    members = {
        "images/a.jpg": CONTENT,
        "./images/b b \N{LATIN SMALL LETTER E WITH ACUTE}.jpg": b"2",
        "images/deep/c.jpg": b"3",
        "labels/a.png": b"4",
        "images/a.mat": b"5",
    }
    unpack({ARCHIVE: make(tmp_path / "data.tar.gz", members)}, tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert found == {"images/a.jpg", "images/b b \N{LATIN SMALL LETTER E WITH ACUTE}.jpg"}
    assert (tmp_path / "out/images/a.jpg").read_bytes() == CONTENT


ESCAPES = ["../evil.jpg", "images/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"]


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize("name", ESCAPES)
def test_a_member_that_leaves_the_folder_is_refused(tmp_path, make, name):
    path = make(tmp_path / "data.tar.gz", {"images/a.jpg": CONTENT, name: b"evil"})
    with pytest.raises(DataError, match="data.tar.gz: its member .*evil.jpg' would be written out"):
        unpack({ARCHIVE: path}, tmp_path / "deep" / "out")
    assert not [p for p in tmp_path.rglob("*evil*")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_in_a_tar_is_refused(tmp_path, kind):
    members = {"images/a.jpg": link("images/a.jpg", "/etc/passwd", kind)}
    path = make_tar(tmp_path / "data.tar.gz", members)
    with pytest.raises(DataError, match="its member 'images/a.jpg' is a link or device, no file"):
        unpack({ARCHIVE: path}, tmp_path / "out")


def test_a_link_in_a_zip_is_refused(tmp_path):
    member = zipfile.ZipInfo("images/a.jpg")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="its member 'images/a.jpg' is a link or device, no file"):
        unpack({ARCHIVE: tmp_path / "data.zip"}, tmp_path / "out")


def cut_in_a_member(path):
    path.write_bytes(path.read_bytes()[:1500])


def cut_between_members(path):
    """Leaves the first member of a tar whole, and nothing after it."""
    path.write_bytes(path.read_bytes()[: 512 + 3072])


def overwritten(path):
    data = bytearray(path.read_bytes())
    data[900:940] = bytes(40)
    path.write_bytes(data)


def no_archive(path):
    path.write_bytes(b"<html>login</html>" * 100)


def nothing(path):
    path.write_bytes(b"")


def as_gz(path, members):
    return make_tar(path, members)


def as_tar(path, members):
    return make_tar(path, members, "w")


@pytest.mark.parametrize(
    ("make", "damage"),
    [
        *((as_gz, cut_in_a_member), (as_gz, overwritten), (as_gz, no_archive), (as_gz, nothing)),
        *((as_tar, cut_in_a_member), (as_tar, cut_between_members)),
        *((make_zip, cut_in_a_member), (make_zip, overwritten)),
    ],
)
def test_damaged_archive(tmp_path, make, damage):
    path = make(tmp_path / "data.tar.gz", {"images/a.jpg": CONTENT, "images/b.jpg": CONTENT})
    damage(path)
    message = r"data.tar.gz: is no whole archive \(.*\); the download may have been cut short, get"
    with pytest.raises(DataError, match=message):
        unpack({ARCHIVE: path}, tmp_path / "out")


def test_missing_archive(tmp_path):
    with pytest.raises(DataError, match="data.tar.gz: cannot be read .No such file"):
        unpack({ARCHIVE: tmp_path / "data.tar.gz"}, tmp_path / "out")


def test_full_disk_is_no_damage(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    path = make_tar(tmp_path / "data.tar.gz", {"images/a.jpg": CONTENT})
    monkeypatch.setattr("flaxseg.data.archives.shutil.copyfileobj", fail)
    with pytest.raises(OSError, match="No space left"):
        unpack({ARCHIVE: path}, tmp_path / "out")


def test_archives_are_found_under_both_names(tmp_path):
    assert find_archives(tmp_path, [ARCHIVE]) == {}
    (tmp_path / "data.tar").write_bytes(b"")
    assert find_archives(tmp_path, [ARCHIVE]) == {ARCHIVE: tmp_path / "data.tar"}
