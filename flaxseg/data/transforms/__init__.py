"""Augmentation on the host: 8-bit pictures and their label maps, with OpenCV.

Every draw comes from the generator that the caller passes, so a seed repeats the augmentation.
Label maps are only ever moved by whole pixels of the nearest kind: no class id is interpolated.

Geometry and colours are changed on the host, values are normalised on the device. Of 8 crops of
512x512, `benchmarks/host_or_device.py` measured in CPU time per image (2 cores of an Intel Xeon
that did other work, too): flip 0.14 ms with OpenCV and 0.60 compiled by JAX, photometric distortion
2.3 and 20 ms, normalisation 0.9 and 0.65 ms. Normalising on the device also moves a quarter of the
bytes, and XLA joins it with the step. No accelerator was measured; whatever one gains by computing
faster, its step would have to wait for, while the loader's threads work beside the step.
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
