"""One optimiser step as a pure function, and its compiled form on a mesh."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from flaxseg.models import Output, with_precision
from flaxseg.ops import Precision, enlarged_argmax
from flaxseg.preprocess import Preprocess
from flaxseg.sharding import replicated, split_batch
from flaxseg.training.accumulate import Seen, accumulate
from flaxseg.training.averaging import Averaging, advance
from flaxseg.training.freezing import NOTHING, Frozen
from flaxseg.training.losses import NetworkLoss, added, labelled_pixels, loss_terms


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainState:
    """All that changes from step to step.

    Attributes:
        step: number of updates made, int32 scalar.
        params: the model's nnx.Param variables.
        stats: the model's nnx.BatchStat variables.
        opt_state: the optimiser's state, of the weights that learn.
        average: averages of params and stats, as (params, stats); None if the run has none.
    """

    step: jax.Array
    params: nnx.State
    stats: nnx.State
    opt_state: optax.OptState
    average: tuple[nnx.State, nnx.State] | None = None


class StepMetrics(NamedTuple):
    """What a step reports, scalars on the device.

    Attributes:
        loss: total loss before the update.
        grad_norm: Euclidean norm of the whole gradient, of the weights that learn.
        lr: learning rate of the update.
        accuracy: share of all pixels predicted right before the update; None where not asked for.
        terms: what the loss is the sum of, by name; None where it is one thing.
    """

    loss: jax.Array
    grad_norm: jax.Array
    lr: jax.Array
    accuracy: jax.Array | None = None
    terms: dict[str, jax.Array] | None = None


Step = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, StepMetrics]]


def init_state(
    model: nnx.Module,
    tx: optax.GradientTransformation,
    averaging: Averaging | None = None,
    frozen: Frozen = NOTHING,
) -> TrainState:
    """The state before the first step, with the model's own variables in it."""
    _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    # Copies, as no buffer can be donated twice.
    average = jax.tree.map(jnp.copy, (params, stats)) if averaging else None
    opt_state = tx.init(frozen.split(params)[0])
    return TrainState(jnp.zeros((), jnp.int32), params, stats, opt_state, average)


def make_train_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    *,
    schedule: optax.Schedule,
    preprocess: Preprocess,
    seed: int = 0,
    aux_weights: Sequence[float] = (),
    gather: Callable[[nnx.State], nnx.State] | None = None,
    loss: NetworkLoss = loss_terms,
    accumulate_parts: int = 1,
    weigh: Callable[[Output, jax.Array], jax.Array] = labelled_pixels,
    averaging: Averaging | None = None,
    accuracy: bool = False,
    matmul_precision: Precision | None = None,
    frozen: Frozen = NOTHING,
) -> Step:
    """Makes the pure step function `(state, image, label) -> (state, metrics)`.

    BatchNorm normalises over the batch it is given: compiled over a mesh, that is the batch of
    all devices. The key of dropout follows from the seed and the step, so there is none to save.

    Args:
        graphdef: of the model in train mode, as nnx.split gives it.
        tx: optimiser of the weights that learn.
        schedule: learning rate by number of updates, for the metrics.
        preprocess: from image bytes (B, H, W, 3) to the model's input.
        seed: of dropout.
        aux_weights: weight of each auxiliary head's loss; none switches the heads off.
        gather: makes the parameters that learn whole where they are split over devices, and the
            frozen ones, to which no gradient comes back.
        loss: terms of the network's output, the labels and these weights; their sum is minimised.
        accumulate_parts: into how many parts each batch is divided.
        weigh: what the loss of a part is a mean over, of the output and the labels.
        averaging: how the state's average follows the weights.
        accuracy: whether the metrics tell how many pixels were predicted right.
        matmul_precision: of float32 products on accelerators, see `flaxseg.ops.precision`. None:
            the model's own.
        frozen: the weights that stay as they are.
    """

    def loss_of(still, learning, stats, image, labels, key):
        # Inside the gradient's trace only variables made there may change: hence the copy, and
        # the random streams made from the key here.
        parts = (gather(learning), gather(still)) if gather else (learning, still)
        params = nnx.merge_state(*parts)
        model = nnx.merge(graphdef, params, stats, copy=True)
        if matmul_precision is not None:
            model = with_precision(model, matmul_precision)
        # The logits of all pixels are the largest array by far; most losses can do without it.
        rule = getattr(model, "logits_align_corners", None)
        corners = None if rule is None else rule((labels.shape[1], labels.shape[2]))
        small = {} if corners is None else {"resize": False}
        interpolation = {} if corners is None else {"align_corners": corners}
        rngs = nnx.Rngs(dropout=key)
        output = model(preprocess(image), aux=bool(aux_weights), rngs=rngs, **small)
        terms = loss(output, labels, aux_weights, **interpolation)
        hits = _hits(output, labels, **interpolation) if accuracy else None
        seen = Seen(weigh(output, labels), hits, terms if len(terms) > 1 else None)
        return added(terms.values()), (nnx.state(model, nnx.BatchStat), seen)

    def step(state: TrainState, image: jax.Array, label: jax.Array):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        learning, still = frozen.split(state.params)
        gradient = jax.value_and_grad(functools.partial(loss_of, still), has_aux=True)
        gradient = accumulate(gradient, accumulate_parts)
        (value, (stats, seen)), grads = gradient(learning, state.stats, image, label, key)
        updates, opt_state = tx.update(grads, state.opt_state, learning)
        learned: Any = optax.apply_updates(learning, updates)
        params = nnx.merge_state(learned, still)
        lr = jnp.asarray(schedule(state.step))
        right = None if seen.hits is None else seen.hits / label.size
        metrics = StepMetrics(value, optax.tree.norm(grads), lr, right, seen.terms)
        done, average = state.step + 1, state.average
        if averaging is not None:
            average = advance(average, (params, stats), averaging.share(done))
        return TrainState(done, params, stats, opt_state, average), metrics

    return step


def _hits(output: Output, labels: jax.Array, align_corners: bool = False) -> jax.Array:
    """Number of pixels whose label has the highest score, float32."""
    size = labels.shape[1], labels.shape[2]
    classes = enlarged_argmax(output.logits, size, align_corners=align_corners)
    return jnp.sum(classes == labels.astype(jnp.int32), dtype=jnp.float32)


def compile_step(step: Step, mesh: Mesh, state_sharding: Any = None) -> Any:
    """Jits a step: state donated, image and label split along the batch.

    Args:
        step: what `make_train_step` gives.
        mesh: the devices.
        state_sharding: where the state lies, as a tree of its structure; None is whole everywhere.
    """
    whole, batch = replicated(mesh), split_batch(mesh)
    state = whole if state_sharding is None else state_sharding
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(state, batch, batch),
        out_shardings=(state, whole),
    )
