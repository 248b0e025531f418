"""Consent to run code that a file names: a run folder, an export or a YAML file may be a stranger's.

Weights, records and configurations are read without running anything. A name python:MODULE:FUNCTION is imported and
called, and a program of torch.export is unpickled, which both can do whatever the user can: only after `trusting_code`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from falcon_ssl.core.errors import InputError

_trusts: ContextVar[bool] = ContextVar("trusts_code", default=False)


@contextmanager
def trusting_code(trust_code: bool = True) -> Iterator[None]:
    """Inside the block, code that files name is run.

    Commands have it as their argument ``trust_code``, in the sense of transformers' ``trust_remote_code``.

    Args:
        trust_code: Consent; False changes nothing, so what was given outside the block holds.

    Example:
        >>> from falcon_ssl.networks import build_encoder
        >>> with trusting_code():
        ...     build_encoder("python:torch.nn:Flatten", in_channels=1)
        Flatten(start_dim=1, end_dim=-1)
    """
    before = _trusts.set(_trusts.get() or trust_code)
    try:
        yield
    finally:
        _trusts.reset(before)


def code_is_trusted() -> bool:
    """Whether code that files name may be run here."""
    return _trusts.get()


def check_trusted(what: str, code: str) -> None:
    """Refuse to run code without consent.

    Args:
        what: What the code makes, for the error.
        code: Where it is.

    Raises:
        InputError: Nobody has agreed to it.
    """
    if not code_is_trusted():
        raise InputError(
            f"code of {what} is not run without consent",
            received=code,
            expected="code that you trust: it can do whatever you can",
            fix="look at it, then add --trust_code (in Python trust_code=True, or a block"
            " `with falcon_ssl.trusting_code():`)",
        )
