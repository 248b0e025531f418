"""What operations do to pixels, by torch.compile: a kernel or two for each, in place of up to 22 launches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Tensor])


@functools.cache
def compiled(function: F) -> F:
    """``function`` compiled for any number and size of images, once a process."""
    return cast(F, torch.compile(function, dynamic=True))
