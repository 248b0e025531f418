"""1, 2 and 4 processes take the same steps: losses, weights and moments, for every dictionary, method and optimizer."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from support import training_ranks
from support.rank_processes import on_ranks
from support.training_ranks import (
    ACCUMULATED,
    KINDS,
    MUON,
    accumulating,
    config_of,
    sharded,
    trained,
)

ROUNDING = 1e-8  # float64, over two steps
SINGLE = 1e-5  # float32
in_one_process = functools.cache(trained)  # every number of ranks is compared with it


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(training_ranks.work, request.param, tmp_path_factory.mktemp("ranks"))


def compare(found: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == truth.keys()
    for name, expected in truth.items():
        torch.testing.assert_close(
            found[name], expected, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("kind", list(KINDS))
def test_ranks_train_what_one_process_trains(results: list[Any], kind: str) -> None:
    truth = in_one_process(config_of(kind))
    for state in results:
        compare(state[kind], truth, ROUNDING)


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("shards")
    return on_ranks(training_ranks.sharded_work, request.param, folder)


def test_ranks_that_share_the_weights_train_what_one_process_trains(shards: list[Any]) -> None:
    """Checkpoints too: of ranks that share weights, read by ranks that do not, and the other way around."""
    for kind in shards[0]:
        truth = in_one_process(sharded(kind if kind in KINDS else "dino"))
        for state in shards:
            compare(state[kind], truth, ROUNDING)


def test_ranks_share_the_images_of_an_evaluation(results: list[Any]) -> None:
    truth = training_ranks.features()
    for state in results:
        compare(state["features"], truth, SINGLE)


@pytest.mark.parametrize("results", [2], indirect=True)
@pytest.mark.parametrize("kind", ACCUMULATED)
def test_ranks_that_accumulate_too(results: list[Any], kind: str) -> None:
    truth = in_one_process(config_of(kind, encoder="resnet8"))
    for state in results:
        compare(state["accumulate"][kind], truth, ROUNDING)


@pytest.mark.parametrize("results", [2], indirect=True)
def test_muon_keeps_to_float32_where_the_run_does(results: list[Any]) -> None:
    truth = in_one_process(config_of(MUON), dtype=torch.float32)
    for state in results:
        compare(state["float32"], truth, SINGLE)


@pytest.mark.parametrize("results", [2], indirect=True)
def test_every_rank_draws_numbers_of_its_own_and_again_the_same(results: list[Any]) -> None:
    """One mask of dropout for all ranks is one sample of it, and codes that are drawn prove less than their number."""
    drawn = torch.cat([state["drawn"] for state in results])
    assert len(drawn.unique(dim=0)) == len(drawn) == 2 * training_ranks.STEPS
    for state in results:
        assert torch.equal(state["drawn"], state["again"])


@pytest.mark.parametrize("results", [2], indirect=True)
def test_ddp_is_freed_when_a_step_is_closed(results: list[Any]) -> None:
    assert all(state["freed"] for state in results)


@pytest.mark.parametrize("results", [2], indirect=True)
def test_a_rank_that_stands_still_is_named(results: list[Any]) -> None:
    assert results[0]["lost"].startswith("rank 0 of 2 cannot go on: rank 1 has died, ended or")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gedi"])
def test_a_batch_in_parts_is_the_whole_batch(kind: str) -> None:
    """Without batch statistics in the encoder; heads with them see all of the batch."""
    truth = in_one_process(config_of(kind, encoder="resnet8"))
    compare(trained(accumulating(kind)), truth, ROUNDING)


def saved_bytes(kind: str, parts: int) -> int:
    """What autograd keeps of a step between forward and backward."""
    sizes: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        trained(accumulating(kind, parts))
    return sum(sizes)


def test_parts_keep_nothing_of_the_encoder() -> None:
    assert saved_bytes("rademacher", 6) < 0.25 * saved_bytes("rademacher", 1)
