"""How a training run looked at its validation pictures: what its settings say, if any."""

from collections.abc import Callable, Mapping
from typing import Any

from flaxseg.data import EvalTransform
from flaxseg.inference.canvas import USUAL_SIDE, Canvases
from flaxseg.inference.windows import Size, Windows, make_windows

VIEW = (
    *("eval_size", "eval_base_size", "eval_multiple", "eval_window", "eval_stride"),
    "interpolation",
)
"""The settings."""

_PREDICT = {"eval_size": "size", "eval_window": "window", "eval_stride": "stride"}
"""Those that `flaxseg predict` takes, under its names."""


def predict_view(settings: dict[str, Any]) -> dict[str, Size]:
    """Arguments of `flaxseg.inference.predict_files` by which any file of the run's weights looks
    as the run did; a base size and a multiple have none."""
    given = {ours: settings.get(theirs) for theirs, ours in _PREDICT.items()}
    return {name: (int(size[0]), int(size[1])) for name, size in given.items() if size}


def view_flags(view: Mapping[str, Size]) -> str:
    """The same as flags of `flaxseg predict`."""
    return " ".join(f"--{name} {height} {width}" for name, (height, width) in view.items())


def run_transform(settings: dict[str, Any]) -> EvalTransform:
    """What the validation pictures of a training run went through."""
    return EvalTransform(
        settings.get("eval_size"),
        settings.get("interpolation", "bilinear"),
        settings.get("eval_base_size"),
        settings.get("eval_multiple", 1),
    )


def run_canvases(
    settings: dict[str, Any], size: Size | None = None, max_side: int | None = None
) -> Canvases:
    """Sizes on which pictures fit, whatever theirs."""
    size = size or settings.get("eval_size")
    if size is not None:
        return Canvases((size,))
    base, multiple = settings.get("eval_base_size"), settings.get("eval_multiple", 1)
    return Canvases.seen(base, multiple, max_side or USUAL_SIDE)


def run_windows(settings: dict[str, Any], window: Any = None, stride: Any = None) -> Windows | None:
    """The windows that are asked for, or those of the training run."""
    if window is None:
        window, stride = settings.get("eval_window"), stride or settings.get("eval_stride")
    return make_windows(window, stride)


def run_sizes(settings: dict[str, Any], size: Size | None) -> Callable[[Size, float], Size] | None:
    """From a photo's size and a scale to the size at which it is to be seen, if that is another."""
    transform = run_transform(settings)
    if size is not None:
        return EvalTransform(size).seen_size
    if transform == EvalTransform(interpolation=transform.interpolation):
        return None
    return transform.seen_size
