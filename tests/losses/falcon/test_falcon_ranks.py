"""Several ranks compute what one process computes: value, gradients, running statistics, for any split of the rows."""

import pytest

from support import ranks
from support.rank_processes import on_ranks
from support.tolerances import RANKS, relative_error


@pytest.fixture(scope="module", params=[2, 3])
def results(request, tmp_path_factory):
    """Results of every rank; the processes run once for all tests."""
    return on_ranks(ranks.work, request.param, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def one_process():
    return ranks.losses_and_gradients(slice(None), parallel=False)


@pytest.mark.parametrize("split", ["equal", "unequal"])
@pytest.mark.parametrize("problem", list(ranks.problems()))
def test_ranks_equal_one_process(results, one_process, split, problem):
    truth = one_process[problem]
    for result in results:
        for name in ("values", "gradients", "buffers"):
            assert relative_error(result[split][problem][name], truth[name]) < RANKS, name


def test_ranks_that_disagree_all_say_so_and_none_hangs(results):
    for rank, result in enumerate(results):
        messages = result["disagreements"]
        assert set(messages) == {"seed", "codes", "scale", "precision", "blocks", "momentum"}
        for message in messages.values():
            assert message.startswith(
                f"ranks disagree on the loss: received rank {rank}: RademacherDictionary("
            )
        assert f"seed={rank}" in messages["seed"]
        others = [r for r in range(len(results)) if r != rank]
        assert f"not the same on ranks {others}" in messages["codes"]


@pytest.mark.parametrize("results", [2], indirect=True)
@pytest.mark.parametrize("mistake", ["detached", "local"])
def test_the_comparison_catches_a_wrong_marginal(results, one_process, mistake):
    backend = {"detached": "reference", "local": "chunked"}[mistake]
    wrong = results[0]["controls"][mistake]
    assert relative_error(wrong, one_process[backend]["gradients"]) > 0.05
