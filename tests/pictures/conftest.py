"""What the tests of pictures start from."""

import numpy as np
import pytest


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (11, 17, 3), np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
