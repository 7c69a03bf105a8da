"""Floating-point operations of a program, by XLA's count before it optimises."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun


def count_flops(
    traced: jax.stages.Traced, lowered: jax.stages.Lowered, platform: str
) -> float | None:
    """Operations over all devices together; a multiply-add is two.

    XLA counts the body of a loop once. Here it counts as often as it runs.

    Args:
        traced: a jitted function for some arguments.
        lowered: what it lowers to.
        platform: for which, such as "cpu"; a network may take another form on each.

    Returns:
        None where XLA does not tell.
    """
    whole = _cost(lowered)
    return None if whole is None else whole + _repetitions(traced.jaxpr.jaxpr, platform)


def _repetitions(jaxpr: Jaxpr, platform: str) -> float:
    """What the loops of a program do after their first round."""
    total, known = 0.0, dict[str, tuple[float, float]]()
    for length, body in _loops(jaxpr, platform):
        # Layers of one shape have the same loops, and lowering one takes longer than printing it.
        text = str(body)
        if text not in known:
            known[text] = _round(body), _repetitions(body.jaxpr, platform)
        once, more = known[text]
        total += (length - 1) * once + length * more
    return total


def _round(body: ClosedJaxpr) -> float:
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in body.in_avals]
    return _cost(jax.jit(jaxpr_as_fun(body)).lower(*shapes)) or 0.0


def _loops(jaxpr: Jaxpr, platform: str) -> Iterator[tuple[int, ClosedJaxpr]]:
    """Length and body of every loop of known length that is in no other loop."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation.params["length"], equation.params["jaxpr"]
            continue
        for inner in _inner(equation.params, platform):
            yield from _loops(inner, platform)


def _inner(params: Mapping[str, Any], platform: str) -> Iterator[Jaxpr]:
    """The programs inside an equation; of forms for several platforms only this one's."""
    values = list(params.values())
    if params.get("branches_platforms") is not None:
        choices = zip(params["branches_platforms"], params["branches"], strict=True)
        values = [branch for names, branch in choices if names is None or platform in names][:1]
    for value in values:
        inner = value.jaxpr if isinstance(value, ClosedJaxpr) else value
        if isinstance(inner, Jaxpr):
            yield inner


def _cost(lowered: jax.stages.Lowered) -> float | None:
    cost: Any = lowered.cost_analysis()
    # Negative is how some backends say that they do not know.
    flops = cost.get("flops", -1) if isinstance(cost, dict) else -1
    return float(flops) if flops > 0 else None
