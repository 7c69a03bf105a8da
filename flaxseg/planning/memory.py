"""What a step keeps in the memory of a chip, and what is said where it does not fit."""

import dataclasses
import math
import re
from typing import Any

import jax

from flaxseg.errors import FlaxsegError
from flaxseg.training.blueprint import Blueprint
from flaxseg.training.program import StepProgram


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each chip.

    Attributes:
        parameters: of the network, as far as the chip holds them.
        optimizer: state of the optimiser, likewise.
        others: running statistics, averages of the weights, and what XLA pads tensors with.
        batch: the chip's images and labels.
        temporaries: activations and gradients at the moment when they are most.
        program: the machine code.
    """

    parameters: int
    optimizer: int
    others: int
    batch: int
    temporaries: int
    program: int

    @classmethod
    def of(cls, blueprint: Blueprint, program: StepProgram) -> "Memory":
        """What XLA says of a program.

        Its own figure of a peak is not used: by libtpu it is the sum of all this for some programs,
        less for others, and for small ones several times as much.
        """
        state, use = blueprint.abstract_state(), program.run.memory_analysis()
        assert use is not None
        parameters, optimizer = _on_a_chip(state.params), _on_a_chip(state.opt_state)
        images = blueprint.config.images_per_step // blueprint.mesh.size
        batch = images * math.prod(blueprint.config.image_size) * 4  # RGB and a label
        kept = use.argument_size_in_bytes + use.output_size_in_bytes - use.alias_size_in_bytes
        return cls(
            parameters=parameters,
            optimizer=optimizer,
            others=kept - parameters - optimizer - batch,
            batch=batch,
            temporaries=use.temp_size_in_bytes,
            program=use.generated_code_size_in_bytes,
        )

    @property
    def peak(self) -> int:
        """All of them together."""
        return sum(dataclasses.astuple(self))


def _on_a_chip(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves
    )


class DoesNotFit(FlaxsegError):
    """A step that needs more memory than a chip has.

    Attributes:
        asked: bytes; None where the compiler does not tell.
        available: bytes; likewise.
    """

    def __init__(self, words: str, asked: float | None, available: float | None):
        super().__init__(words)
        self.asked, self.available = asked, available


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_AMOUNT = re.compile(r"\b(\d+(?:\.\d+)?)([KMGT])\b")


def does_not_fit(message: str, batch_size: int, topology: str) -> DoesNotFit:
    """The error of a step that a compiler refused.

    Args:
        message: the compiler's: first how much a program asks for, then how much there is.
        batch_size: images of the step.
        topology: name of the devices.
    """
    amounts = [float(number) * _UNITS[unit] for number, unit in _AMOUNT.findall(message)]
    asked, available = (*amounts, None, None)[:2]
    reason = message.splitlines()[0]
    if asked is not None and available is not None:
        reason = (
            f"the step asks each chip for {asked / 2**30:.2f} GiB, a program may use "
            f"{available / 2**30:.2f} GiB"
        )
    return DoesNotFit(
        f"--batch-size {batch_size} does not fit {topology}: {reason}; give a smaller batch, more "
        "chips, --fsdp, --accumulate or --override remat=true",
        asked,
        available,
    )
