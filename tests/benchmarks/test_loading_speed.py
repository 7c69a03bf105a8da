import cv2
import numpy as np
import pytest

from flaxseg.data.transforms.color import _Distortion


@pytest.fixture(scope="module")
def sides(load_benchmark):
    return load_benchmark("loading_sides")


@pytest.fixture(scope="module")
def loading(sides, load_benchmark):
    return load_benchmark("loading")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def camvid(tmp_path, monkeypatch, rng):
    """Four training pairs and one for validation, in the layout of SegNet's copy."""
    monkeypatch.setenv("FLAXSEG_CACHE", str(tmp_path / "cache"))
    for split, names in {"train": "abcd", "val": "v"}.items():
        for name in names:
            for folder, shape in ((split, (20, 24, 3)), (f"{split}annot", (20, 24))):
                path = tmp_path / "camvid" / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), rng.integers(0, 11, shape, np.uint8))
    return tmp_path / "camvid"


def test_ratios_are_those_of_neighbouring_turns(loading):
    """A slow moment that strikes both sides of a turn does not show in the ratio."""
    turns = [
        {
            "flaxseg": {"per_second": 3 * speed, "per_core": 5},
            "torch": {"per_second": 2 * speed, "per_core": 4},
        }
        for speed in (10, 1, 12)
    ]
    result = loading.summary(turns)
    assert result["per_second"] == {
        "flaxseg": 30,
        "torch": 20,
        "ratio": 1.5,
        "lowest_ratio": 1.5,
        "highest_ratio": 1.5,
    }
    row = loading.row("scaled", 2, result)
    assert row == "| scaled | 2 | 30 | 20 | 1.50 (1.50 to 1.50) | 5 | 4 | 1.25 (1.25 to 1.25) |"
    assert [line.count("|") for line in (row, *loading.HEAD.splitlines())] == [9, 9, 9]


def test_both_sides_get_the_same_files(loading, camvid):
    pairs = loading.find_pairs(camvid)
    assert pairs[0] == (str(camvid / "train/a.png"), str(camvid / "trainannot/a.png"))
    assert len(pairs) == 4


@pytest.mark.parametrize("normalize", [False, True])
def test_our_side_delivers_batches(sides, camvid, normalize):
    job = sides.Job(
        side="flaxseg",
        folder=str(camvid),
        pairs=(),
        image_size=(16, 18),
        batch_size=2,
        workers=1,
        crop="scaled",
        normalize=normalize,
    )
    batch = next(sides.batches(job))
    image = batch if normalize else batch.image
    assert image.shape == (2, 16, 18, 3)
    assert image.dtype == (np.float32 if normalize else np.uint8)


def test_the_device_computes_what_the_host_does(load_benchmark, rng):
    """To within the roundings of OpenCV's 8-bit HSV."""
    module = load_benchmark("host_or_device")
    images = rng.integers(0, 256, (16, 8, 9, 3), np.uint8)
    draws = module.draws_of(len(images))
    values = [draw.ravel().tolist() for draw in draws]
    images_on_host = [
        _Distortion(brightness, contrast, saturation, round(degrees / 2), bool(last))(image)
        for image, brightness, contrast, saturation, degrees, last in zip(
            images, *values, strict=True
        )
    ]
    even = tuple(np.round(draw / 2) * 2 if i == 3 else draw for i, draw in enumerate(draws))
    on_device = np.asarray(module.device_distort(images, even)).astype(int)
    apart = np.abs(on_device - np.stack(images_on_host))
    assert np.mean(apart) < 1.5 and np.quantile(apart, 0.99) <= 8
    flipped = np.asarray(module.device_flip(images))
    np.testing.assert_array_equal(flipped, np.stack(module.host_flip(images)))
    np.testing.assert_allclose(
        module.device_normalize(images), np.stack(module.host_normalize(images)), atol=1e-4
    )
