"""The two input pipelines that `loading.py` compares, each an endless iterator of batches.

Both read the same pictures and label maps, magnify by a uniform factor of 0.5 to 2, cut a window
(filled up with the mean colour and 255), flip with probability 0.5, and change brightness,
contrast, saturation and hue with probability 0.5 each, by the same amounts.

Both read the files where they lie: flaxseg by what it found when it checked them, the torch side
with OpenCV.
"""

import dataclasses
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator

SCALE = (0.5, 2.0)
MEAN_PIXEL = (124, 116, 104)
IGNORE = 255
_AHEAD = 4  # batches that flaxseg prepares beyond those its threads work on


@dataclasses.dataclass(frozen=True)
class Job:
    """What a side has to do.

    Attributes:
        side: "flaxseg" or "torch".
        folder: of CamVid.
        pairs: paths of image and label map of every training example.
        image_size: height and width of the result.
        batch_size: examples of a batch.
        workers: threads of flaxseg, worker processes of torch.
        crop: of the torch side: "scaled" scales the picture, pads and crops, as flaxseg's result
            does; "resized" is albumentations' RandomResizedCrop, which is cheaper: it never pads
            and resizes only what it has cut.
        normalize: whether pictures become normalised float32: by the torch side in its workers,
            by flaxseg in a compiled function on the device.
        keep_decoded: GiB of memory in which flaxseg keeps decoded pictures; torch has no like.
    """

    side: str
    folder: str
    pairs: tuple[tuple[str, str], ...]
    image_size: tuple[int, int]
    batch_size: int
    workers: int
    crop: str
    normalize: bool
    keep_decoded: float = 0.0


def batches(job: Job) -> Iterator:
    """The batches of a side."""
    return {"flaxseg": flaxseg_batches, "torch": torch_batches}[job.side](job)


def flaxseg_batches(job: Job) -> Iterator:
    """Our loader's."""
    import jax

    from flaxseg import data
    from flaxseg.preprocess import Preprocess

    transform = data.TrainTransform(
        job.image_size,
        scale=SCALE,
        scale_law="uniform",
        photometric=data.PhotometricDistortion(),
    )
    source = data.open_source("camvid", "train", data_dir=job.folder)
    if job.keep_decoded:
        source = data.KeptExamples(source, job.keep_decoded * 2**30)
        for index in range(len(source)):
            source[index]
    loader = data.train_loader(
        source, transform, batch_size=job.batch_size, seed=0, num_threads=job.workers
    )
    if not job.normalize:
        return iter(loader)
    preprocess = jax.jit(Preprocess())
    return (preprocess(batch.image).block_until_ready() for batch in loader)


def torch_batches(job: Job) -> Iterator:
    """Those of a torch DataLoader with albumentations and OpenCV."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import cv2
    import torch

    transform = albumentations_transform(job)

    class Pairs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(job.pairs)

        def __getitem__(self, index: int):
            image_path, label_path = job.pairs[index]
            image = cv2.imread(image_path, cv2.IMREAD_COLOR_RGB)
            label = cv2.imread(label_path, cv2.IMREAD_GRAYSCALE)
            result = transform(image=image, mask=label)
            return torch.as_tensor(result["image"]), torch.as_tensor(result["mask"])

    def order() -> Iterator[int]:
        generator = torch.Generator().manual_seed(0)
        while True:
            yield from torch.randperm(len(job.pairs), generator=generator).tolist()

    return iter(
        torch.utils.data.DataLoader(
            Pairs(),
            batch_sampler=torch.utils.data.BatchSampler(order(), job.batch_size, drop_last=True),
            num_workers=job.workers,
            worker_init_fn=lambda _: cv2.setNumThreads(0),
        )
    )


def albumentations_transform(job: Job):
    """The same augmentation in albumentations' own transforms."""
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2

    height, width = job.image_size
    scaled = [
        A.RandomScale((SCALE[0] - 1, SCALE[1] - 1), p=1),
        A.PadIfNeeded(
            height,
            width,
            position="random",
            border_mode=cv2.BORDER_CONSTANT,
            fill=MEAN_PIXEL,
            fill_mask=IGNORE,
        ),
        A.RandomCrop(height, width),
    ]
    crop = scaled if job.crop == "scaled" else [A.RandomResizedCrop(job.image_size)]
    colors = [
        A.RandomBrightnessContrast(32 / 255, 0, p=0.5),
        A.RandomBrightnessContrast(0, 0.5, p=0.5),
        A.ColorJitter((1, 1), (1, 1), (0.5, 1.5), (0, 0), p=0.5),
        A.HueSaturationValue(18, 0, 0, p=0.5),
    ]
    last = [A.Normalize(), ToTensorV2()] if job.normalize else []
    return A.Compose([*crop, A.HorizontalFlip(p=0.5), *colors, *last])


def serve(job: Job) -> None:
    """Answers every number of batches on stdin with the seconds that they took, as JSON.

    Before the clock starts, the batches that were prepared while nobody asked are thrown away.
    """
    import psutil

    process = psutil.Process()

    def take(count: int) -> None:
        for _ in itertools.islice(iterator, count):
            pass

    def cpu_seconds() -> float:
        family = [process, *process.children(recursive=True)]
        return sum(sum(member.cpu_times()[:2]) for member in family)

    iterator = batches(job)
    for line in sys.stdin:
        take(_AHEAD + 2 * job.workers)
        wall, cpu = time.perf_counter(), cpu_seconds()
        take(int(line))
        seconds = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
        print(json.dumps(seconds), flush=True)
