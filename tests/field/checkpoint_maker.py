"""Checkpoints as training programs leave them, around the tensors of one narrow network."""

import gzip
import io
import os
import pathlib
import sys
import types
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import convert
from convert.__main__ import main
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.errors import CheckpointError

NARROW = {
    "backbone.widths": (4, 8, 10, 16),
    "backbone.depths": (1, 1, 1, 1),
    "channels": 8,
}
Tensors = dict[str, torch.Tensor]


def narrow(num_classes: int = 3, name: str = "segformer_b0_hf") -> models.Model:
    config = models.get_config(name, num_classes=num_classes, **NARROW)
    return native.fill(models.abstract_model(config), random_state(config, 0))


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def halved(tensors: Tensors) -> Tensors:
    """Another set of weights for the same network, such as the average beside the last ones."""
    return {k: t / 2 if t.is_floating_point() else t for k, t in tensors.items()}


def compressed(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return gzip.compress(buffer.getvalue())


class Strangers:
    """Makes objects of classes that only the writer of a file has."""

    def __init__(self):
        self.modules: dict[str, types.ModuleType] = {}

    def make(self, module: str, name: str, **attributes: Any) -> Any:
        kind = type(name, (), {"__module__": module})
        for end, letter in enumerate(f"{module}."):  # pickle imports the packages around it, too
            if letter == ".":
                self.modules.setdefault(module[:end], types.ModuleType(module[:end]))
        setattr(self.modules[module], name, kind)
        stranger = kind()
        vars(stranger).update(attributes)
        return stranger


class Checkpoints:
    """Writes files and reads them through the public doors.

    Attributes:
        tensors: of the narrow network, as its plain file holds them.
        arrays: what must come of them, by native key.
        strangers: makes objects of classes that are not there when a file is read.
    """

    def __init__(self, folder: pathlib.Path, tensors: Tensors, arrays: dict[str, np.ndarray]):
        self.folder, self.tensors, self.arrays = folder, dict(tensors), arrays
        self.strangers = Strangers()

    def save(self, content: Any, name: str = "x.pth", **options: Any) -> pathlib.Path:
        with mock.patch.dict(sys.modules, self.strangers.modules):
            torch.save(content, self.folder / name, **options)
        return self.folder / name

    def loads(
        self,
        content: Any,
        name: str = "x.pth",
        *,
        says: Sequence[str] = (),
        classes: Sequence[str] | None = None,
    ) -> None:
        """Asserts that a file gives the network's weights, and which words the report has.

        Args:
            content: what torch saves; bytes are written as they are.
            name: of the file.
            says: the words.
            classes: names of the classes, where the file has them.
        """
        model, report = convert.load(self._write(content, name))
        found = native.state_dict(model)
        assert found.keys() == self.arrays.keys()
        for key, array in self.arrays.items():
            np.testing.assert_array_equal(found[key], array, key)
        missing = [word for word in says if word not in self._without_place(str(report))]
        assert not missing, f"{missing} not in:\n{report}"
        if classes is not None:
            assert report.labels.classes == tuple(classes)

    def refused(
        self,
        content: Any,
        *words: str,
        name: str = "x.pth",
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Asserts one line of an error that names the file and has these words, from both doors."""
        path = self._write(content, name)
        with pytest.raises(CheckpointError) as caught:
            convert.load(path)
        capsys.readouterr()
        assert main(["import", str(path), str(self.folder / "out")]) == 2
        assert not (self.folder / "out").exists()
        for line in (str(caught.value), capsys.readouterr().err.removesuffix("\n")):
            assert "\n" not in line
            missing = [word for word in (name, *words) if word not in self._without_place(line)]
            assert not missing, f"{missing} not in: {line}"

    def _write(self, content: Any, name: str) -> pathlib.Path:
        if not isinstance(content, bytes):
            return self.save(content, name)
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def _without_place(self, text: str) -> str:
        """The text without the temporary folder, whose name may hold any word."""
        return text.replace(os.fspath(self.folder), "")
