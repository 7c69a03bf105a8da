"""One torch thread, and a server in the place of the Hugging Face hub."""

import hub_server
import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    """More of them stall each other on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def hub():
    """Context in which the repositories below a folder are served, see `hub_server.serve`."""
    return hub_server.serve
