"""Notebooks are kept as their reader begins: nothing ran yet. Each is that of a page."""

import json

import pytest
from reading import LINK, ROOT

NOTEBOOKS = sorted((ROOT / "docs").glob("notebooks/*.ipynb"))


def kept(text):
    """What a notebook holds of a run, by cell."""
    cells = enumerate(json.loads(text)["cells"])
    fields = ("outputs", "execution_count")
    return [(i, field) for i, cell in cells for field in fields if cell.get(field)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_a_run_is_kept(path):
    assert kept(path.read_text()) == []


def test_what_a_run_leaves_is_found():
    cells = [
        {"cell_type": "markdown", "source": "A picture"},
        {"cell_type": "code", "source": "1", "execution_count": 3, "outputs": [{"text": "1"}]},
    ]
    assert kept(json.dumps({"cells": cells})) == [(1, "outputs"), (1, "execution_count")]


def test_every_notebook_is_that_of_a_page():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        page = ROOT / "docs" / f"{path.stem}.md"
        assert f"notebooks/{path.name}" in LINK.findall(page.read_text())
