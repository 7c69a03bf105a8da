"""Pascal VOC 2012: names and colours of its 21 classes, which its folder does not hold.

Everingham et al.: The Pascal Visual Object Classes Challenge (2012),
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/.
"""

from flaxseg.data.classes import Classes
from flaxseg.labels import IGNORE, Color, LabelSet

_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
_VOID: Color = (224, 224, 192)


def _color(index: int) -> Color:
    """VOC's colour of a number: its bits, three at a time, from the highest bit of R, G, B down."""
    red = green = blue = 0
    for bit in range(7, -1, -1):
        red, green, blue = (
            red | (index & 1) << bit,
            green | (index >> 1 & 1) << bit,
            blue | (index >> 2 & 1) << bit,
        )
        index >>= 3
    return red, green, blue


LABELS = LabelSet("voc", _NAMES, tuple(map(_color, range(len(_NAMES)))))
"""The 20 kinds of objects and the background."""

CLASSES = Classes(
    LABELS,
    colors={**{color: i for i, color in enumerate(LABELS.palette)}, _VOID: IGNORE},
    source="Pascal VOC",
)
"""The same as a class file would say it; the border of objects does not count."""
