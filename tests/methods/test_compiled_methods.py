"""A whole step of a method by torch.compile: in one graph, or in as few as we know of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from falcon_ssl.commands.loading import build
from falcon_ssl.config import from_mapping
from support.every_method import METHODS

# Where a graph ends early. Random codes: their loop over blocks stays outside, in three frames. LeJEPA: its directions
# are drawn anew in every step, by a generator. Generative GEDI samples images and cannot be compiled as a whole.
BREAKS = {"falcon": 3, "hadamard": 3, "prior": 3, "lejepa": 2}


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="counted by torch 2.13"
)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "gedi"])
def test_graphs_of_a_step(name: str) -> None:
    from torch import _dynamo

    options = METHODS[name]
    method_name = name if name in options else "falcon"
    small = {"batch_size": 8, "encoder": {"name": "digits_cnn"}, "views": {"preset": "digits"}}
    torch.manual_seed(0)
    _, method = build(from_mapping({"method": method_name, **small, **options}), (1, 8, 8))
    views = list(torch.rand(2, 8, 1, 8, 8))

    def step() -> Tensor:
        return method(views).loss

    step()  # the first one checks norms and allocates queues
    _dynamo.reset()
    found = _dynamo.explain(step)()
    assert found.graph_count >= 1
    assert found.graph_break_count <= BREAKS.get(name, 0), found.break_reasons
