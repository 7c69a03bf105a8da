"""What an evaluation looked at, with which settings, and what it found in each picture."""

import platform
from collections.abc import Mapping
from typing import Any

import flax
import jax
import numpy as np

import flaxseg
from flaxseg.data import EvalTransform, Example, Source
from flaxseg.errors import ConfigError
from flaxseg.inference.calibration import Calibration
from flaxseg.inference.metrics import Scores
from flaxseg.inference.per_image import PerImage, PictureLog
from flaxseg.labels import LabelSet
from flaxseg.models import Config, name_of

VIEW = (
    "data",
    "split",
    "missing_mask",
    "eval_size",
    "eval_base_size",
    "eval_multiple",
    "eval_window",
    "eval_stride",
    "eval_scales",
    "eval_flip",
    "interpolation",
)
"""Settings that say what is looked at, and how: where they differ, so do the scores of a model."""

_REST = (
    "data_dir",
    "limit",
    "max_pixels",
    "on_bad_sample",
    "eval_canvas",
    "dtype",
    "matmul_precision",
)
_USUAL = {"eval_multiple": 1, "interpolation": "bilinear", "missing_mask": "error"}


class Record:
    """Filled by `flaxseg.inference.evaluate_dir`.

    Attributes:
        model: the path that was given.
        network: name of the network.
        labels: the classes of the data set.
        settings: JSON values, those of `VIEW` and some that only rounding or reading depends on.
        scores: of all pictures.
        temperature: by which the model's logits are divided, if it was calibrated.
        calibration: what `--calibrate` found on these pictures.
        log: of the single ones.
    """

    model: str
    network: str
    labels: LabelSet
    settings: dict[str, Any]
    scores: Scores
    temperature: float | None = None
    calibration: Calibration | None = None
    log: PictureLog

    def __init__(self, like: Mapping[str, Any] | None = None):
        """Takes settings of another record, to which this one's must be equal by `check_views`."""
        self._like = like

    def begin(
        self,
        model: str,
        config: Config,
        source: Source,
        transform: EvalTransform,
        settings: Mapping[str, Any],
    ) -> None:
        """Notes what is about to be evaluated.

        Args:
            model: path of the model.
            config: of its network.
            source: the pictures.
            transform: what they go through.
            settings: by their names; others than those of a `Record` are left out.

        Raises:
            ConfigError: they differ from those of the record that this one is to be like.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        self.settings = {
            name: _plain(given.get(name, _USUAL.get(name))) for name in (*VIEW, *_REST)
        }
        if self._like is not None:
            check_views(self._like, self.settings)
        self.model, self.network = model, name_of(config.network)
        self.labels, self.log = source.labels, PictureLog(source.labels.num_classes)
        self._source, self._transform = source, transform

    @property
    def per_image(self) -> PerImage:
        """Names and confusion matrices of the pictures, in the order of the data set."""
        return self.log.per_image([self._source.name(index) for index in self.log.indices])

    def example(self, place: int) -> Example:
        """A picture and its label map as they were evaluated, by its place in `per_image`."""
        return self._transform(self._source[self.log.indices[place]])

    def prediction(self, place: int) -> np.ndarray:
        """Its predicted class ids, (H, W) uint8."""
        return self.log.prediction(self.log.indices[place])

    def to_json(self) -> dict[str, Any]:
        """All numbers, with what is needed to find them again."""
        return {
            "model": self.model,
            "network": self.network,
            "classes": list(self.labels.classes),
            "pictures": len(self.log.indices),
            "settings": self.settings,
            "versions": {
                "flaxseg": flaxseg.__version__,
                "jax": jax.__version__,
                "flax": flax.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "device": jax.devices()[0].device_kind,
            "scores": self.scores.to_dict(),
            "temperature": self.temperature,
            "calibration": self.calibration and self.calibration.to_json(),
        }


def check_views(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raises a `ConfigError` unless two models looked at the same pictures in the same way.

    Args:
        a: settings of a `Record`.
        b: those of the other one.
    """
    for name in VIEW:
        if a.get(name) != b.get(name):
            raise ConfigError(
                f"{name} is {shown(a.get(name))} for A and {shown(b.get(name))} for B: evaluate "
                "both with the same settings, or give --other-settings if they are what is compared"
            )


def _plain(value: Any) -> Any:
    """As it comes out of JSON."""
    return list(value) if isinstance(value, tuple) else value


def shown(value: Any) -> str:
    """A setting in words."""
    if value is None:
        return "not set"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
