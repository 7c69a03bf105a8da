"""What the run is spread over."""

import dataclasses
from typing import ClassVar, Literal

from flaxseg.distributed import Launch
from flaxseg.training.settings.limits import Limit, at_least


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """What the run is spread over."""

    devices: int | None = None
    """How many devices share the batch, of all processes together. None: all there are."""

    fsdp: int = 1
    """Devices that share one copy of parameters and optimiser state; the mesh is DEVICES / FSDP
    (data) x FSDP (fsdp), the batch is split over both. 1: every device holds a whole copy."""

    distributed: Literal["auto", "off"] = "auto"
    """Join the other processes of the job if SLURM, Open MPI or a TPU pod started several, or keep
    to this one."""

    coordinator: str | None = None
    """HOST:PORT at which process 0 waits for the others, where nothing tells it by itself."""

    num_processes: int | None = None
    """Number of processes of the run, with COORDINATOR."""

    process_id: int | None = None
    """This process, 0 to NUM_PROCESSES - 1, with COORDINATOR. Only 0 writes and shows anything."""

    @property
    def launch(self) -> Launch:
        """How this process finds the others of the run."""
        return Launch(self.distributed, self.coordinator, self.num_processes, self.process_id)

    LIMITS: ClassVar[dict[str, Limit]] = {
        "devices": at_least(1),
        "fsdp": at_least(1),
        "num_processes": at_least(1),
        "process_id": at_least(0),
    }
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"devices", "fsdp", "distributed", "coordinator", "num_processes", "process_id"}
    )
