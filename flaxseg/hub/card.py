"""The card of a model: README.md as the Hugging Face hub shows it, front matter and text."""

import hashlib
import re
from typing import TYPE_CHECKING, Any

import jinja2

import flaxseg
from flaxseg.data.catalogue import FILE_DATASETS
from flaxseg.data.folder import FOLDER
from flaxseg.errors import ConfigError
from flaxseg.hub.facts import Facts, Scored, paper
from flaxseg.inference.metrics import percent
from flaxseg.info import sizes_in_words
from flaxseg.origin import NON_COMMERCIAL, Chain, licences

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

HUB = "hf:"
"""In front of a repository's name."""

METRICS = {
    "miou": ("mean IoU", "mean_iou"),
    "pixel_accuracy": ("pixel accuracy", "accuracy"),
    "mean_accuracy": ("mean accuracy of the classes", "mean_accuracy"),
    "mean_dice": ("mean Dice", "dice"),
}
"""Score -> what people call it, and the hub's name for it; others have one name for both."""

_SIGNED = re.compile(r"<!-- flaxseg push ([0-9a-f]{64}) -->\n\Z")
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&])")
_IDENTIFIER = re.compile(r"[A-Za-z0-9.+-]+")


class Markdown(str):
    """Text that stands in a card as it is; any other is shown to the letter."""


def card_text(
    facts: Facts, repository: str, *, picture: tuple[str, str] | None = None, licence: str = ""
) -> str:
    """The card of a model.

    Args:
        facts: what is known of it.
        repository: owner/name under which it is found on the hub.
        picture: name of a file beside the card, and the text below it.
        licence: the hub's identifier of the licence under which it is published. Empty: that of
            the weights it was made from, as far as it is known.

    Raises:
        ConfigError: a licence is given, though the weights are for non-commercial use only.
    """
    data = card_data(facts, repository, licence)
    text = _render(
        front=Markdown(data.to_yaml()),
        name=repository.partition("/")[2],
        repository=Markdown(repository),
        picture=picture and (Markdown(picture[0]), picture[1]),
        info=facts.info,
        sizes=sizes_in_words(facts.info.config),
        paper=paper(facts.info.config.network),
        flags=Markdown("".join(f" --{k} {h} {w}" for k, (h, w) in facts.view.items())),
        trained=trained_on(facts.chain),
        chain=facts.chain,
        forbidden=_forbidden(facts.chain),
        non_commercial=NON_COMMERCIAL,
        licence=licence,
        licences=licences(facts.chain),
        scored=facts.scored,
        means=_means(facts.scored),
        columns=facts.scored.classes if facts.scored else (),
        rows=_rows(facts),
        version=flaxseg.__version__,
    )
    return f"{text}<!-- flaxseg push {_digest(text)} -->\n"


def card_data(facts: Facts, repository: str, licence: str = "") -> Any:
    """The front matter of a card, a `huggingface_hub.ModelCardData`.

    Args:
        facts: what is known of the model.
        repository: owner/name under which it is found.
        licence: as for `card_text`.
    """
    from huggingface_hub import ModelCardData

    info, chain = facts.info, facts.chain
    fields = licence_fields(chain, licence)
    architecture = type(info.config).__module__.rpartition(".")[2]
    tags = ["semantic-segmentation", "jax", architecture, info.like]
    return ModelCardData(
        license=fields.get("license"),
        license_name=fields.get("license_name"),
        library_name="flaxseg",
        pipeline_tag="image-segmentation",
        tags=tags + ["non-commercial"] * bool(_forbidden(chain)),
        base_model=_one_or_all(_ancestors(chain, repository)),
        datasets=[name for name in trained_on(chain) if _is_published(name)] or None,
        model_name=repository.partition("/")[2],
        eval_results=_results(facts.scored) or None,
    )


def licence_fields(chain: Chain, given: str = "") -> dict[str, str]:
    """What the front matter says of the licence: an identifier of the hub, or "other" and a name.

    Args:
        chain: the way of the weights.
        given: identifier under which they are published; empty for that of the way.

    Raises:
        ConfigError: one is given, though the weights are for non-commercial use only.
    """
    forbidden, known = _forbidden(chain), licences(chain)
    if given and forbidden:
        raise ConfigError(
            f"--licence {given}: the licence of {forbidden[0]} goes with its weights "
            f"({'; '.join(known)}): leave --licence out"
        )
    names = [given] if given else list(known)
    if not names:
        return {}
    if len(names) == 1 and not forbidden and _IDENTIFIER.fullmatch(names[0]):
        return {"license": names[0].lower()}
    return {"license": "other", "license_name": "-and-".join(map(_slug, names))}


def is_untouched(text: str) -> bool:
    """Whether a card is as `card_text` made it, so that nothing of anybody else is lost with it."""
    signed = _SIGNED.search(text)
    return signed is not None and signed[1] == _digest(text[: signed.start()])


def trained_on(chain: Chain) -> list[str]:
    """The data sets of all trainings on the way, the last one first."""
    return list(dict.fromkeys(step.data for step in reversed(chain) if step.data))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _forbidden(chain: Chain) -> list[str]:
    """The sources whose licence forbids commercial use."""
    return [step.source or step.layout for step in chain if step.non_commercial]


def _slug(licence: str) -> str:
    """A licence in words as a short name: without what follows its name."""
    words = re.split("[:;,]", licence.lower().replace("'s", ""))[0]
    return re.sub(r"[^a-z0-9.]+", "-", words).strip("-")


def _ancestors(chain: Chain, repository: str) -> list[str]:
    """Other repositories of the hub on the way of the weights."""
    sources = (step.source for step in chain if step.source.startswith(HUB))
    names = (source.removeprefix(HUB).partition("@")[0] for source in sources)
    return [name for name in dict.fromkeys(names) if name != repository]


def _one_or_all(names: list[str]) -> list[str] | str | None:
    return names[0] if len(names) == 1 else names or None


def _is_published(data: str) -> bool:
    return data in FILE_DATASETS and data != FOLDER.name


def _means(scored: Scored | None) -> list[tuple[str, str]]:
    """Every score in words, and in percent."""
    means = scored.means if scored else {}
    return [(_names(score)[0], percent(share)) for score, share in means.items()]


def _names(score: str) -> tuple[str, str]:
    return METRICS.get(score, (score, score))


def _results(scored: Scored | None) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    if scored is None:
        return []
    return [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=scored.data.replace(" ", "-"),
            dataset_name=scored.data,
            dataset_split=scored.split,
            metric_type=_names(score)[1],
            metric_name=_names(score)[0],
            metric_value=round(share, 4),
        )
        for score, share in scored.means.items()
    ]


def _rows(facts: Facts) -> list[tuple[Any, ...]]:
    """Of each class: number, name, colour and, where they are known, its scores in percent."""
    labels = facts.info.labels
    columns = facts.scored.classes.values() if facts.scored else ()
    shares = [["-" if v is None else percent(v) for v in column] for column in columns]
    colors = (Markdown(f"`#{r:02x}{g:02x}{b:02x}`") for r, g, b in labels.palette)
    return list(zip(range(labels.num_classes), labels.classes, colors, *shares, strict=True))


def _render(**values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flaxseg.hub", "templates"),
        undefined=jinja2.StrictUndefined,
        finalize=_to_the_letter,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.j2").render(**values)


def _to_the_letter(value: Any) -> str:
    """A value in a line of Markdown that shows it as it is."""
    if isinstance(value, Markdown):
        return value
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))
