"""Reads README, CONTRIBUTING and the pages of docs/: code blocks, commands, links."""

import dataclasses
import os
import re
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    if "_build" not in page.parts
)
SHELL = ("sh", "bash", "shell")

FENCE = re.compile(
    r"(?:^<!-- (?P<marker>[^\n]*?) -->\n+)?^```(?P<language>[\w{}-]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        place: page and line, for messages.
        language: what stands behind the fence, such as sh; empty for output of a terminal.
        text: what it holds.
        needs: what it needs that a test has not, by the comment `<!-- needs: ... -->` before it.
    """

    place: str
    language: str
    text: str
    needs: str | None


def blocks(text: str, page: str = "page") -> list[Block]:
    """All fenced blocks of a page."""
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        marker = match["marker"] or ""
        needs = marker.removeprefix("needs:").strip() if marker.startswith("needs:") else None
        found.append(Block(f"{page}:{line}", match["language"], match["text"], needs))
    return found


def commands(block: Block) -> list[str]:
    """The commands of a block: lines of a shell, or those behind `$ ` in what a terminal showed."""
    text = block.text.replace("\\\n", " ")
    if block.language in SHELL:
        return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return re.findall(r"^\$ (.+)$", text, re.MULTILINE)


def spans(text: str) -> Iterator[str]:
    """What stands between single backticks, lines joined, outside of blocks."""
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", FENCE.sub("", text)):
        yield " ".join(span.split())


OURS = (["flaxseg"], ["python", "train.py"], ["python", "-m", "convert"])
"""How a command line of ours begins."""


def ours(command: str) -> list[list[str]]:
    """Arguments of `flaxseg` for each command of ours in a line, whatever starts it."""
    found = []
    words = shlex.split(command, comments=True)
    for i, word in enumerate(words):
        if " " in word:
            found += ours(word)
        for begin, name in zip(OURS, ([], ["train"], ["convert"]), strict=True):
            if words[i : i + len(begin)] == begin:
                rest = words[i + len(begin) :]
                end = next((n for n, w in enumerate(rest) if w in ("|", "&&", ";", ">")), len(rest))
                found.append([*name, *(w for w in rest[:end] if w != "…")])
    return [args for args in found if args]  # a folder may be called flaxseg, too


LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links and anchors of a page that lead nowhere."""
    bad = []
    for link in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / path)) if path else page
        if not target.exists():
            bad.append(link)
        elif anchor and target.suffix == ".md":
            known = anchors(text if target == page else target.read_text())
            bad += [link] if anchor not in known else []
    return bad


def anchors(text: str) -> set[str]:
    """Names of a page's headings in links, as code hosts and myst make them."""
    plain = FENCE.sub("", text)
    return {_slug(title) for title in re.findall(r"^#+ (.+)$", plain, re.MULTILINE)}


def _slug(title: str) -> str:
    title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").strip().lower()
    title = unicodedata.normalize("NFC", title)
    return re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
