"""Tells which samples a run goes without."""

import pathlib
from collections.abc import Iterable

from flaxseg.data.problems import BadSample
from flaxseg.data.source import Source
from flaxseg.files import replace_text

FILE = "skipped.txt"
_SHOWN = 3


def skipped_samples(sources: Iterable[Source]) -> list[BadSample]:
    """What was left out when the sources were prepared, each sample once."""
    return list(
        dict.fromkeys(sample for source in sources for sample in getattr(source, "skipped", ()))
    )


def list_skipped(sources: Iterable[Source], workdir: pathlib.Path) -> list[str]:
    """Writes `skipped.txt`, one reason per line, if anything was left out.

    Args:
        sources: the splits of a run.
        workdir: folder to write to.

    Returns:
        Lines for the console with the number, the first few and where the others are.
    """
    skipped = skipped_samples(sources)
    if not skipped:
        return []
    path = workdir / FILE
    replace_text(path, "".join(f"{sample.reason}\n" for sample in skipped))
    word = "sample" if len(skipped) == 1 else "samples"
    return [
        f"{len(skipped)} {word} left out, listed in {path}:",
        *(f"  {sample.reason}" for sample in skipped[:_SHOWN]),
        *(["  ..."] if len(skipped) > _SHOWN else []),
    ]
