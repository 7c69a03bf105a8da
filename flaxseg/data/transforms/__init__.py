"""Augmentation on the host: 8-bit pictures and their label maps, with OpenCV.

Every draw comes from the generator that the caller passes, so a seed repeats the augmentation.
Label maps are only ever moved by whole pixels of the nearest kind: no class id is interpolated.
"""

import cv2

from flaxseg.data.transforms.color import ColorJitter as ColorJitter
from flaxseg.data.transforms.color import PhotometricDistortion as PhotometricDistortion
from flaxseg.data.transforms.evaluate import EvalTransform as EvalTransform
from flaxseg.data.transforms.geometry import MEAN_PIXEL as MEAN_PIXEL
from flaxseg.data.transforms.train import TrainTransform as TrainTransform
from flaxseg.data.transforms.train import Transform as Transform
from flaxseg.data.transforms.windows import RareClasses as RareClasses

# The loader's threads already use the cores; OpenCV's own pool would only get in their way.
cv2.setNumThreads(0)
