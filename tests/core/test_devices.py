"""Which precision a run takes when it is left open."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from falcon_ssl.commands.resolve import chosen_precision
from falcon_ssl.config.encoder import EncoderConfig
from falcon_ssl.config.engine import EngineConfig
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core import devices

WITH_BF16 = {
    "x86 with AVX-512 BF16": "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n",
    "x86 with AMX": "flags\t\t: fpu amx_bf16 amx_tile\n",
    "ARM": "processor\t: 0\nFeatures\t: fp asimd bf16\n",
}
WITHOUT = {
    "x86 with AVX-512 alone": "processor\t: 0\nflags\t\t: fpu avx512f avx512_vnni\nbugs\t: bf16\n",
    "a file that lists nothing": "processor\t: 0\n",
}


def run_with(*, encoder: str, precision: str = "auto") -> RunConfig:
    engine = EngineConfig(device="cpu", precision=precision)  # type: ignore[arg-type]
    return replace(RunConfig(), encoder=EncoderConfig(name=encoder), engine=engine)


@pytest.mark.parametrize("cpuinfo", WITH_BF16.values(), ids=WITH_BF16.keys())
def test_bf16_where_the_processor_multiplies_it(cpuinfo, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "cpuinfo")
    assert devices.multiplies_bf16(torch.device("cpu"))
    assert chosen_precision(run_with(encoder="resnet10")) == "bf16"
    assert chosen_precision(run_with(encoder="digits_cnn")) == "no"  # too small to gain


@pytest.mark.parametrize("cpuinfo", WITHOUT.values(), ids=WITHOUT.keys())
def test_float32_where_it_does_not(cpuinfo, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "cpuinfo")
    assert not devices.multiplies_bf16(torch.device("cpu"))
    assert chosen_precision(run_with(encoder="resnet10")) == "no"


def test_float32_where_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "no such file")
    assert not devices.multiplies_bf16(torch.device("cpu"))


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_gpus_from_ampere_on(capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.multiplies_bf16(torch.device("cuda")) == (capability >= (8, 0))


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_stated_precision_is_kept(precision):
    assert chosen_precision(run_with(encoder="digits_cnn", precision=precision)) == precision
