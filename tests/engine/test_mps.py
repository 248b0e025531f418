"""A device without float64, Apple's MPS, as far as a machine without one can test it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from falcon_ssl import commands, engine
from falcon_ssl.config import EngineConfig
from falcon_ssl.config.evaluation import MonitorConfig
from falcon_ssl.core.devices import named_device
from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation import alarms
from falcon_ssl.losses.falcon import loss
from support.short_runs import SHORT


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    config = replace(SHORT, engine=EngineConfig(device=name))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"no {name.upper()} device: .*use auto or cpu"):
        commands.pretrain(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert named_device("mps") == torch.device("mps")


class OnCpu(Tensor):
    """A copy on the CPU: what is computed of it stays there."""


class NoFloat64(TorchFunctionMode):
    """Notes whatever computes in float64 on the device, as which all other tensors count."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float64:
            is_factory = not any(isinstance(arg, Tensor) for arg in args)  # on the CPU, and stays
            if not isinstance(result, OnCpu) and not is_factory and result.dim():
                self.found.add(func.__name__)
        return result


def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What computes in float64 while a run trains, with its alarms and a prior over codes."""
    pretrain, mode = engine.pretrain, NoFloat64()

    def watched(method: Any, *args: Any, **options: Any) -> Any:
        method.float()  # as `prepare` does for MPS
        with mode:
            return pretrain(method, *args, **options)

    monkeypatch.setattr(engine, "pretrain", watched)
    falcon = replace(SHORT.falcon, prior_exponent=1.0, prior_matching="forward")
    config = replace(SHORT, epochs=1, falcon=falcon, monitor=MonitorConfig(every_epochs=0))
    commands.pretrain(config, out=tmp_path / "run")
    return mode.found


def test_training_computes_float64_on_the_cpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (alarms, loss):
        monkeypatch.setattr(module, "with_float64", lambda x: x.as_subclass(OnCpu))
    assert trained(tmp_path, monkeypatch) == set()


def test_the_check_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained(tmp_path, monkeypatch) >= {"double"}


def test_a_copy_is_made_for_such_a_device_alone() -> None:
    here = torch.full((2,), math.pi)
    assert alarms.with_float64(here) is here
    with torch._subclasses.FakeTensorMode():
        there = torch.empty(2, device="mps")
        assert alarms.with_float64(there).device.type == "cpu"
