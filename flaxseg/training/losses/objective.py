"""What a run minimises, from its settings."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flaxseg.data.statistics import Statistics
from flaxseg.errors import ConfigError
from flaxseg.labels import LabelSet
from flaxseg.models import Output
from flaxseg.training.losses.class_weights import class_weights
from flaxseg.training.losses.combined import (
    HeadLoss,
    NetworkLoss,
    Term,
    combine,
    labelled_pixels,
    loss_terms,
    term_names,
)
from flaxseg.training.losses.cross_entropy import cross_entropy
from flaxseg.training.losses.dice import dice
from flaxseg.training.losses.focal import focal
from flaxseg.training.losses.iou import iou
from flaxseg.training.losses.lovasz import lovasz_softmax
from flaxseg.training.losses.ohem import ohem, ohem_mmseg
from flaxseg.training.settings.loss import LossSettings, parse_terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a run minimises.

    Attributes:
        loss: terms of the network's output, whose sum is minimised.
        aux_weights: weight of each auxiliary head; none if the heads are not trained.
        class_weights: weight of each class (K,), where the classes are weighted.
        settings: what it was built from.
        terms: names of the terms, if there are several.
    """

    loss: NetworkLoss
    aux_weights: tuple[float, ...]
    class_weights: np.ndarray | None
    settings: LossSettings
    terms: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        settings: LossSettings,
        *,
        labels: LabelSet,
        aux_weights: tuple[float, ...],
        count: Callable[[], Statistics],
    ) -> "Objective":
        """Builds the loss that the settings name.

        Args:
            settings: of the run.
            labels: classes of the training images.
            aux_weights: the network's own, one for each auxiliary head.
            count: counts the pixels of the training labels, called only if they are needed.

        Raises:
            ConfigError: a setting that fits neither the network nor the classes.
        """
        heads = _aux_weights(settings.aux_weight, aux_weights)
        if settings.aux_loss and not heads:
            raise ConfigError(
                "--aux-loss needs a network that trains auxiliary heads: leave it out, or choose "
                "another --model"
            )
        weights = class_weights(settings.class_weights, labels, count)
        main = _head_terms(settings, settings.loss, weights)
        aux = _head_terms(settings, settings.aux_loss, weights) if settings.aux_loss else main
        corners = settings.loss_align_corners
        loss = functools.partial(loss_terms, main=main, aux=combine(aux), align_corners=corners)
        names = term_names(main, heads)
        return cls(loss, heads, weights, settings, tuple(names) if len(names) > 1 else ())

    def weigh(self, output: Output, labels: jax.Array) -> jax.Array:
        """What a mean over the pixels of a part of a batch divides by, float32: the part's weight.

        Args:
            output: of the network, whose main head has a score for each class.
            labels: class ids or 255, (B, H, W).
        """
        if self.settings.loss_average == "all":
            return jnp.asarray(labels.size, jnp.float32)
        if self.class_weights is None:
            return labelled_pixels(output, labels)
        weights = jnp.asarray(self.class_weights, jnp.float32)
        return jnp.sum(jnp.where(labels[..., None] == jnp.arange(len(weights)), weights, 0))

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that goes on from it, as JSON values.

        Nothing at the defaults, as in the checkpoints from before there was a choice.
        """
        values = {
            field.name: getattr(self.settings, field.name)
            for field in dataclasses.fields(LossSettings)
            if getattr(self.settings, field.name) != field.default
        }
        if self.class_weights is not None:
            values["class_weights"] = [f"{weight:.4g}" for weight in self.class_weights]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _aux_weights(given: tuple[float, ...], own: tuple[float, ...]) -> tuple[float, ...]:
    """The weights of the auxiliary heads; none if all are 0, so that they are not computed."""
    if len(given) > 1 and len(given) != len(own) or given and not own:
        shown = " ".join(map(str, given))
        raise ConfigError(
            f"--aux-weight is {shown}, but the network has {len(own)} auxiliary heads: give one "
            "number for all of them or one for each"
            if own
            else f"--aux-weight is {shown}, but the network has no auxiliary heads: leave it out"
        )
    weights = given * len(own) if len(given) == 1 else given or own
    return weights if any(weights) else ()


def _head_terms(
    settings: LossSettings, texts: tuple[str, ...], weight: np.ndarray | None
) -> list[Term]:
    pixelwise: dict[str, Any] = {"weight": weight}
    smooth = pixelwise | {"label_smoothing": settings.label_smoothing}
    average = {"average": settings.loss_average}
    threshold = {"threshold": settings.ohem_threshold}
    images = {"per_image": settings.loss_per_image}
    losses: dict[str, HeadLoss] = {
        "cross_entropy": functools.partial(cross_entropy, **smooth, **average),
        "focal": functools.partial(focal, **pixelwise, **average, gamma=settings.focal_gamma),
        "ohem": functools.partial(ohem, **smooth, **threshold),
        "ohem_mmseg": functools.partial(
            ohem_mmseg, **smooth, **average, **threshold, min_kept=settings.ohem_min_kept
        ),
        "dice": functools.partial(dice, **images),
        "lovasz": functools.partial(lovasz_softmax, **images),
        "iou": iou,
    }
    terms = parse_terms("--loss", texts)
    return [Term(weight, losses[name], name) for name, weight in terms.items()]
