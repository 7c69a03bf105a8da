"""`flaxseg plan`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from flaxseg.errors import ConfigError
from flaxseg.files import replace_text
from flaxseg.planning.largest import Largest, find_largest
from flaxseg.planning.memory import DoesNotFit
from flaxseg.planning.plan import Plan, make_plan
from flaxseg.planning.report import (
    headline,
    parts_table,
    plan_table,
    products_table,
    traffic_table,
    verdict,
)
from flaxseg.planning.topology import Topology, find_topology
from flaxseg.printed import print_line
from flaxseg.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """Devices, and what is told of them."""

    topology: str
    """Devices: v4:2x2x1, v5e:2x4, v5p:2x2x2, v6e:8x8 and the like, or cpu:8 for simulated ones."""

    num_classes: int | None = None
    """Classes to tell apart. None: those of the data set, whose files are not needed."""

    search: bool = False
    """Search for the largest batch that fits, which compiles up to six more programs."""

    json: Path | None = None
    """File to write the same numbers to."""

    def __call__(self, train: TrainConfig, console: Console) -> None:
        """Prints the plan.

        Args:
            train: settings of the run.
            console: to print to.

        Raises:
            DoesNotFit: the step needs more memory than a chip has; the file is written first.
            FlaxsegError: settings that do not fit.
        """
        topology = find_topology(self.topology)
        if self.search and topology.chip is None:
            raise ConfigError(
                f"--search needs chips whose memory is known, --topology is {self.topology}"
            )
        plan, refused = None, None
        try:
            plan = make_plan(train, topology, self.num_classes)
        except DoesNotFit as error:
            refused = error
        if plan is not None:
            _show(plan, console)
        largest = self._search(train, topology, plan, refused) if self.search else None
        if largest is not None:
            print_line(console, largest.sentence(train.accumulate))
        if self.json is not None:
            replace_text(
                self.json, json.dumps(self._values(train, plan, refused, largest), indent=1)
            )
        if refused is not None:
            raise refused

    def _search(
        self, train: TrainConfig, topology: Topology, plan: Plan | None, refused: DoesNotFit | None
    ) -> Largest:
        assert topology.chip is not None
        chips = train.devices or len(topology.devices)
        first = train.images_per_step // chips

        def peak_of(images: int) -> int:
            if images == first and refused is not None:
                raise refused
            if images == first and plan is not None:
                return plan.memory.peak
            config = dataclasses.replace(train, batch_size=images * chips)
            return make_plan(config, topology, self.num_classes).memory.peak

        return find_largest(peak_of, train.accumulate, topology.chip.memory, first)

    def _values(
        self,
        train: TrainConfig,
        plan: Plan | None,
        refused: DoesNotFit | None,
        largest: Largest | None,
    ) -> dict[str, Any]:
        values: dict[str, Any] = {"settings": train.to_json()}
        if plan is not None:
            values |= plan.to_json()
        elif refused is not None:
            values |= {
                "model": train.model,
                "topology": self.topology,
                "batch_size": train.batch_size,
                "image_size": train.image_size,
                "fits": False,
                "asked": refused.asked,
                "available": refused.available,
            }
        return values | ({"largest": dataclasses.asdict(largest)} if largest else {})


def _show(plan: Plan, console: Console) -> None:
    print_line(console, headline(plan))
    for line in plan.notes:
        print_line(console, line)
    console.print(plan_table(plan))
    if plan.traffic:
        console.print(traffic_table(plan))
    if plan.products:
        console.print(products_table(plan))
    if plan.parts:
        console.print(parts_table(plan))
    words = verdict(plan)
    if words is not None:
        print_line(console, words)
