"""The processes of torchrun that share the work of one command."""

from __future__ import annotations

from datetime import timedelta

from falcon_ssl.core.devices import best_device
from falcon_ssl.core.distributed import (
    join_after_restart,
    naming_lost_ranks,
    planned_ranks,
    world_size,
)

PATIENCE = timedelta(days=1)  # for one that computes alone what the others wait for


class Processes:
    """This process among those that torchrun started; alone, it starts nothing.

    Attributes:
        device: Where it computes.
        rank: Its number.
        count: How many there are.
    """

    def __init__(self) -> None:
        self.device, self.rank, self.count = best_device(), 0, 1
        self._state = None
        if planned_ranks() > 1:
            from accelerate import PartialState

            if world_size() == 1:  # a command before this one has ended its group
                PartialState._reset_state()
            join_after_restart(self.device.type, PATIENCE)
            self._state = PartialState(cpu=self.device.type == "cpu", timeout=PATIENCE)
            self.device = self._state.device
            self.rank, self.count = self._state.process_index, self._state.num_processes

    @property
    def is_main(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here.

        Raises:
            LostRankError: One has ended before.
        """
        if self._state is not None:
            with naming_lost_ranks():
                self._state.wait_for_everyone()
