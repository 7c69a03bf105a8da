"""The built pages load nothing from another host and have all public names; mistakes stop them."""

import ast
import html.parser
import json
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HTML = DOCS / "_build" / "html"
PUBLIC = ("flaxseg", "flaxseg.models", "flaxseg.data", "convert", "torch_ref")

LOADS = {
    **dict.fromkeys(("script", "img", "source", "iframe", "video", "embed"), "src"),
    "link": "href",
    "object": "data",
}
"""Elements that make a browser fetch something, with the attribute that says what."""

LINKS_THAT_LOAD_NOTHING = {"canonical", "next", "prev", "index", "search", "author"}


class _Loads(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "link" and values.get("rel") in LINKS_THAT_LOAD_NOTHING:
            return
        self.found += [values[LOADS[tag]] or ""] if LOADS.get(tag) in values else []


def loads_from_elsewhere(text: str) -> list[str]:
    """Addresses on other hosts that a page or a style sheet makes a browser fetch."""
    reader = _Loads()
    reader.feed(text)
    styles = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
    found = [*reader.found, *("".join(style) for style in styles)]
    return [address for address in found if re.match(r"(https?:)?//", address)]


def public_names(module: str) -> set[str]:
    """What a package's __init__.py gives away: `from x import A as A`, and what it defines."""
    path = ROOT / module.replace(".", "/") / "__init__.py"
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names if alias.asname == alias.name}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {f"{module}.{name}" for name in names if not name.startswith("_")}


def documented_names() -> set[str]:
    """Names that the built pages describe."""
    content = (HTML / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split()[0] for line in zlib.decompress(content).decode().splitlines()}


def test_no_page_loads_from_another_host():
    pages = [*HTML.rglob("*.html"), *HTML.rglob("*.css")]
    assert len(pages) > 30
    assert {str(page): loads_from_elsewhere(page.read_text()) for page in pages} == {
        str(page): [] for page in pages
    }


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        "@import 'https://fonts.example/css';",
        "@font-face { src: url(https://fonts.example/a.woff) }",
        '<img alt="badge" src="http://badge.example/a.svg">',
    ],
)
def test_another_host_is_found(text):
    assert len(loads_from_elsewhere(text)) == 1
    assert loads_from_elsewhere('<a href="https://arxiv.org">a paper</a>') == []


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_described(module):
    known = documented_names()
    # flaxseg.models gives what flaxseg gives, too; it is described once.
    known |= {name.replace("flaxseg.", "flaxseg.models.", 1) for name in known}
    names = public_names(module)
    assert len(names) > 5 and names - known == set()


def test_a_name_without_description_would_be_found():
    assert "flaxseg.load" in public_names("flaxseg") and "flaxseg.load" in documented_names()
    assert "flaxseg.guess" not in documented_names()


MISTAKES = {
    "nowhere.md": "[there](nowhere.md)",
    "#nothing": "[there](#nothing)",
    "flaxseg.guess": "```{eval-rst}\n:py:func:`flaxseg.guess`\n```",
    "flaxseg.labels.guess": "```{eval-rst}\n`flaxseg.labels.guess`\n```",
    "nowhere.png": "![picture](nowhere.png)",
    "guess_more": "```{eval-rst}\n.. autofunction:: flaxseg.guess_more\n```",
}
"""What the warning about a page names, and what stands there."""


def test_mistakes_stop_a_build(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for folder in ("inventories", "_static"):
        shutil.copytree(DOCS / folder, source / folder)
    pages = [f"page{number}" for number in range(len(MISTAKES))]
    (source / "index.md").write_text("# A\n\n```{toctree}\n" + "\n".join(pages) + "\n```\n")
    for page, text in zip(pages, MISTAKES.values(), strict=True):
        (source / f"{page}.md").write_text(f"# A page\n\n{text}\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-c", DOCS]
    done = subprocess.run([*command, source, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 1
    for page, mistake in zip(pages, MISTAKES, strict=True):
        lines = [line for line in done.stderr.splitlines() if mistake.strip("#") in line]
        assert lines and "WARNING" in lines[0], f"{page}: {done.stderr}"


NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_shows_what_it_made(notebook):
    page = HTML / "notebooks" / f"{notebook.stem}.html"
    text = page.read_text()
    pictures = dict(re.findall(r'<img alt="([^"]*)"[^>]* src="([^"]+)"', text))
    # Each has its own words: one without has its file's name.
    assert len(pictures) >= 2 and not any(words.endswith(".png") for words in pictures)
    assert all((page.parent / source).exists() for source in pictures.values())
    assert f'href="../{notebook.stem}.html"' in text
    (download,) = re.findall(r'<a class="[^"]*download[^"]*"[^>]* href="([^"]+)"', text)
    assert (page.parent / download).read_bytes() == notebook.read_bytes()


def test_a_cell_that_fails_stops_a_build(tmp_path):
    for folder in ("inventories", "_static"):
        shutil.copytree(DOCS / folder, tmp_path / "source" / folder)
    notebook = json.loads(NOTEBOOKS[0].read_text())
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    notebook["cells"] = [cell | {"source": "1 / 0"}]
    (tmp_path / "source" / "index.ipynb").write_text(json.dumps(notebook))
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", DOCS]
    command += [tmp_path / "source", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
