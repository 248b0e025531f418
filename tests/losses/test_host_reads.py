"""A step in one process never waits for the device: no loss reads a tensor, looks anything up or checks it again."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from falcon_ssl import HadamardDictionary
from falcon_ssl.losses.falcon import backends
from support.compared import LOSSES, views
from support.falcon_losses import CODES, FALCON
from support.host_reads import host_reads
from support.problems import unit_rows


@pytest.mark.parametrize("name", list(FALCON))
def test_falcon_reads_nothing(name: str) -> None:
    loss, rows = FALCON[name](), [u.float().requires_grad_() for u in unit_rows(9, 16)]
    loss(*rows)  # what is logged once
    with host_reads() as reads:
        loss(*rows).total.backward()
    assert reads == []


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_other_losses_read_nothing(name: str) -> None:
    num, loss = LOSSES[name]
    inputs = [view.requires_grad_() for view in views(num)]
    with host_reads() as reads:
        loss(inputs).total.backward()
    assert reads == []


def test_in_one_process_nothing_is_hashed_looked_up_or_checked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = [FALCON[name]() for name in ("chunked", "hadamard", "prior", "complete")]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("once, not at every step")

    monkeypatch.setattr("hashlib.sha256", refuse)
    monkeypatch.setattr(backends.importlib.util, "find_spec", refuse)
    monkeypatch.setattr("falcon_ssl.losses.falcon.options.check_positive", refuse)
    monkeypatch.setattr("falcon_ssl.losses.falcon.options.check_prior", refuse)
    monkeypatch.setattr("falcon_ssl.losses.falcon.options.choose_backend", refuse)
    for loss in losses:
        loss(*unit_rows(9, 16))
    with pytest.raises(AssertionError, match="once"):
        FALCON["prior"]()


def test_tables_of_hadamard_are_copied_to_a_device_once() -> None:
    dictionary = HadamardDictionary(CODES, 16)
    u_NF = normalize(torch.randn(5, 16), dim=1).to("meta")

    def copies() -> list[str]:
        found = []

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
                devices = {x.device.type for x in args if isinstance(x, torch.Tensor)}
                if "cpu" in devices:
                    found.append(str(func))
                return func(*args, **(kwargs or {}))

        with Watch():
            for start in (0, 32):
                s_NK = dictionary.project(u_NF, start, start + 32)
                dictionary.adjoint(s_NK, start, start + 32, dtype=u_NF.dtype)
        return found

    assert copies() != []  # the first time
    assert copies() == []
