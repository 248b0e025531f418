"""Device, precision and processes of a run, through Accelerate."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from falcon_ssl.config.engine import EngineConfig
from falcon_ssl.core import distributed
from falcon_ssl.core.devices import named_device
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import speed


def build_accelerator(config: EngineConfig, *, out: Path | None = None) -> Accelerator:
    """The accelerator of a resolved configuration.

    Args:
        config: Its precision is not auto any more.
        out: Folder of the trackers' files.

    Raises:
        InputError: A tracker that is not installed, or options that the device cannot have.
    """
    missing = [name for name in config.trackers if find_spec(name) is None]
    if missing:
        raise InputError(
            "a tracker is not installed",
            received=", ".join(missing),
            expected="its package",
            fix=f"pip install {' '.join(missing)}, or leave it out of engine.trackers",
        )
    device, timeout = named_device(config.device).type, timedelta(minutes=config.timeout_minutes)
    on_cpu = device == "cpu"
    if on_cpu and config.precision == "fp16":
        raise InputError(  # Accelerate would run float32 and call it fp16
            "a CPU has no fp16 autocast",
            received="engine.precision=fp16",
            expected="auto, bf16 or no",
            fix="leave it out",
        )
    # Accelerate keeps device and precision for the whole process, but the next run may want others.
    AcceleratorState._reset_state(reset_partial_state=distributed.world_size() == 1)
    distributed.join_after_restart(device, timeout)
    accelerator = Accelerator(
        # Stated: left to find a CPU by itself, Accelerate does not join the ranks that torchrun started.
        cpu=on_cpu,
        mixed_precision=config.precision,
        log_with=list(config.trackers) or None,
        project_dir=out,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)],
    )
    speed.check_speed(config, accelerator.device)
    return accelerator
