"""What `flaxseg predict` writes of a GeoTIFF lies on the map where the picture lies."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from rich.console import Console

from flaxseg.data import Shapes
from flaxseg.errors import DataError
from flaxseg.inference import predict_files
from flaxseg.inference.inputs import Input, output_files
from flaxseg.pictures import turn
from flaxseg.pictures.coordinates import read_coordinates
from flaxseg.pictures.write import write_mask

SCALE, POINTS, MATRIX, KEYS, NUMBERS, TEXTS, METADATA, NO_DATA = (
    *(33550, 33922, 34264, 34735, 34736, 34737),
    *(42112, 42113),
)
SIZE = (24, 40)
MAP = {NUMBERS: (6378137.0, 298.257223563), TEXTS: "WGS 84 / UTM zone 33°|"}
PLACE = {
    **MAP,
    SCALE: (0.3, 0.25, 0.0),
    POINTS: (0.0, 0.0, 0.0, 500000.1, 4600000.7, 0.0),
}
TURNED = {**MAP, MATRIX: (0.3, 0.1, 0.0, 5e5, 0.1, -0.3, 0.0, 4e6, *(0.0,) * 4, *(0.0,) * 3, 1.0)}
FAR = {**PLACE, POINTS: (7.0, 3.0, 0.0, 500000.1, 4600000.7, 12.0)}
CORNERS = {
    **MAP,
    POINTS: tuple(
        float(value)
        for row, column in itertools.product((0, 24), (0, 40))
        for value in (column, row, 0, 9 + column / 400 + row / 900, 47 - row / 300, 0)
    ),
}


def keys_of(raster_type):
    """WGS 84 / UTM zone 33N, whose pixels are areas (1) or points (2)."""
    entries = [(1024, 0, 1, 1), (1025, 0, 1, raster_type), (1026, TEXTS, 22, 0)]
    entries += [(2057, NUMBERS, 1, 0), (3072, 0, 1, 32633)]
    return (1, 1, 0, len(entries), *itertools.chain(*entries))


def geotiff(path, tags, raster_type=1, orientation=1, picture=None):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {**tags, KEYS: keys_of(raster_type), 274: orientation}.items():
        info.tagtype[tag] = {str: 2, int: 3, float: 12}[
            type(value if not isinstance(value, tuple) else value[0])
        ]
        info[tag] = value
    picture = Shapes("val", image_size=SIZE)[0].image if picture is None else picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, tiffinfo=info)
    return path


def tags_of(path):
    with Image.open(path) as picture:
        return dict(picture.tag_v2)


def on_map(tags, column, row, from_edge=True):
    """The place of a pixel, as the specification tells it from the tags of a file."""
    keys = np.reshape(tags[KEYS], (-1, 4))
    if from_edge and [1025, 0, 1, 2] in keys.tolist():
        column, row = column - 0.5, row - 0.5
    if MATRIX in tags:
        return (np.reshape(tags[MATRIX], (4, 4)) @ [column, row, 0, 1])[:2]
    points = np.reshape(tags[POINTS], (-1, 6))
    if SCALE in tags:
        (i, j, _, x, y, _), (across, down, _) = points[0], tags[SCALE]
        return np.array([x + (column - i) * across, y - (row - j) * down])
    found = np.c_[points[:, :2], np.ones(len(points))]
    return [column, row, 1] @ np.linalg.lstsq(found, points[:, 3:5], rcond=None)[0]


@pytest.fixture(scope="module")
def predicted(model_dir, tmp_path_factory):
    """A folder of GeoTIFFs and one of what was written, and what was said."""
    root = tmp_path_factory.mktemp("coordinates")
    photos = root / "photos"
    geotiff(photos / "plain.tif", {**PLACE, METADATA: "<GDALMetadata/>", NO_DATA: "0"})
    geotiff(photos / "gcps.tif", CORNERS)
    geotiff(photos / "damaged.tif", {**PLACE, POINTS: (0.0, 0.0, 0.0, 5.0)})
    Image.fromarray(Shapes("val", image_size=SIZE)[1].image).save(photos / "none.tif")
    console = Console(record=True, width=200)
    kinds = ["mask", "color", "overlay", "confidence", "probabilities"]
    written = predict_files(model_dir, [photos], root / "out", write=kinds, console=console)
    return root, written, console.export_text()


def test_masks_colours_and_confidences_have_the_tags_of_the_picture(predicted):
    root, written, _ = predicted
    for kind in ("mask", "color", "confidence"):
        file = root / "out" / f"plain_{kind}.tif"
        assert file in written
        found, expected = tags_of(file), tags_of(root / "photos" / "plain.tif")
        assert all(found[tag] == expected[tag] for tag in (*PLACE, KEYS))
        assert METADATA not in found and MATRIX not in found
        assert found.get(NO_DATA) == ("255" if kind == "mask" else None)
        with Image.open(file) as tiff, Image.open(file.with_suffix(".png")) as png:
            assert tiff.mode == png.mode and tiff.size == SIZE[::-1]
            np.testing.assert_array_equal(np.asarray(tiff), np.asarray(png))
            assert kind != "mask" or tiff.getpalette() == png.getpalette()
    assert tags_of(root / "out" / "gcps_mask.tif")[POINTS] == CORNERS[POINTS]


def test_what_has_no_coordinates_gets_none(predicted):
    root, written, said = predicted
    tiffs = sorted(file.name for file in (root / "out").glob("*.tif"))
    names = [f"{name}_{kind}.tif" for name in ("gcps", "plain") for kind in ("color", "confidence")]
    assert tiffs == sorted([*names, "gcps_mask.tif", "plain_mask.tif"])
    assert {file for file in written if file.suffix == ".tif"} == {*(root / "out").glob("*.tif")}
    reason = "its scale, tie points and matrix have 3, 4 and 0 numbers"
    assert f"damaged.tif: coordinates that make no sense ({reason}): the outputs have none" in said
    assert "plain.tif: pixels without data (GDAL's nodata 0) are segmented as any others" in said
    assert "none.tif: " not in said and "gcps.tif: " not in said


@pytest.mark.parametrize("tags", [PLACE, TURNED, FAR, CORNERS])
@pytest.mark.parametrize("raster_type", [1, 2])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_of_any_size_lies_where_the_picture_lies(tmp_path, tags, raster_type, orientation):
    # Pixel (row, column) holds its own number, to be found again after it was turned.
    numbers = np.arange(35, dtype=np.uint8).reshape(5, 7)
    path = geotiff(tmp_path / "a.tif", tags, raster_type, orientation, numbers)
    stored = read_coordinates(path.read_bytes())
    assert stored is not None
    shown = turn(numbers, orientation)
    height, width = shown.shape
    label = np.kron(shown, np.ones((3, 2), np.uint8))
    at = stored.shown(numbers.shape, orientation).resized(shown.shape, label.shape)
    write_mask(tmp_path / "a_mask.png", label, [(0, 0, 0)], at)
    before, after = tags_of(path), tags_of(tmp_path / "a_mask.tif")
    for row, column in itertools.product(range(height), range(width)):
        there = on_map(after, 2 * column + 1, 3 * row + 1.5)  # the centre of 2 x 3 pixels
        (at_row,), (at_column,) = np.nonzero(numbers == shown[row, column])
        expected = on_map(before, at_column + 0.5, at_row + 0.5)
        np.testing.assert_allclose(there, expected, rtol=0, atol=1e-8)
    with Image.open(tmp_path / "a_mask.tif") as mask:
        np.testing.assert_array_equal(np.asarray(mask), label)


def test_out_size_keeps_the_extent(model_dir, tmp_path):
    photo = geotiff(tmp_path / "a.tif", PLACE, raster_type=2)
    predict_files(model_dir, [photo], tmp_path / "out", write=["mask"], out_size=(12, 80))
    before, after = tags_of(photo), tags_of(tmp_path / "out" / "a_mask.tif")
    assert after[SCALE] == (0.15, 0.5, 0.0) and after[KEYS] == before[KEYS]
    for (row, column), (new_row, new_column) in {(0, 0): (0, 0), SIZE: (12, 80)}.items():
        there = on_map(after, new_column, new_row)
        np.testing.assert_allclose(there, on_map(before, column, row), rtol=0, atol=1e-9)


def test_a_second_run_makes_what_is_missing_and_removes_what_is_false(model_dir, tmp_path):
    out, photos = tmp_path / "out", [tmp_path / "photos" / f"{name}.tif" for name in "abc"]
    plain = Image.fromarray(Shapes("val", image_size=SIZE)[1].image)
    missing, false, foreign = (out / f"{photo.stem}_mask.tif" for photo in photos)

    def run():
        return {*predict_files(model_dir, [photos[0].parent], out, write=["mask"])}

    for photo in photos:
        geotiff(photo, PLACE)
    assert {missing, false, foreign} <= run()
    missing.unlink()
    for path in (*photos[1:], foreign):
        plain.save(path)
    assert {missing, false, foreign} & run() == {missing}
    assert missing.is_file() and not false.exists()
    assert foreign.is_file()  # whatever wrote it, we did not
    records = [json.loads(line) for line in (out / "photos.jsonl").read_text().splitlines()]
    assert [record["placed"] for record in records] == [True] * 4 + [False] * 2


def test_no_geotiff_overwrites_a_photo(tmp_path):
    photos = [Input(tmp_path / "a.tif"), Input(tmp_path / "a_mask.tif")]
    with pytest.raises(DataError, match=r"a_mask\.tif would overwrite the image"):
        output_files(photos, tmp_path, lambda _: ["mask.png"], lambda _: ["mask.tif"])
