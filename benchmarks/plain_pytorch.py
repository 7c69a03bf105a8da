"""Trains CCNet's PyTorch reference by the tutorial's recipe, as a plain PyTorch script would.

    python benchmarks/plain_pytorch.py CAMVID [--image-size 96 128] [--epochs 6] [--seeds 0 1]

Nothing of flaxseg's training takes part: PyTorch draws the weights, the order of the images and the
flips. For the distribution of scores over seeds, beside that of

    python train.py --model ccnet --recipe tutorial --data camvid --data-dir CAMVID \
        --image-size 96 128 --eval-size 96 128 --vflip 0 --epochs 6 --seed N

One line per epoch: mean training loss, and mIoU on the validation images, stretched, not flipped.
"""

import argparse
import sys
import time

import cv2
import numpy as np
import torch
from torch.nn import functional as F

import torch_ref
from flaxseg import cli, data
from flaxseg.inference.metrics import Scores, confusion_matrix
from flaxseg.labels import IGNORE
from flaxseg.preprocess import Preprocess

BATCH_SIZE = 8
LEARNING_RATE = 0.1


def tensors(source: data.Source, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """All of a split, stretched: normalised images (N, 3, H, W), labels (N, H, W)."""
    examples = [source[i] for i in range(len(source))]
    images = [cv2.resize(x.image, size[::-1], interpolation=cv2.INTER_LINEAR) for x in examples]
    # As albumentations does, which the tutorial uses. flaxseg measures from the pixels' centres.
    labels = [cv2.resize(x.label, size[::-1], interpolation=cv2.INTER_NEAREST) for x in examples]
    preprocess = Preprocess()
    normalised = (np.stack(images) / 255 - preprocess.mean) / preprocess.std
    channels_first = torch.from_numpy(normalised.astype(np.float32)).permute(0, 3, 1, 2)
    return channels_first.contiguous(), torch.from_numpy(np.stack(labels).astype(np.int64))


def train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    """One pass over what `tensors` gives, in random order; returns the mean loss.

    The incomplete batch is left out.
    """
    model.train()
    losses = []
    for batch in torch.randperm(len(images)).split(BATCH_SIZE):
        if len(batch) < BATCH_SIZE:
            break
        flipped = torch.rand(BATCH_SIZE) < 0.5
        x = torch.where(flipped[:, None, None, None], images[batch].flip(3), images[batch])
        y = torch.where(flipped[:, None, None], labels[batch].flip(2), labels[batch])
        loss = F.cross_entropy(model(x).logits, y, ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.inference_mode()
def miou(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """The mean IoU over all pixels of what `tensors` gives."""
    model.eval()
    total = np.zeros((classes, classes), np.int64)
    for x, y in zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True):
        found = model(x).logits.argmax(1).numpy()
        total += np.asarray(confusion_matrix(found, y.numpy(), classes), np.int64)
    return float(Scores.from_matrix(total).miou)


def main() -> None:
    """Trains once for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", help="folder of CamVid")
    parser.add_argument("--image-size", type=int, nargs=2, default=(96, 128), metavar=("H", "W"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    sources = [data.open_source("camvid", s, data_dir=args.data_dir) for s in ("train", "val")]
    train, val = (tensors(source, tuple(args.image_size)) for source in sources)
    classes = sources[0].labels.num_classes
    for seed in args.seeds:
        torch.manual_seed(seed)
        model = torch_ref.create_model("ccnet", num_classes=classes)
        optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)
        for epoch in range(1, args.epochs + 1):
            start = time.monotonic()
            loss, score = train_epoch(model, optimizer, *train), miou(model, *val, classes)
            seconds = time.monotonic() - start
            print(f"{seed=} {epoch=} {loss=:.4f} miou={score:.4f} {seconds=:.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
