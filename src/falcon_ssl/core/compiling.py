"""Functions that stay out of compiled graphs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def outside_graphs(function: F) -> F:
    """As ``torch.compiler.disable``: one graph break for a compiled caller, and no part of ``function`` is traced.

    That decorator imports the compiler, which doubles the time of importing this library. This one leaves it alone: as
    long as nobody has imported it, nobody compiles.
    """
    # The lazy form that torch uses itself: the compiler is imported at the first call.
    lazily: Callable[[F], F] = getattr(torch, "_disable_dynamo", torch.compiler.disable)
    disabled = lazily(function)

    @functools.wraps(function)
    def called(*args: Any) -> Any:
        return disabled(*args) if "torch._dynamo" in sys.modules else function(*args)

    return called  # type: ignore[return-value]
