"""Device selection and bf16 support."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import torch

from falcon_ssl.core.errors import InputError

_CPUINFO = Path("/proc/cpuinfo")
# Instructions that multiply bfloat16: of x86 (AVX-512 BF16, AMX) and of ARM.
_BF16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def best_device() -> torch.device:
    """CUDA where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def named_device(name: str) -> torch.device:
    """The device of ``engine.device``: auto, cpu, cuda or mps. InputError: this machine has none of that name."""
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if name in available and not available[name]():
        raise InputError(
            f"no {name.upper()} device",
            received=f"engine.device={name}",
            expected={"cuda": "a GPU that CUDA runs on", "mps": "macOS on an Apple GPU"}[name],
            fix="use auto or cpu",
        )
    return best_device() if name == "auto" else torch.device(name)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware.

    It decides by what the hardware says of itself and not by a timing, so the same machine always answers alike.
    Without such instructions a CPU emulates them: a ResNet-10 step then took 4 times longer than in float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(_cpu_instructions() & _BF16_INSTRUCTIONS)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all that it was asked to; a CPU has when it returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def hardware(device: torch.device) -> dict[str, str]:
    """Version of torch and name of the device, for the record of a run."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpu = _cpuinfo("model name") or platform.processor() or platform.machine()
        name = f"{cpu} ({torch.get_num_threads()} threads)"
    return {"torch": str(torch.__version__), "device": name}


def _cpu_instructions() -> frozenset[str]:
    """What Linux lists of the processor; nothing elsewhere."""
    return frozenset(_cpuinfo("flags", "Features").split())


def _cpuinfo(*names: str) -> str:
    """The first entry of /proc/cpuinfo of one of these names; empty elsewhere than on Linux."""
    if not _CPUINFO.is_file():
        return ""
    for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
        name, _, found = line.partition(":")
        if name.strip() in names:
            return found.strip()
    return ""
