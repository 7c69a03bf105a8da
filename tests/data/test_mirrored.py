import numpy as np
import pytest

from flaxseg.data import Example, TrainTransform
from flaxseg.data.transforms.mirrored import hint, look_mirrored, mirror_table, parse_pairs
from flaxseg.errors import ConfigError

BODY = ("torso", "left_arm", "right_arm", "left_leg", "right_leg")


def transform(**fields):
    still = {"scale": (1.0, 1.0), "color_jitter": (0.0,) * 4, "resize": "stretch"}
    return TrainTransform((4, 6), **still, **fields)


@pytest.mark.parametrize("hflip", [0.0, 1.0])
@pytest.mark.parametrize("vflip", [0.0, 1.0])
def test_only_the_left_right_flip_swaps(hflip, vflip):
    label = np.arange(24, dtype=np.uint8).reshape(4, 6) % 6
    label[label == 5] = 255
    image = np.repeat(label[..., None], 3, axis=2)
    flipped = transform(hflip=hflip, vflip=vflip, flip_pairs=((1, 2), (3, 4)))(
        Example(image, label), np.random.default_rng(0)
    )
    moved = label[:: -1 if vflip else 1, :: -1 if hflip else 1]
    np.testing.assert_array_equal(flipped.image[..., 0], moved)
    swapped = moved.copy()
    for before, after in ((1, 2), (2, 1), (3, 4), (4, 3)):
        swapped[moved == before] = after
    np.testing.assert_array_equal(flipped.label, swapped if hflip else moved)


def test_the_same_draws_with_and_without_pairs():
    label = np.zeros((4, 6), np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    for seed in range(8):
        one, other = (
            transform(flip_pairs=pairs)(Example(image, label), np.random.default_rng(seed))
            for pairs in ((), ((1, 2),))
        )
        np.testing.assert_array_equal(one.image, other.image)


def test_table():
    table = mirror_table([(1, 2)])
    assert table.dtype == np.uint8 and table[[0, 1, 2, 255]].tolist() == [0, 2, 1, 255]


def test_pairs_by_name():
    texts = ("left_leg=right_leg", "left_arm=right_arm")
    assert parse_pairs(texts, BODY) == ((3, 4), (1, 2))
    assert parse_pairs(("a=b=c=d",), ("a=b", "c=d")) == ((0, 1),)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["left_arm"], "--flip-pairs left_arm: give two classes as LEFT=RIGHT"),
        (["left_arm=right_am"], "no class is called 'right_am'; did you mean right_arm"),
        (["=right_arm"], "no class is called ''"),
        (["left_arm=left_arm"], "'left_arm' is named twice"),
        (["left_arm=right_arm", "left_leg=right_arm"], "'right_arm' is named twice"),
        (["left_arm=right_arm", "right_arm=left_arm"], "is named twice"),
    ],
)
def test_mistakes(texts, message):
    with pytest.raises(ConfigError, match=message):
        parse_pairs(texts, BODY)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_arm", "right_arm"), ("arm_l", "arm_r"), ("Left-shoe", "Right-shoe"),
        ("LeftArm", "RightArm"), ("armLeft", "armRight"), ("LEFT EYE", "RIGHT EYE"),
        ("LArm", "RArm"), ("lung, left", "lung, right"), ("left", "right"), ("l.wing", "r.wing"),
        ("upper-left-leg", "upper-right-leg"), ("kidney (L)", "kidney (R)"), ("arm2L", "arm2R"),
        ("Left arm", "right arm"), ("Auge left", "Auge right"), ("left eye/l", "right eye/r"),
    ],
)  # fmt: skip
def test_names_of_mirror_images(left, right):
    assert look_mirrored(("sky", right, left)) == [(2, 1)]


@pytest.mark.parametrize(
    "classes",
    [
        ("l", "r"),
        ("left_arm", "right_leg"),
        ("cleft", "cright"),
        ("car", "cal"),
        ("bright", "blight"),
        ("left_arm", "arm"),
        ("leftover", "rightover"),
        ("turn left", "turn"),
    ],
)
def test_other_names(classes):
    assert look_mirrored(classes) == []


def test_hint_names_what_is_missing():
    assert hint(BODY, parse_pairs(["left_leg=right_leg"], BODY)) == (
        "classes left_arm and right_arm look like mirror images: "
        "--flip-pairs left_leg=right_leg left_arm=right_arm, or --hflip 0"
    )
    assert hint(BODY, [(1, 2), (3, 4)]) is None
    assert hint(BODY, [(1, 4), (2, 3)]) is None
    assert "--flip-pairs 'left arm=right arm'," in str(hint(("left arm", "right arm"), []))
