import numpy as np
import pytest
from pycocotools import mask as pycocotools

from flaxseg.inference.rle import regions
from flaxseg.labels import IGNORE


@pytest.mark.parametrize("grain", [(1, 1), (17, 9), (60, 1), (1, 60)])
def test_regions_are_those_of_pycocotools_letter_by_letter(grain):
    rng = np.random.default_rng(grain)
    for size in rng.integers(1, 30, (40, 2)):
        label = np.kron(rng.choice([0, 1, 7, IGNORE], size), np.ones(grain)).astype(np.uint8)
        found = list(regions(label))
        assert [region.category for region in found] == [i for i in (0, 1, 7) if i in label]
        for region in found:
            mask = np.asfortranarray(label == region.category, np.uint8)
            expected = pycocotools.encode(mask)
            assert region.counts == expected["counts"].decode()
            assert region.area == pycocotools.area(expected) == mask.sum()
            assert region.box == tuple(pycocotools.toBbox(expected))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_a_region_in_many_columns_is_long_runs():
    label = np.zeros((3000, 2000), np.uint8)
    label[7:, 1:] = 1
    background, _ = regions(label)
    mask = pycocotools.decode(background.annotation(label.shape)["segmentation"])
    np.testing.assert_array_equal(mask, label == 0)
