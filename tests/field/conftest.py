import pytest
import torch
from checkpoint_maker import Checkpoints, narrow
from folder_maker import Folder

import convert
from flaxseg import native


@pytest.fixture
def folder(tmp_path, capsys):
    """An empty data folder."""
    return Folder(tmp_path / "mine", capsys)


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """The tensors of the narrow network's plain file, and its arrays."""
    model, path = narrow(), tmp_path_factory.mktemp("plain") / "plain.pth"
    convert.save(model, path, format="huggingface")
    return torch.load(path), native.state_dict(model)


@pytest.fixture
def checkpoints(tmp_path, plain):
    """Writes and reads files around these tensors."""
    return Checkpoints(tmp_path, *plain)
