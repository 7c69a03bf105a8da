"""Where the weights of a checkpoint come from, for the model directories that are made of it."""

from pathlib import Path

from convert.formats import Format
from convert.sources import HUB, Checkpoint
from flaxseg.files import sha256_of
from flaxseg.origin import Chain, Origin


def origin_of(checkpoint: Checkpoint, layout: Format) -> Chain:
    """The one step that a checkpoint of a published layout is; its files are read once more.

    Folders of this machine are not told: what is written goes to others.

    Args:
        checkpoint: what was read.
        layout: what it was recognised as.
    """
    source = checkpoint.source
    step = Origin(
        source=source if source.startswith(HUB) else Path(source).resolve().name,
        files={file.name: sha256_of(file) for file in checkpoint.files},
        layout=layout.name,
        licence=layout.licence,
        non_commercial=layout.non_commercial,
    )
    return (step,)
