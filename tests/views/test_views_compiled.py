"""The color operations of views under torch.compile: each is one graph, at any number and size of images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from falcon_ssl.config.engine import EngineConfig
from falcon_ssl.engine.speed import compile_views
from falcon_ssl.views import build_views, color


@pytest.mark.parametrize("adjust", color._ADJUST)
def test_an_operation_is_one_graph(adjust: Any) -> None:
    from torch._dynamo.testing import CompileCounter

    graphs = CompileCounter()
    compiled = torch.compile(adjust, dynamic=True, fullgraph=True, backend=graphs)
    for shape in ((6, 3, 8, 8), (5, 3, 12, 12)):
        images, factor = torch.rand(shape), torch.rand(shape[0]) - 0.5
        expected = adjust(images.clone(), factor)
        torch.testing.assert_close(compiled(images.clone(), factor), expected)
    assert graphs.frame_count == 1
    assert graphs.op_count > 1


@pytest.mark.parametrize("options", [{}, {"compile": True}])
def test_a_run_that_compiles_compiles_its_views(
    options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(color, "_compiled", lambda: made.append(1) or color._ADJUST)
    views, plain = build_views("cifar"), build_views("cifar")
    compile_views(views, EngineConfig(**options))
    compile_views(object(), EngineConfig(**options))  # of the user's own: nothing to compile
    assert len(made) == (2 if options else 0), "one jitter a view"
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    drawn = (one(images, generator=torch.Generator().manual_seed(0)) for one in (views, plain))
    for mine, theirs in zip(*drawn, strict=True):
        assert torch.equal(mine, theirs)
