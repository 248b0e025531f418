"""The options that make steps faster: said in one line, refused where they cannot be."""

import pytest
import torch

from falcon_ssl.config.engine import EngineConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine.speed import check_speed, summary


def test_one_line_lists_what_is_on_and_off():
    assert summary(EngineConfig(precision="no"), optimizer="adamw") == (
        "on: channels_last, fused optimizer; off: bf16 autocast, compile, CUDA graphs"
    )
    assert summary(
        EngineConfig(precision="fp16", channels_last=False, cuda_graphs=True), optimizer="lars"
    ) == ("on: fp16 autocast, compile, CUDA graphs; off: channels_last, fused optimizer")


def test_cuda_graphs_need_a_gpu():
    with pytest.raises(InputError, match="cuda_graphs needs a GPU"):
        EngineConfig(cuda_graphs=True, device="cpu")
    with pytest.raises(InputError, match="cuda_graphs needs a GPU"):
        check_speed(EngineConfig(cuda_graphs=True), torch.device("cpu"))
    check_speed(EngineConfig(cuda_graphs=True), torch.device("cuda"))
