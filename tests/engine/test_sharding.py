"""What may be sharded, and what is refused; that shards train what one process trains is in test_ranks.py."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from falcon_ssl.config import from_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine.shards import _blocks
from falcon_ssl.networks import build_encoder


@pytest.mark.parametrize(
    "options",
    [
        {"engine": {"compile": True}},
        {"engine": {"cuda_graphs": True}},
        {"engine": {"precision": "fp16"}},
        {"method": "gedi", "gedi": {"generative": True}},
        {"falcon": {"places": True}},
    ],
)
def test_what_cannot_be_sharded_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"engine\.shard"):
        from_mapping(options | {"engine": {"shard": True} | options.get("engine", {})})
    from_mapping(options)


def test_blocks_are_the_innermost_repeated_modules() -> None:
    stage = nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    stages = nn.Sequential(stage, nn.Sequential(nn.ReLU(), nn.ReLU()))
    assert _blocks(stages) == list(stage[1]), "no mixed lists, none without weights"
    resnet = build_encoder("resnet18", in_channels=3)
    assert [type(block).__name__ for block in _blocks(resnet)] == ["_Basic"] * 8
    assert _blocks(build_encoder("digits_cnn", in_channels=1)) == []
