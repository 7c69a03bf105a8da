import pytest

from flaxseg.data import Source, list_datasets, open_source
from flaxseg.errors import DataError


def test_list():
    assert list_datasets() == ["ade20k", "camvid", "cityscapes", "folder", "pets", "shapes"]


def test_shapes_take_the_image_size():
    source = open_source("shapes", "val", image_size=(32, 40))
    assert isinstance(source, Source)
    assert source[0].image.shape == (32, 40, 3)
    assert open_source("shapes", "val")[0].label.shape == (96, 96)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("shape", {}, "no data set is called 'shape'; did you mean shapes"),
        ("CamVid", {}, "no data set is called 'CamVid'; did you mean camvid"),
        ("voc", {}, "no data set is called 'voc'; known: ade20k, camvid, city"),
        ("camvid", {}, "camvid needs its folder: give --data-dir"),
        ("shapes", {"data_dir": "x"}, "shapes has no files: drop --data-dir x"),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(DataError, match=message):
        open_source(name, "train", **arguments)
