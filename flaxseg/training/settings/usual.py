"""The settings that most runs name."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from flaxseg.training.settings.limits import POSITIVE, SIZE, Limit, at_least


@dataclasses.dataclass(frozen=True)
class UsualSettings:
    """What most runs name."""

    model: str = "ccnet"
    """Network, a name of `flaxseg.models.list_models()`."""

    data: str = "shapes"
    """Data set: ade20k, camvid, cityscapes, pets, "folder" for images and masks of one's own, or
    "shapes", which is drawn on the fly and needs no files."""

    data_dir: str | None = None
    """Folder of the data set's files, as archives or extracted. None: downloaded, where the data
    set has a public address."""

    recipe: str = "default"
    """Named set of defaults for all the other fields; flags override it."""

    workdir: str | None = None
    """Folder of everything the run writes; the same folder again resumes. None: runs/MODEL-DATA,
    and -RECIPE unless that is the default."""

    init: str | None = None
    """Checkpoint to start from, in any layout that `flaxseg convert formats` lists: file, folder,
    hf:owner/name, or an encoder alone. None: random numbers."""

    freeze: tuple[str, ...] = ()
    """Weights that stay as they are and get no gradient: encoder, or regular expressions for whole
    parts of their names, such as backbone.stages.0 or 'blocks.[0-5]'. Parts of which all is frozen
    do as in evaluations: no dropout, and norms with running statistics, which stay, too."""

    epochs: int = 10
    """Length of the run, in passes over the training images."""

    batch_size: int | Literal["auto"] = 8
    """Images per optimiser step, over all devices together. auto: the most that fit the devices'
    memory when the run begins, as the compiler counts; LR stays as it is."""

    image_size: tuple[int, int] = (64, 64)
    """Height and width of the training images, in pixels."""

    lr: float = 0.05
    """Peak learning rate."""

    LIMITS: ClassVar[dict[str, Limit]] = {
        "epochs": at_least(1),
        "batch_size": (lambda value: value == "auto" or value >= 1, "at least 1, or auto"),
        "image_size": SIZE,
        "lr": POSITIVE,
    }
    FREE: ClassVar[frozenset[str]] = frozenset({"workdir", "data_dir", "recipe"})
    SCORED: ClassVar[frozenset[str]] = frozenset({"data"})
    FIXED: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "model": str,
        "init": lambda path: path,
        "freeze": set,
    }
