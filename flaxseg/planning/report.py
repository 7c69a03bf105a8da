"""A plan as text for people."""

from rich.table import Table

from flaxseg.planning.plan import Plan
from flaxseg.printed import in_bytes, in_milliseconds

PARTS = 8
"""Parts of the time that are shown."""


def plan_table(plan: Plan) -> Table:
    """What a step costs each chip, one line for each part."""
    table = Table("per chip", "", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    memory = plan.memory
    for name, value in (
        ("parameters", memory.parameters),
        ("optimiser state", memory.optimizer),
        ("statistics, averages, padding", memory.others),
        ("images and labels", memory.batch),
        ("activations and gradients", memory.temporaries),
        ("program", memory.program),
        ("peak memory", memory.peak),
    ):
        table.add_row(name, in_bytes(value), _share(name, memory.peak, plan.available))
    if plan.flops is not None:
        table.add_row("FLOPs", f"{plan.flops / 1e9:.1f} GFLOP", _seconds(plan, "FLOPs"))
    if plan.bytes_accessed is not None:
        table.add_row("bytes accessed", in_bytes(plan.bytes_accessed), _seconds(plan, "memory"))
    table.add_row("sent to other chips", in_bytes(plan.sent), _seconds(plan, "links"))
    table.add_row("sent at least, as float32", in_bytes(plan.least_sent), "")
    if plan.xla_seconds is not None:
        table.add_row("time of a step by XLA", in_milliseconds(plan.xla_seconds), "")
    return table


def _share(name: str, peak: int, available: int | None) -> str:
    if name != "peak memory" or available is None:
        return ""
    return f"{peak / available:.0%} of {in_bytes(available)}"


def _seconds(plan: Plan, name: str) -> str:
    return f"at least {in_milliseconds(plan.bounds[name])}" if name in plan.bounds else ""


def traffic_table(plan: Plan) -> Table:
    """What is sent between chips."""
    table = Table("carries", "collective", "chips", "tensors", "size", "sent by each", box=None)
    for row in plan.traffic:
        sizes = in_bytes(row.bytes), in_bytes(row.sent)
        table.add_row(row.carries, row.kind, str(row.devices), str(row.tensors), *sizes)
    return table


def products_table(plan: Plan) -> Table:
    """What is multiplied in which number format."""
    table = Table("multiplied", "operands", "number", "largest window", box=None)
    for row in plan.products:
        operands = f"{row.operands}, exact" if row.exact else row.operands
        window = f"{row.window[0]} x {row.window[1]}" if row.window else ""
        table.add_row(row.kind, operands, str(row.count), window)
    return table


def parts_table(plan: Plan) -> Table:
    """Where the time goes by XLA's estimate, the largest parts first."""
    table = Table("time goes to", "", "by XLA", "", box=None)
    total = sum(part.seconds for part in plan.parts)
    for part in plan.parts[:PARTS]:
        share = f"{part.seconds / total:.0%}"
        table.add_row(
            part.where, "gradient" if part.backward else "", in_milliseconds(part.seconds), share
        )
    return table


def headline(plan: Plan) -> str:
    """What was planned, in a line."""
    height, width = plan.image_size
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    return (
        f"{plan.model}, {plan.parameters / 1e6:.2f} M parameters, {plan.dtype}, batch "
        f"{plan.batch_size} of {height} x {width} on {plan.topology}: {plan.chips} devices "
        f"({mesh}), compiled in {plan.compile_seconds:.0f} s"
    )


def verdict(plan: Plan) -> str | None:
    """What bounds the step, in a line."""
    if plan.bound is None:
        return None
    words = {
        "FLOPs": "by its operations at the peak rate of bfloat16",
        "memory": "by what it reads and writes, as XLA counts it",
        "links": "by what it sends, over all links of a chip at once",
    }
    least = in_milliseconds(plan.bounds[plan.bound])
    return f"bound {words[plan.bound]}: {least} a step at least"
