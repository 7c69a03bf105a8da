import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from flaxseg.training import make_config
from flaxseg.training.optim import Factors, make_optimizer, make_rules, make_schedule, match
from flaxseg.training.optim.adam import scale_by_adam

SHAPES = {
    "backbone.blocks.0.mlp.fc1.weight": (3, 2),
    "backbone.blocks.0.mlp.fc1.bias": (2,),
    "backbone.blocks.0.norm1.weight": (3,),
    "backbone.pos_embed": (1, 3, 2),
    "head.classifier.weight": (4, 3),
    "head.cca.gamma": (1,),
}
STEPS = 100


def start():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


TARGET = {name: value + 0.3 for name, value in start().items()}


def loss_of(params, target):
    """A loss whose gradient depends on every parameter, for numpy-like modules."""
    return sum(((x * x - target[name]) ** 2).sum() / 4 for name, x in params.items())


def ours(tx, steps=STEPS, dtype=float):
    """Parameters after each step."""
    target = {name: jnp.asarray(value, dtype) for name, value in TARGET.items()}

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss_of)(params, target), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    params = {name: jnp.asarray(value, dtype) for name, value in start().items()}
    run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps)[1])
    return {name: np.asarray(value) for name, value in run(params).items()}


def theirs(make, groups, scheduler=None, clip=None, steps=STEPS, dtype=torch.float64):
    """The same with torch's optimiser: `make` takes its parameter groups."""
    params = {
        name: torch.tensor(value, dtype=dtype, requires_grad=True)
        for name, value in start().items()
    }
    target = {name: torch.tensor(value, dtype=dtype) for name, value in TARGET.items()}
    optimizer = make([{"params": [params[name]], **groups(name)} for name in params])
    scheduler = scheduler(optimizer) if scheduler else None
    path = {name: [] for name in params}
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(params, target).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(list(params.values()), clip)
        optimizer.step()
        if scheduler:
            scheduler.step()
        for name, value in params.items():
            path[name].append(value.detach().numpy().copy())
    return {name: np.array(values) for name, values in path.items()}


