"""What ends a run before its last step: scores that do not become better, or the clock."""

import time
from collections.abc import Mapping

from jax.sharding import Mesh

from flaxseg.training.config import TrainConfig, flag
from flaxseg.training.processes import known_to_all


def is_still_over(ended_by: Mapping[str, float], config: TrainConfig) -> bool:
    """Whether what ended a run would do so with these settings, too.

    Args:
        ended_by: as `FitResult` has it.
        config: settings; a larger value of that one goes on, as does none.
    """
    values = {name: getattr(config, name) for name in ended_by}
    return all(values[name] is not None and values[name] <= ended_by[name] for name in ended_by)


def ending_words(ended_by: Mapping[str, float]) -> str:
    """The flag that ended a run, such as "--patience 3"; empty if none did."""
    return " ".join(f"{flag(name)} {value:g}" for name, value in ended_by.items())


class Ending:
    """Watches the scores and the clock of a run.

    Attributes:
        by: the setting that has ended the run, and its value; empty while it goes on.
        reason: why, in a line for the user.
    """

    def __init__(self, config: TrainConfig, mesh: Mesh, total_steps: int, seconds: float):
        """Starts the clock.

        Args:
            config: settings.
            mesh: devices of all processes.
            total_steps: length of the run, at which nothing is left to be ended.
            seconds: that the run took before it was resumed.
        """
        self.by: dict[str, float] = {}
        self.reason = ""
        self._patience, self._hours, self._total = config.patience, config.hours, total_steps
        self._is_any_late = known_to_all(mesh)
        self._begin = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """The time of the run so far, of all its starts together."""
        return time.monotonic() - self._begin

    def check_clock(self, step: int) -> None:
        """Ends a run whose time is up, after a step; all processes must come here equally often.

        Of several processes all end at the same step, the one after the first of them was late.
        """
        if self._hours is None or step == self._total:
            return
        if self._is_any_late(self.seconds >= 3600 * self._hours):
            self._end("hours", self._hours, f"are over after step {step}")

    def check_scores(self, step: int, waited: int, best_step: int | None) -> None:
        """Ends a run whose scores do not become better, after an evaluation.

        Args:
            step: number of updates.
            waited: evaluations since the best one.
            best_step: number of updates at which that was.
        """
        if self._patience is None or step == self._total or waited < self._patience:
            return
        what = f"{waited} evaluations without a better mIoU than that of step {best_step}"
        self._end("patience", self._patience, f"ends the run after step {step}: {what}")

    def _end(self, name: str, value: float, what: str) -> None:
        self.by = {name: value}
        self.reason = f"{ending_words(self.by)} {what}; a larger value goes on"
