"""Several ranks compute what one process computes, for every loss that FALCON is compared with."""

from __future__ import annotations

from typing import Any

import pytest

from support import compared_ranks
from support.compared import LOSSES
from support.rank_processes import on_ranks
from support.tolerances import RANKS, relative_error


@pytest.fixture(scope="module", params=[2, 3])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(compared_ranks.work, request.param, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def one_process() -> Any:
    return compared_ranks.results_of(slice(None), parallel=False)


@pytest.mark.parametrize("split", ["equal", "unequal"])
@pytest.mark.parametrize("name", list(LOSSES))
def test_ranks_equal_one_process(results: Any, one_process: Any, split: str, name: str) -> None:
    for result in results:
        for what in ("values", "gradients"):
            assert relative_error(result[split][name][what], one_process[name][what]) < RANKS, what


@pytest.mark.parametrize("split", ["equal", "unequal"])
def test_assignments_and_center_are_global(results: Any, one_process: Any, split: str) -> None:
    for result in results:
        mine = result[split]
        assert relative_error(mine["sinkhorn"], one_process["sinkhorn"][mine["rows"]]) < RANKS
        assert relative_error(mine["center"], one_process["center"]) < RANKS


def test_the_comparison_catches_sums_without_gradient(results: Any, one_process: Any) -> None:
    truth = one_process["self_classifier"]
    wrong = results[0]["detached"]
    assert relative_error(wrong["values"], truth["values"]) < RANKS
    assert relative_error(wrong["gradients"], truth["gradients"]) > 0.01
