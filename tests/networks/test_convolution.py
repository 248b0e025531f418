"""The convolution for small maps is torch's, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from falcon_ssl.networks.convolution import FEW_PIXELS, SmallMapConv2d


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (4, 6), (FEW_PIXELS, FEW_PIXELS), (9, 9)])
def test_values_and_gradients_are_those_of_torch(size, shape):
    torch.manual_seed(0)
    ours = SmallMapConv2d(5, 7, size).double()
    theirs = nn.Conv2d(5, 7, size, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 5, *shape, dtype=torch.float64).to(memory_format=torch.channels_last)
    found, want = [x.clone().requires_grad_() for _ in range(2)]
    y, y_want = ours(found), theirs(want)
    g = torch.randn_like(y_want)
    y.backward(g)
    y_want.backward(g)
    torch.testing.assert_close(y, y_want)
    torch.testing.assert_close(found.grad, want.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_maps_smaller_than_the_kernel_fail_as_in_torch():
    with pytest.raises(RuntimeError, match="Kernel size"):
        SmallMapConv2d(2, 2, 3)(torch.zeros(1, 2, 2, 4))
