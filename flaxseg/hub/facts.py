"""What a model directory and the run around it know that others should know of a model."""

import dataclasses
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flaxseg.errors import CheckpointError, ConfigError
from flaxseg.exported import kind_of
from flaxseg.files import sha256_of
from flaxseg.inference.opening import MODEL_FOLDER, resolve_model_dir
from flaxseg.inference.record import VIEW, shown
from flaxseg.inference.run_view import predict_view
from flaxseg.info import Info, read_info
from flaxseg.model_dir import CONFIG_FILE, WEIGHTS_FILE
from flaxseg.models import Config
from flaxseg.origin import Chain
from flaxseg.report.command import SCORES_FILE, WEIGHTS


class Scored(NamedTuple):
    """Scores, and of what.

    Attributes:
        data: name of the data set.
        split: of the data set.
        how: how many pictures, and how the network looked at them, in words.
        means: score -> share of 1.
        classes: score -> a share of 1 for each class, None where it has none.
        file: all that `flaxseg eval --report` wrote, for others to read; None if nobody did.
    """

    data: str
    split: str
    how: str
    means: Mapping[str, float]
    classes: Mapping[str, list[float | None]]
    file: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Facts:
    """Of a model.

    Attributes:
        info: what `flaxseg info` shows, with the way of the weights.
        scored: the scores that are known, if any.
        view: arguments of `flaxseg.inference.predict_files` with which the training run looked at
            its validation pictures: size, window and stride, where it had them.
        unused: why a `scores.json` that lies there is not used; empty if none is left out.
    """

    info: Info
    scored: Scored | None
    view: Mapping[str, tuple[int, int]]
    unused: str = ""

    @property
    def chain(self) -> Chain:
        """The way of the weights, oldest step first."""
        return self.info.origin


def facts(path: Path, report: Path | None = None) -> Facts:
    """Reads what is known of a model.

    Args:
        path: work directory of a training run, or model directory.
        report: folder that `flaxseg eval --report` wrote for it. None: a `scores.json` in the
            directory counts, or else the scores that the training noted.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: the report is none, or of other weights.
    """
    directory = resolve_model_dir(path)
    if kind_of(directory):
        raise CheckpointError(
            f"{directory} is an exported file: push the model directory that it was made from"
        )
    info = read_info(directory)
    noted = _noted(info.origin)
    if report is not None:
        return Facts(info, _evaluated(report / SCORES_FILE, directory), _view(path))
    files = (folder / SCORES_FILE for folder in dict.fromkeys((path, directory)))
    for file in filter(Path.is_file, files):
        try:
            return Facts(info, _evaluated(file, directory), _view(path))
        except ConfigError as error:
            return Facts(info, noted, _view(path), str(error))
    return Facts(info, noted, _view(path))


def paper(config: Config) -> str:
    """The paper of a network as its module cites it, with the address at the end; empty if none."""
    text = " ".join((inspect.getdoc(inspect.getmodule(type(config))) or "").split("\n\n", 2)[1:2])
    found = re.match(r".*?https://arxiv\.org/abs/[\d.]*\d", " ".join(text.split()))
    return found.group() if found else ""


def _view(path: Path) -> dict[str, tuple[int, int]]:
    """How a training run looked at its validation pictures; empty for a model directory."""
    file = path / CONFIG_FILE
    if not (path / MODEL_FOLDER).is_dir() or not file.is_file():
        return {}
    try:
        return predict_view(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(f"{file} is no readable training config: {error}") from error


def _noted(chain: Chain) -> Scored | None:
    """What the last training found in its validation pictures."""
    step = chain[-1] if chain else None
    if step is None or not step.scores:
        return None
    return Scored(step.data, "val", "found by the training itself", step.scores, {})


def _evaluated(file: Path, directory: Path) -> Scored:
    """What `flaxseg eval --report` found with these weights."""
    again = f"evaluate again: flaxseg eval MODEL --report {file.parent}"
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        of = about.get(WEIGHTS)
        scores, settings = about["scores"], about["settings"]
        if of is not None and of == sha256_of(directory / WEIGHTS_FILE):
            return _scored(about, scores, settings)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}): {again}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is damaged ({error!r}): {again}") from None
    found = "other weights" if of else "weights that it does not tell"
    raise ConfigError(f"{file} has the scores of {found}, not of {directory}: {again}")


def _scored(about: dict[str, Any], scores: dict[str, Any], settings: dict[str, Any]) -> Scored:
    seen = {name: settings.get(name) for name in VIEW if name.startswith("eval_")}
    told = [f"{name} {shown(value)}" for name, value in seen.items() if value not in (None, 1)]
    # Folders of this machine are nobody else's business.
    others = {name: value for name, value in about.items() if name != "model"}
    others["settings"] = {name: value for name, value in settings.items() if name != "data_dir"}
    return Scored(
        data=settings["data"],
        split=settings["split"],
        how=", ".join([f"{about['pictures']} pictures", *told]),
        means={k: v for k, v in scores.items() if isinstance(v, int | float) and k != "pixels"},
        classes={"IoU": scores["iou"], **scores["by_class"]},
        file=others,
    )
