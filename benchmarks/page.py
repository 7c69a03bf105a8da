"""Pages whose tables are made by a command: what stands between markers is written anew.

A region begins with `<!-- NAME -->` and ends with `<!-- end -->`, each on a line of its own. The
rest of the page is written by hand.
"""

from collections.abc import Mapping
from pathlib import Path

from flaxseg.files import replace_text

END = "<!-- end -->"


def filled(text: str, regions: Mapping[str, str]) -> str:
    """The page with new contents in its regions.

    Raises:
        ValueError: the page lacks one of them.
    """
    for name, made in regions.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(END)
        if not end:
            raise ValueError(f"the page has no region <!-- {name} --> … {END}")
        text = f"{before}{begin}{made}\n{end}{after}"
    return text


def fill(page: Path, regions: Mapping[str, str]) -> None:
    """Writes a page with new contents in its regions.

    Raises:
        ValueError: the page lacks one of them.
    """
    replace_text(page, filled(page.read_text(encoding="utf-8"), regions))
