"""Operations of views on pixels under torch.compile: each is one graph, at any number and size of images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from falcon_ssl.config.engine import EngineConfig
from falcon_ssl.engine.speed import compile_views
from falcon_ssl.views import apply, build_views, color, filters


@pytest.mark.parametrize("function", [*color._ADJUST, color.to_grayscale, filters.solarize])
def test_an_operation_is_one_graph(function: Any) -> None:
    from torch._dynamo.testing import CompileCounter

    graphs = CompileCounter()
    compiled = torch.compile(function, dynamic=True, fullgraph=True, backend=graphs)
    for shape in ((6, 3, 8, 8), (5, 3, 12, 12)):
        images, factor = torch.rand(shape), torch.rand(shape[0]) - 0.5
        more = (factor,) if function in color._ADJUST else ()
        expected = function(images.clone(), *more)
        torch.testing.assert_close(compiled(images.clone(), *more), expected)
    assert graphs.frame_count == 1
    assert graphs.op_count > 1


@pytest.mark.parametrize("options", [{}, {"compile": True}])
def test_a_run_that_compiles_compiles_its_views(
    options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for module in (apply, color):
        monkeypatch.setattr(module, "compiled", lambda function: made.append(1) or function)
    views, plain = build_views("cifar"), build_views("cifar")
    compile_views(views, EngineConfig(**options))
    compile_views(object(), EngineConfig(**options))  # of the user's own: nothing to compile
    of_a_view = len([*color._ADJUST, color.to_grayscale, filters.solarize])
    assert len(made) == (2 * of_a_view if options else 0)
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    drawn = (one(images, generator=torch.Generator().manual_seed(0)) for one in (views, plain))
    for mine, theirs in zip(*drawn, strict=True):
        assert torch.equal(mine, theirs)
