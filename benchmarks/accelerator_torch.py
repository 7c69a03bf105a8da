"""The PyTorch side of `accelerator.py`: the twin, eager in both layouts, and compiled."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from accelerator_job import Job
from torch.nn import functional as F

import torch_ref

LAYOUTS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> dict[str, str]:
    """What every line tells of the device and the framework."""
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    return {"side": "torch", "device": name, "version": torch.__version__}


def network(job: Job) -> None:
    """Forward pass and training step, eager, in both layouts."""
    for layout in LAYOUTS:
        _measure(job, layout, compiled=False)


def network_compiled(job: Job) -> None:
    """The same in channels last through torch.compile."""
    _measure(job, "channels last", compiled=True)


def _measure(job: Job, layout: str, compiled: bool) -> None:
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = job.precision == "default"
    torch.backends.cudnn.allow_tf32 = job.precision == "default"
    for what, make in (("forward", forward_pass), ("training", training_step)):
        call = make(job, layout, compiled)
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        run = functools.partial(_turn, call)
        job.speed(what, run, peak=_peak, layout=layout, compiled=compiled)


def forward_pass(job: Job, layout: str, compiled: bool) -> Callable[[], None]:
    """One pass without gradients."""
    model, images, _ = _made(job, layout, compiled)
    model.eval()

    def call() -> None:
        with torch.inference_mode(), _autocast(job):
            model(images)

    return call


def training_step(job: Job, layout: str, compiled: bool) -> Callable[[], None]:
    """One step of SGD with momentum, all heads included."""
    model, images, labels = _made(job, layout, compiled)
    fused = DEVICE == "cuda"
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, fused=fused)

    def cross_entropy(scores: torch.Tensor) -> torch.Tensor:
        size = labels.shape[1:]
        scores = F.interpolate(scores.float(), size, mode="bilinear", align_corners=False)
        return F.cross_entropy(scores, labels)

    def call() -> None:
        optimizer.zero_grad()
        with _autocast(job):
            output = model(images, aux=True)
        heads = zip((1, *job.config.aux_weights), (output.logits, *output.aux), strict=True)
        loss = torch.stack([weight * cross_entropy(scores) for weight, scores in heads]).sum()
        loss.backward()
        optimizer.step()

    return call


def _made(job: Job, layout: str, compiled: bool) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The network in train mode, images and labels on the device."""
    memory_format = LAYOUTS[layout]
    model = torch_ref.create_model(job.config).to(DEVICE).to(memory_format=memory_format)
    images, labels = map(torch.from_numpy, job.arrays())
    images = images.movedim(-1, 1).to(DEVICE).contiguous(memory_format=memory_format)
    return (torch.compile(model) if compiled else model), images, labels.to(DEVICE)


def _autocast(job: Job) -> torch.autocast:
    return torch.autocast(DEVICE, torch.bfloat16, enabled=job.precision == "bfloat16")


def _turn(call: Callable[[], None], calls: int) -> None:
    for _ in range(calls):
        call()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _peak() -> int | None:
    """Most bytes of the GPU that tensors held since the last reset."""
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None
