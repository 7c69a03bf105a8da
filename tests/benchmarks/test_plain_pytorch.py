import numpy as np
import pytest
import torch

import torch_ref
from flaxseg.data import EvalTransform, Shapes, eval_loader
from flaxseg.data.source import FirstExamples
from flaxseg.preprocess import Preprocess

SIZE = (40, 48)
SMALL = {"backbone.width": 4, "backbone.blocks": (1, 1, 1, 1), "channels": 8}


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("plain_pytorch")


@pytest.fixture(scope="module")
def pictures(benchmark):
    return benchmark.tensors(FirstExamples(Shapes("train"), 20), SIZE)


def test_pictures_are_those_of_a_run(pictures):
    transform = EvalTransform(SIZE)
    (batch,) = eval_loader(FirstExamples(Shapes("train"), 20), transform, batch_size=20)
    expected = np.asarray(Preprocess()(batch.image)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(pictures[0].numpy(), expected, atol=1e-6)
    # Labels are of another corner of the same pixels.
    assert 0.9 < np.mean(pictures[1].numpy() == batch.label) < 1


def test_it_learns_from_whole_batches(benchmark, pictures):
    torch.manual_seed(0)
    model = torch_ref.create_model("ccnet", num_classes=6, **SMALL)
    optimizer = torch.optim.SGD(model.parameters(), benchmark.LEARNING_RATE)
    before = benchmark.miou(model, *pictures, 6)
    losses = [benchmark.train_epoch(model, optimizer, *pictures) for _ in range(3)]
    assert losses[-1] < 0.9 * losses[0]
    assert model.backbone.stem[0].bn.num_batches_tracked == 3 * 2
    assert benchmark.miou(model, *pictures, 6) != before
