"""Two ranks with unequal slices of the batch train a method to the state of one process: teachers, queues, samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support import method_ranks
from support.rank_processes import on_ranks

ROUNDING = 1e-9  # float64, after three steps that amplify the rounding of the first


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(method_ranks.work, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", list(method_ranks.methods()))
def test_two_ranks_train_what_one_process_trains(states: Any, name: str) -> None:
    truth = method_ranks.state_after_training(name, slice(None), parallel=False)
    start = {**method_ranks.built(name).state_dict()}
    assert sum(not torch.equal(start[key], truth[key]) for key in start) > 5
    for state in states:
        assert state[name].keys() == truth.keys()
        for key, expected in truth.items():
            torch.testing.assert_close(
                state[name][key], expected, rtol=ROUNDING, atol=ROUNDING, msg=key
            )
