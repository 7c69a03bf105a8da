import os
from pathlib import Path

import pytest
from PIL import Image

from flaxseg.errors import DataError
from flaxseg.inference import predict_files
from flaxseg.inference.inputs import find_inputs, output_files


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder as people have it; nothing in it is ever read."""
    monkeypatch.chdir(tmp_path)
    names = ["b.JPG", "a.tif", "sub/a.jpeg", "sub/deep/x.webp", "notes.txt", "sub/Thumbs.db"]
    for name in (*names, "._a.tif", ".cache/c.png", "raw.heic"):
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return Path("photos")


def found(*given, out="out"):
    return [item.path.as_posix() for item in find_inputs(given, Path(out)).photos]


def test_a_folder_stands_for_its_pictures_and_those_of_its_subfolders(tree):
    expected = ["photos/a.tif", "photos/b.JPG", "photos/sub/a.jpeg", "photos/sub/deep/x.webp"]
    assert found("photos") == found(tree, "photos/b.JPG", tree / "sub") == expected
    said = "passed over 3 files that are not named as pictures (1 of .txt, 1 of .heic, 1 of .db)"
    assert find_inputs([tree], Path("out")).passed_over == said


def test_a_pattern_that_the_shell_left_is_expanded(tree):
    assert found("photos/*") == found("photos")
    assert found("photos/*.*") == ["photos/a.tif", "photos/b.JPG"]
    assert found("photos/*/deep") == ["photos/sub/deep/x.webp"]
    assert found("photos/**/*.jpeg") == ["photos/sub/a.jpeg"]
    assert len(found("photos/**")) == len(found("photos/**/*.*")) == 4
    assert found("photos/[ab].*") == ["photos/a.tif", "photos/b.JPG"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tree):
    Path("photos/a[1].jpg").touch()
    assert found("photos/a[1].jpg") == ["photos/a[1].jpg"]


def test_a_file_is_taken_whatever_its_name(tree):
    assert found("photos/raw.heic", "gone.jpg") == ["photos/raw.heic", "gone.jpg"]


def test_outputs_inside_the_folder_are_no_photos_of_the_next_run(tree):
    before = found("photos", out="photos/out")
    for folder in ("photos/out/sub", "photos/out"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "a_mask.png").touch()
    assert found("photos", out="photos/out") == before
    assert found("photos/**", out="photos/out") == sorted(before)
    assert len(found("photos", out="elsewhere")) == len(before) + 2


def test_the_folder_of_the_photos_cannot_take_the_outputs(tree):
    with pytest.raises(DataError, match="is the folder of the photos itself.*photos/predictions"):
        find_inputs([tree], Path("photos/sub/.."))


def test_links_to_folders_are_followed_and_loops_end(tree):
    Path("more").mkdir()
    Path("more/z.png").touch()
    os.symlink(Path("more").absolute(), "photos/link")
    os.symlink(tree.absolute(), "photos/sub/loop")
    assert found("photos") == [
        *("photos/a.tif", "photos/b.JPG", "photos/link/z.png", "photos/sub/a.jpeg"),
        "photos/sub/deep/x.webp",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("empty", "^empty: holds no file; pictures end in .png, .jpg"),
        ("papers", r"^papers: holds no picture, but other files \(2 of .pdf, 1 of no ending\)"),
        ("nothing/*.jpg", r"^nothing/\*.jpg: matches no file; pictures end in"),
        ("papers/*.pdf", r"^papers/\*.pdf: matches no picture, but other files \(1 of .pdf\)"),
    ],
)
def test_where_no_picture_is_found_is_said(tree, given, message):
    Path("empty").mkdir()
    Path("papers").mkdir()
    for name in ("a.pdf", "b.PDF", "readme"):
        Path("papers", name).touch()
    with pytest.raises(DataError, match=message):
        find_inputs([given], Path("out"))


def test_an_output_beside_its_photo_is_found_through_links(tree):
    Path("photos/a_mask.png").touch()
    os.symlink(tree.absolute(), "alias")
    photos = find_inputs(["photos/a.tif", "photos/a_mask.png"], Path("alias")).photos
    with pytest.raises(DataError, match="alias/a_mask.png would overwrite the image photos/a_mask"):
        output_files(photos, Path("alias"), lambda _: ["mask.png"])


def test_subfolders_are_kept_and_a_second_run_writes_the_same(model_dir, tmp_path, capsys):
    for name in ("a.png", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 8), (200, 9, 9)).save(tmp_path / name)
    out = tmp_path / "predictions"
    for _ in range(2):
        written = predict_files(model_dir, [tmp_path], out)
        found = {path for path in out.rglob("*") if path.is_file()}
        assert found == {*written, out / "predictions.json", out / "photos.jsonl"}
        names = {path.relative_to(out).as_posix() for path in written}
        assert {"a_mask.png", "sub/a_overlay.png", "summary.csv"} < names and len(names) == 7
