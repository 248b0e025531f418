"""Parts of a batch that are computed twice: gradients, running statistics and dropout are those of one pass each."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from falcon_ssl.config.run import from_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.methods.base import represent
from falcon_ssl.networks.batchnorm import use_global_batch_norm
from falcon_ssl.networks.recompute import has_batch_statistics, kept_statistics, recomputed


def network(*, is_global: bool = False, momentum: float | None = 0.1) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8, momentum=momentum)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), norm, nn.Tanh(), nn.Dropout(0.3))
    encoder = encoder.append(nn.Linear(8, 5)).double()
    return use_global_batch_norm(encoder) if is_global else encoder


def parts(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [*torch.randn(count, 7, 3, 2, 2, generator=generator, dtype=torch.float64)]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("is_global", [False, True])
def test_all_is_as_if_computed_once(is_global: bool, momentum: float | None) -> None:
    once = network(is_global=is_global, momentum=momentum)
    twice = copy.deepcopy(once)
    results = []
    for encoder, pass_through in (
        (once, lambda x: once(x)),
        (twice, lambda x: recomputed(twice, x)),
    ):
        torch.manual_seed(3)  # of dropout
        z = torch.cat([pass_through(x) for x in parts()])
        (z**2).sum().backward()
        results.append([z.detach(), *(p.grad for p in encoder.parameters()), *encoder.buffers()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert has_batch_statistics(once)
    assert once.get_submodule("2").num_batches_tracked == 3


def test_statistics_that_are_not_kept_would_differ() -> None:
    """The control of the test above."""
    encoder = network()
    before = [buffer.clone() for buffer in encoder.buffers()]
    with kept_statistics(encoder):
        encoder(parts()[0])
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.buffers(), strict=True))
    encoder(parts()[0])
    assert not any(torch.equal(a, b) for a, b in zip(before, encoder.buffers(), strict=True))


def test_without_gradient_nothing_is_computed_twice() -> None:
    seen: list[int] = []
    encoder = nn.Flatten()
    encoder.register_forward_hook(lambda _, __, z: seen.append(len(z)))
    with torch.no_grad():
        represent(encoder, parts(2), micro_batches=3)
    assert seen == [6, 4, 4], "two views of 3, 2 and 2 images"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": {"accumulate": 3}, "batch_size": 2}, "larger than the batch"),
        ({"engine": {"accumulate": 2, "cuda_graphs": True}}, "exclude each other"),
        (
            {"engine": {"accumulate": 2}, "method": "gedi", "gedi": {"generative": True}},
            "takes its batch in one piece",
        ),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_mapping(options)
