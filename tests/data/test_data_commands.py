import numpy as np
import pytest
from PIL import Image

from flaxseg.cli import main


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("FLAXSEG_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "100")


def run(capsys, *args):
    """Exit code, output and error of `flaxseg data ...`."""
    code = main(["data", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_prepare(plain_dir, cache, capsys):
    code, out, err = run(capsys, "prepare", "folder", "--data-dir", plain_dir)
    assert (code, err) == (0, "")
    *understood, ready = out.splitlines()
    assert ready == "folder is ready: 8 train, 2 val images, 2 classes"
    assert understood[:2] == ["layout: photos in images/, masks in masks/", "classes: classes.txt"]
    assert "every fifth picture validates" in understood[2] and len(understood) == 3
    assert len(list((cache / "folder").glob("plain-*"))) == 1


def test_prepare_with_gaps(plain_dir, save, capsys):
    save(plain_dir / "masks/p0.png", np.full((6, 8), 9, np.uint8))
    code, out, err = run(capsys, "prepare", "folder", "--data-dir", plain_dir)
    assert code == 2 and out == "" and "masks/p0.png: number 9" in err
    code, out, err = run(
        capsys, "prepare", "folder", "--data-dir", plain_dir, "--on-bad-sample", "skip"
    )
    assert code == 0 and "7 train, 2 val" in out and "left out: " in out


def test_check(plain_dir, save, capsys):
    save(plain_dir / "masks/p0.png", np.full((6, 8), 255, np.uint8))
    save(plain_dir / "masks/p1.png", np.ones((6, 8), np.uint8))
    save(plain_dir / "images/p2.png", np.zeros((12, 16, 3), np.uint8))
    save(plain_dir / "masks/p2.png", np.ones((12, 16), np.uint8))
    code, out, err = run(capsys, "check", "folder", "--data-dir", plain_dir)
    assert (code, err) == (0, "")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    splits = {row[0]: row[1:] for row in cells if row}
    assert splits["train"] == ["8", "8 x 6", "8 x 6", "16 x 12", "2", "9.09"]
    assert splits["val"] == ["2", "8 x 6", "8 x 6", "8 x 6", "1", "0.00"]
    classes = {row[1]: row for row in cells if len(row) == 7}
    paths = [plain_dir / f"masks/p{i}.png" for i in (0, 1, 2, 3, 5, 6, 7, 8)]
    pixels = np.concatenate([np.asarray(Image.open(path)).ravel() for path in paths])
    share = (pixels == 1).sum() / (pixels < 255).sum()
    assert classes["sky"][:3] == ["1", "sky", f"{100 * share:.2f}"]
    assert classes["sky"][4] == "87.5"
    assert classes["sky"][6] == f"{1 / np.log(1.02 + share):.3f}"
    assert "ids out of range: none" in out
    assert "masks without any labelled pixel, train: 1 (images/p0.png)" in out
    assert "masks of one class alone, train: 2 (images/p1.png, images/p2.png)" in out
    assert "samples that cannot be used: none" in out


def test_check_names_classes_without_pixels(plain_dir, save, capsys):
    (plain_dir / "classes.txt").write_text("ground\nsky\ncar, old\n[sea]\nsun\n")
    save(plain_dir / "masks/p4.png", np.full((6, 8), 4, np.uint8))  # one that validates
    code, out, _ = run(capsys, "check", "folder", "--data-dir", plain_dir)
    lines = [line for line in out.splitlines() if line.startswith("no pixels")]
    assert code == 0
    assert lines == ["no pixels: car, old", "no pixels: [sea]", "no pixels in train: sun"]


@pytest.mark.parametrize(
    ("count", "line"),
    [(1, "1 photo without mask: every pixel is sky"), (3, "3 photos without mask: every pixel is")],
)
def test_check_counts_photos_without_mask(plain_dir, capsys, count, line):
    for position in range(count):
        (plain_dir / f"masks/p{position}.png").unlink()
    code, out, _ = run(capsys, "check", "folder", "--data-dir", plain_dir, "--missing-mask", "sky")
    assert code == 0 and line in out


def test_check_lists_what_cannot_be_used(plain_dir, save, capsys):
    save(plain_dir / "masks/p0.png", np.full((6, 8), 9, np.uint8))
    save(plain_dir / "masks/p1.png", np.full((6, 8), 2, np.uint8))
    (plain_dir / "images/p2.png").write_bytes(b"[red]x[/red]")
    (plain_dir / "masks/p3.png").unlink()
    code, out, err = run(capsys, "check", "folder", "--data-dir", plain_dir)
    assert code == 2
    assert "ids out of range: 2 (48 pixels), 9 (48 pixels)" in out
    assert "samples that cannot be used: 4" in out
    assert "images/p2.png: is no readable" in out and "images/p3.png: has no mask" in out
    assert err.startswith(
        "error: 4 of 10 samples cannot be used, see above: mend them, or train with "
        f"--on-bad-sample skip; the first: {plain_dir}/masks/p0.png: number 9 in 48 pixels"
    )


def test_show(plain_dir, tmp_path, save, capsys):
    save(plain_dir / "images/p0.png", np.full((6, 8, 3), (10, 200, 30), np.uint8))
    out = tmp_path / "sheet.png"
    code, printed, _ = run(
        capsys, "show", "folder", "--data-dir", plain_dir, "--count", 3, "--out", out
    )
    assert (code, printed) == (0, f"3 of 8 train images drawn to {out}\n")
    sheet = np.asarray(Image.open(out))
    assert (sheet == (10, 200, 30)).all(-1).sum() >= 240 * 180  # the photo, enlarged


def test_show_shapes_by_default_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, printed, _ = run(capsys, "show", "shapes", "--split", "val", "--count", 1)
    assert (code, printed) == (0, "1 of 200 val images drawn to shapes-val.png\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("check", "pest"), "no data set is called 'pest'; did you mean pets"),
        (("prepare", "shapes"), "shapes are drawn on the fly: there is nothing to prepare"),
        (("check", "folder"), "folder needs its folder: give --data-dir. Expected are images/"),
        (("show", "shapes", "--count", "0"), "--count 0: give at least 1"),
        (
            ("show", "shapes", "--split", "tset"),
            "shapes has no split 'tset': use one of train, val",
        ),
        (("mend", "pets"), "Unrecognized options: mend, pets Available subcommands: prepare"),
        ((), "Expected one of {prepare, check, show}"),
    ],
)
def test_mistakes(capsys, args, message):
    code, _, err = run(capsys, *args)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
