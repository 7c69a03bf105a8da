"""metrics.jsonl: the rows of metrics.csv as JSON, one object a line."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flaxseg.files import replace_text


class JsonLines:
    """A file of JSON objects; what has no value is left out of them."""

    def __init__(self, path: Path, rows: Iterable[Mapping[str, str]]):
        """Begins the file anew with the rows of metrics.csv, as `read_rows` gives them.

        So both hold the same numbers, whenever a run was killed.
        """
        self.path = path
        replace_text(path, "".join(_line(_numbers(row)) for row in rows))

    def write(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Appends an object; nan is left out."""
        known = {name: value for name, value in values.items() if not math.isnan(value)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, "epoch": epoch, **known}))


def _numbers(row: Mapping[str, str]) -> dict[str, Any]:
    kinds = {"step": int, "epoch": int}
    return {name: kinds.get(name, float)(text) for name, text in row.items() if text}


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
