"""How a published network's images were normalised, and where a layout can say so."""

from convert import huggingface
from convert.formats import Format
from convert.sources import Checkpoint
from flaxseg.preprocess import Preprocess

ASSUMED = (
    "nothing tells how its images were normalised: as for ImageNet is assumed; --mean, --std and "
    "--channels say it"
)


def from_checkpoint(
    checkpoint: Checkpoint, layout: Format, num_classes: int
) -> tuple[Preprocess, tuple[str, ...]]:
    """What the files beside a checkpoint say, or else what its layout's networks were trained with;
    and what to note about it.

    Raises:
        CheckpointError: what the files say is no normalisation.
    """
    if checkpoint.preprocessor:
        return huggingface.to_preprocess(checkpoint.preprocessor), ()
    known = _of_layout(layout, num_classes)
    return (known, ()) if known else (Preprocess(), (ASSUMED,))


def not_stored(
    preprocess: Preprocess, layout: Format, num_classes: int, *, folder: bool = False
) -> tuple[str, ...]:
    """What to tell whoever exports a network whose normalisation the readers will not guess.

    Args:
        preprocess: the network's.
        layout: of the file; none has a place for the normalisation.
        num_classes: of the network.
        folder: it is a Hugging Face folder, which lacks a place for the order of channels alone.
    """
    expected = _of_layout(layout, num_classes) or Preprocess()
    if folder:
        expected = Preprocess(preprocess.mean, preprocess.std)
    if preprocess.is_close(expected):
        return ()
    return (f"not stored: images are normalised as {preprocess}; its readers expect {expected}",)


def _of_layout(layout: Format, num_classes: int) -> Preprocess | None:
    return layout.by_classes.get(num_classes, layout.preprocess)
