"""The page of `flaxseg demo` and the folder of `flaxseg export` in a browser: `make browser`."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from flaxseg.cli import main
from flaxseg.inference import open_segmenter
from flaxseg.model_dir import read_directory
from flaxseg.pictures import read_photo

MAX_BYTES = 400_000
MAX_SIDE = 256


@pytest.fixture(scope="module")
def url(directories, serve):
    flags = ["--port", "0", "--max-side", str(MAX_SIDE), "--max-bytes", str(MAX_BYTES)]
    return serve("-m", "flaxseg.cli", "demo", *map(str, directories.values()), *flags)


@pytest.fixture(scope="module")
def expected(directories, photo):
    """The label map of each model."""
    image = read_photo(photo)
    found = [open_segmenter(path, max_side=MAX_SIDE) for path in directories.values()]
    return [segmenter.start(image)().label for segmenter in found]


def segmented(page, photo, panels):
    page.set_input_files("#file", photo)
    page.wait_for_function(
        "n => document.querySelectorAll('.download:not([hidden])').length === n", arg=panels
    )


def pixel(page, panel, row, column, shape):
    """The colour on the screen at a pixel of the picture."""
    box = page.locator(".stage").nth(panel).bounding_box()
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    x = box["x"] + (column + 0.5) / shape[1] * box["width"]
    y = box["y"] + (row + 0.5) / shape[0] * box["height"]
    return shot[int(y), int(x)].astype(int)


def point_at(page, panel, row, column, shape):
    box = page.locator(".stage").nth(panel).bounding_box()
    page.mouse.move(
        box["x"] + (column + 0.5) / shape[1] * box["width"],
        box["y"] + (row + 0.5) / shape[0] * box["height"],
    )


def inner_points(label):
    """Five pixels of as many classes as there are, whose neighbours are of the same class."""
    inner = np.zeros(label.shape, bool)
    inner[1:-1, 1:-1] = True
    for rows in (-1, 0, 1):
        for columns in (-1, 0, 1):
            inner &= np.roll(label, (rows, columns), (0, 1)) == label
    by_class = [np.argwhere(inner & (label == name)) for name in np.unique(label)]
    by_class = [points[:: max(1, len(points) // 5)] for points in by_class if len(points)]
    return [tuple(points[turn]) for turn in range(5) for points in by_class if turn < len(points)][
        :5
    ]


def set_opacity(page, percent):
    page.locator("#opacity").fill(str(percent))


def saved_mask(page, panel):
    with page.expect_download() as download:
        page.locator(".download").nth(panel).click()
    assert download.value.suggested_filename == "scene_mask.png"
    return Image.open(download.value.path())


def test_the_page_shows_what_the_models_say(visit, url, photo, expected, directories):
    page = visit(url)
    segmented(page, photo, 2)
    names = [read_directory(path)[0].labels for path in directories.values()]
    shape = expected[0].shape
    for panel, (label, labels) in enumerate(zip(expected, names, strict=True)):
        assert len(np.unique(label)) > 1
        points = inner_points(label)
        assert len(points) == 5
        for row, column in points:
            point_at(page, panel, row, column, shape)
            for other, (theirs, known) in enumerate(zip(expected, names, strict=True)):
                told = page.locator(".readout").nth(other).inner_text()
                assert known.classes[theirs[row, column]] in told and "% sure" in told
        page.mouse.move(1, 1)
        set_opacity(page, 100)
        row, column = points[0]
        color = labels.palette[label[row, column]]
        np.testing.assert_allclose(pixel(page, panel, row, column, shape), color, atol=2)
        set_opacity(page, 0)
        assert np.abs(pixel(page, panel, row, column, shape) - color).max() > 20
        mask = saved_mask(page, panel)
        assert mask.mode == "P" and np.asarray(mask).tobytes() == label.tobytes()
        assert mask.getpalette()[:15] == list(np.ravel(labels.palette))
        shares = page.locator(".legend").nth(panel).locator(".share").all_inner_texts()
        counts = np.sort(np.bincount(label.ravel()))[::-1] / label.size
        assert shares == [f"{100 * share:.1f} %" for share in counts if share > 0.001] + [
            "< 0.1 %" for share in counts if 0 < share < 0.001
        ]


def test_legend_confidence_and_keys(visit, url, photo, expected):
    page = visit(url)
    segmented(page, photo, 2)
    color = """([panel, row, column]) => {
        const context = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
        context.drawImage(document.querySelectorAll('canvas')[panel], -column, -row);
        return [...context.getImageData(0, 0, 1, 1).data];
    }"""
    entries = page.locator(".legend").first.get_by_role("button")
    first, second = (entry.inner_text().split("\n")[0] for entry in entries.all()[:2])
    entries.first.click()
    assert entries.first.get_attribute("aria-pressed") == "true"
    names = ("cat", "dog", "sofa", "grass", "sky")
    for panel, label in enumerate(expected):
        for name, alpha in ((first, 255), (second, 0)):
            where = np.argwhere(label == names.index(name))
            if len(where):
                assert page.evaluate(color, [panel, *map(int, where[0])])[3] == alpha
    entries.first.click()
    assert page.evaluate(color, [0, 0, 0])[3] == 255
    before = page.evaluate(color, [0, 0, 0])
    page.get_by_text("Confidence", exact=True).click()
    assert page.evaluate(color, [0, 0, 0]) != before
    assert page.locator("#scale").is_visible()
    page.locator(".stage").first.focus()
    page.keyboard.press("ArrowRight")
    row, column = int(0.5 * 96), int(0.52 * 128)
    for panel, label in enumerate(expected):
        told = page.locator(".readout").nth(panel).inner_text()
        assert names[label[row, column]] in told
    crosses = [cross.get_attribute("style") for cross in page.locator(".cross").all()]
    assert crosses[0] == crosses[1] and "52%" in crosses[0]


def bomb():
    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    )


def test_messages(visit, url, photo, tmp_path):
    page = visit(url, refused=2)
    for name, content, told in (
        ("notes.txt", b"only a text", "notes.txt: is no readable picture"),
        ("bomb.png", bomb(), "bomb.png: has 40000 x 40000 = 1600000000 pixels"),
        ("long.png", bytes(MAX_BYTES + 1), "long.png: has more than the 400,000 bytes"),
    ):
        (tmp_path / name).write_bytes(content)
        page.set_input_files("#file", tmp_path / name)
        page.wait_for_selector(f"#message:has-text('{told}')")
        assert page.get_by_role("alert").is_visible()
        assert not page.locator(".panel").first.is_visible()
    segmented(page, photo, 2)
    assert not page.locator("#message").is_visible()


def test_a_picture_that_the_browser_cannot_show(visit, url, photo, tmp_path):
    page = visit(url)
    Image.open(photo).save(tmp_path / "scene.tiff")
    segmented(page, tmp_path / "scene.tiff", 2)
    size = "e => [e.naturalWidth, e.naturalHeight]"
    assert page.locator(".stage img").first.evaluate(size) == [128, 96]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_to_the_side(visit, url, photo, scheme):
    page = visit(url)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.get_by_role("button", name="drawn shapes 2").click()
    page.wait_for_selector(".download:visible")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360


@pytest.mark.parametrize("name", ["segformer_b0", "bisenetv2"])
def test_a_folder_says_what_onnxruntime_says(visit, serve, directories, photo, tmp_path, name):
    site = tmp_path / "site"
    assert main(["export", str(directories[name]), f"{site}/"]) == 0
    folder = ["--directory", str(site), "--bind", "127.0.0.1"]
    page = visit(serve("-m", "http.server", "0", *folder))
    segmented(page, photo, 1)
    header = read_directory(directories[name])[0]
    images = np.asarray(header.preprocess(read_photo(photo)[None]))  # pyright: ignore
    session = onnxruntime.InferenceSession(site / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.transpose(0, 3, 1, 2)})
    label = np.asarray(logits)[0].argmax(0)
    found = np.asarray(saved_mask(page, 0))
    assert len(np.unique(label)) > 1
    assert np.mean(found == label) >= 0.9999
    page.set_input_files("#file", Path(__file__))
    page.wait_for_selector("#message:has-text('is no picture that this browser reads')")