def assert_close(left, right, tolerance):
    for name, value in right.items():
        np.testing.assert_allclose(left[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


TORCH = {
    "sgd": (
        {"momentum": 0.9, "weight_decay": 0.05},
        lambda g: torch.optim.SGD(g, momentum=0.9),
    ),
    "plain sgd": ({}, lambda g: torch.optim.SGD(g)),
    "nesterov": (
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.02},
        lambda g: torch.optim.SGD(g, momentum=0.8, nesterov=True),
    ),
    "adam": ({"weight_decay": 0.05}, lambda g: torch.optim.Adam(g)),
    "adamw": (
        {"weight_decay": 0.1, "betas": (0.8, 0.99)},
        lambda g: torch.optim.AdamW(g, betas=(0.8, 0.99)),
    ),
}
OPTIMIZERS = {"plain sgd": "sgd", "nesterov": "sgd"}


@pytest.mark.parametrize(
    ("name", "clip"),
    [("sgd", None), ("plain sgd", None), ("nesterov", 0.7), ("adam", None), ("adamw", 0.7)],
)
def test_hundred_steps_with_groups_equal_torch(name, clip, x64):
    settings, make = TORCH[name]
    rules = make_rules(SHAPES, no_decay=["layer_norm", "bias", "position"], head_lr=10.0)
    config = make_config(schedule="step", lr=0.01, step_size=3, gamma=0.7)
    schedule = make_schedule(config, steps_per_epoch=10, total_steps=STEPS)
    kind = OPTIMIZERS.get(name, name)
    tx = make_optimizer(kind, schedule, clip_grad=clip, groups=match(rules), **settings)

    def groups(key):
        factors = match(rules)(key)
        decay = settings.get("weight_decay", 0.0) * factors.decay
        return {"lr": 0.01 * factors.lr, "weight_decay": decay}

    def drop(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 30, 0.7)

    assert_close(ours(tx), theirs(make, groups, drop, clip), 1e-10)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_hundred_steps_in_float32_stay_with_torch_float64(name):
    """Torch's own float32 AdamW is further away, 4e-6."""
    settings, make = TORCH[name]
    tx = make_optimizer(name, 0.001, clip_grad=0.5, groups=lambda key: Factors(), **settings)

    def groups(key):
        return {"lr": 0.001, "weight_decay": settings["weight_decay"]}

    assert_close(ours(tx, dtype=jnp.float32), theirs(make, groups, clip=0.5), 1e-6)


@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_a_constant_gradient_moves_adam_by_its_sign(steps):
    """Both means are the gradient's own. Optax's correction is 6e-6 off at the first step."""
    gradient = jnp.array([3.0, -0.2], jnp.float32)
    tx = scale_by_adam((0.9, 0.999))
    found, state = gradient, tx.init(gradient)
    for _ in range(steps):
        found, state = tx.update(gradient, state)
    np.testing.assert_allclose(found, np.sign(gradient), rtol=2e-6 if steps > 10 else 5e-7)


def test_adam_without_means_is_the_sign_of_the_gradient():
    gradient = jnp.array([3.0, -0.2], jnp.float32)
    tx = scale_by_adam((0.0, 0.0))
    found, _ = tx.update(gradient, tx.init(gradient))
    np.testing.assert_allclose(found, np.sign(gradient), rtol=5e-7)


def gradient(params):
    return {name: x * (x**2 - TARGET[name]) for name, x in params.items()}


def test_lars_equals_its_paper(x64):
    """You et al. 2017, algorithm 1; norms and biases are left to plain SGD, here a slow one."""
    adapted = match(make_rules((), no_decay=["layer_norm", "bias", "position"]))

    def groups(key):
        return adapted(key)._replace(lr=20.0 if adapted(key).decay else 1.0)

    tx = make_optimizer("lars", 0.02, momentum=0.9, weight_decay=0.01, groups=groups)
    params = start()
    velocity = {name: np.zeros_like(value) for name, value in params.items()}
    for _ in range(STEPS):
        grads = gradient(params)
        for name, w in params.items():
            update = 0.02 * grads[name]
            if groups(name).decay:
                g = grads[name] + 0.01 * w
                update = 0.4 * 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
            velocity[name] = 0.9 * velocity[name] + update
            params[name] = w - velocity[name]
    last = {name: path[-1] for name, path in ours(tx).items()}
    assert_close(last, params, 1e-10)


def test_lamb_equals_its_paper(x64):
    """You et al. 2019, algorithm 2, with Adam's bias correction."""
    groups = match(make_rules((), no_decay=["layer_norm", "bias", "position"]))
    tx = make_optimizer("lamb", 0.01, weight_decay=0.02, groups=groups)
    params = start()
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    for step in range(1, STEPS + 1):
        grads = gradient(params)
        for name, w in params.items():
            m[name] = 0.9 * m[name] + 0.1 * grads[name]
            v[name] = 0.999 * v[name] + 0.001 * grads[name] ** 2
            r = m[name] / (1 - 0.9**step) / (np.sqrt(v[name] / (1 - 0.999**step)) + 1e-6)
            if groups(name).decay:
                r = r + 0.02 * w
                r = r * np.linalg.norm(w) / np.linalg.norm(r)
            params[name] = w - 0.01 * r
    last = {name: path[-1] for name, path in ours(tx).items()}
    assert_close(last, params, 1e-10)


def test_adamw_leaves_embeddings_norms_and_biases_alone_by_default(x64):
    decaying = make_optimizer("adamw", 0.01, weight_decay=0.5)
    plain = make_optimizer("adamw", 0.01)
    left, right = ours(decaying, steps=3), ours(plain, steps=3)
    moved = {name for name in SHAPES if np.any(left[name] != right[name])}
    assert moved == {"backbone.blocks.0.mlp.fc1.weight", "head.classifier.weight"}


def test_groups_end_at_one_rate(x64):
    config = make_config(schedule="poly", lr=0.1, power=1.0, min_lr=0.01)
    schedule = make_schedule(config, steps_per_epoch=1, total_steps=10)
    head = schedule.times(10.0)
    np.testing.assert_allclose([head(0), head(5), head(10)], [1.0, 0.505, 0.01], rtol=1e-12)
    # As mmcv computes it for each parameter group.
    np.testing.assert_allclose(head(3), (1.0 - 0.01) * 0.7 + 0.01, rtol=1e-12)
