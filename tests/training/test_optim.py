import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from flaxseg.training import make_config
from flaxseg.training.optim import decays, make_optimizer, make_schedule

SHAPES = {"kernel": (3, 2), "bias": (2,), "gamma": (1,)}


def start():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def loss_terms(params, target):
    """A loss whose gradient depends on every parameter, for numpy-like modules."""
    return {name: (value * value * value - target[name]) ** 2 for name, value in params.items()}


def torch_run(steps, lr, momentum, weight_decay, step_size, gamma):
    params = {name: torch.tensor(v, requires_grad=True) for name, v in start().items()}
    target = {name: torch.tensor(v + 0.3) for name, v in start().items()}
    optimizer = torch.optim.SGD(
        params.values(), lr=lr, momentum=momentum, weight_decay=weight_decay
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum(term.sum() for term in loss_terms(params, target).values())
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses, {name: value.detach().numpy() for name, value in params.items()}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_twenty_steps_equal_torch(x64, momentum, weight_decay):
    config = make_config(
        schedule="step",
        lr=0.01,
        step_size=3,
        gamma=0.5,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    schedule = make_schedule(config, steps_per_epoch=2, total_steps=20)
    tx = make_optimizer("sgd", schedule, momentum=momentum, weight_decay=weight_decay)
    target = {name: jnp.asarray(v + 0.3) for name, v in start().items()}

    @jax.jit
    def step(params, opt_state):
        def loss_of(params):
            return sum(term.sum() for term in loss_terms(params, target).values())

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = jax.tree.map(jnp.asarray, start())
    opt_state, losses = tx.init(params), []
    for _ in range(20):
        params, opt_state, loss = step(params, opt_state)
        losses.append(float(loss))

    expected_losses, expected = torch_run(20, 0.01, momentum, weight_decay, 3 * 2, 0.5)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-12)
    for name, value in expected.items():
        np.testing.assert_allclose(params[name], value, rtol=1e-12)


def test_tutorial_recipe_halves_the_rate_after_fifty_epochs(x64):
    config = make_config("ccnet", "camvid", "tutorial")
    schedule = make_schedule(config, steps_per_epoch=45, total_steps=4500)
    by_epoch = [
        [float(schedule(45 * epoch)), float(schedule(45 * epoch + 44))] for epoch in range(100)
    ]
    np.testing.assert_allclose(by_epoch, [[0.1, 0.1]] * 50 + [[0.05, 0.05]] * 50, rtol=1e-12)


def test_poly_schedule_falls_from_lr_to_zero(x64):
    config = make_config(schedule="poly", lr=0.2, power=0.9)
    schedule = make_schedule(config, steps_per_epoch=10, total_steps=40)
    rates = [float(schedule(step)) for step in (0, 10, 30, 40)]
    np.testing.assert_allclose(rates, [0.2, 0.2 * 0.75**0.9, 0.2 * 0.25**0.9, 0], rtol=1e-12)


def test_constant_schedule():
    schedule = make_schedule(make_config(schedule="constant", lr=0.3), 10, 40)
    assert float(schedule(0)) == float(schedule(39)) == np.float32(0.3)


def test_warmup_rises_linearly_without_shifting_the_schedule(x64):
    config = make_config(schedule="step", lr=0.1, step_size=1, gamma=0.5, warmup_epochs=0.5)
    schedule = make_schedule(config, steps_per_epoch=8, total_steps=40)
    rates = [float(schedule(step)) for step in (0, 1, 3, 4, 7, 8)]
    np.testing.assert_allclose(rates, [0.025, 0.05, 0.1, 0.1, 0.1, 0.05], rtol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_equals_torch(x64, weight_decay):
    params = {name: torch.tensor(v, requires_grad=True) for name, v in start().items()}
    groups = [
        {"params": [params["kernel"]], "weight_decay": weight_decay},
        {"params": [params["bias"], params["gamma"]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    ours = {name: jnp.asarray(v) for name, v in start().items()}
    tx = make_optimizer("adamw", 0.01, weight_decay=weight_decay)
    state = tx.init(ours)
    target = {name: v + 0.3 for name, v in start().items()}

    def loss_of(p):
        return sum(term.sum() for term in loss_terms(p, target).values())

    for _ in range(20):
        optimizer.zero_grad()
        goal = {name: torch.tensor(value) for name, value in target.items()}
        sum(term.sum() for term in loss_terms(params, goal).values()).backward()
        optimizer.step()
        updates, state = tx.update(jax.grad(loss_of)(ours), state, ours)
        ours = optax.apply_updates(ours, updates)
    for name, value in params.items():
        np.testing.assert_allclose(ours[name], value.detach().numpy(), rtol=1e-12)


def test_adamw_leaves_embeddings_norms_and_biases_alone():
    shapes = {"pos_embed": (1, 4, 8), "cls_token": (1, 1, 8), "weight": (8, 8), "bias": (8,)}
    params = {"backbone": {name: jnp.zeros(shape) for name, shape in shapes.items()}}
    marks = decays(params)["backbone"]
    assert [name for name, decayed in marks.items() if decayed] == ["weight"]
