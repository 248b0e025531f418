"""Batch normalization over the global batch, on any device.

torch's SyncBatchNorm runs on CUDA alone and weighs ranks equally; this one is exact for any split of the batch over
ranks, and is plain batch normalization when there is one process.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from falcon_ssl.core.distributed import all_reduce_sum, is_distributed
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.numerics import at_least_float32


class GlobalBatchNorm(_BatchNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var over the rows of all ranks.

    Args:
        num_features: Width of dimension 1.
        eps: Added to the variance.
        momentum: Weight of the current batch in the running statistics, as in torch; None averages all batches.
        affine: Whether to learn weight and bias.

    Raises:
        InputError: Training on a global batch that has a single value a feature.

    Distributed:
        Mean and variance are sums over ranks with gradient. Every rank holds a row, so that nothing needs to be read
        from the device to know that there are two.

    Numerics:
        Statistics in float32, float64 for float64 inputs.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise InputError(
                "input of batch normalization has the wrong shape",
                received=tuple(input.shape),
                expected=f"[N, {self.num_features}, ...]",
                fix="check the width of the layer before",
            )

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``input`` [N, num_features, ...]."""
        self._check_input_dim(input)
        if self.training and is_distributed():
            return self._forward_over_ranks(input)
        if self.training and input.numel() == self.num_features:
            raise InputError(
                "batch normalization cannot train on a single sample",
                received=f"shape {tuple(input.shape)}",
                expected="N >= 2 over all ranks",
                fix="use a larger batch, or call .eval() first",
            )
        return super().forward(input)

    def _forward_over_ranks(self, x: Tensor) -> Tensor:
        dims = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        wide = at_least_float32(x)
        rows = wide.new_full((1,), x.numel() / self.num_features)
        sums = all_reduce_sum(torch.cat([wide.sum(dims), rows]))
        total, count = torch.split(sums, [self.num_features, 1])
        mean = total / count
        centered = wide - mean.view(shape)
        var = all_reduce_sum(centered.square().sum(dims)) / count
        self._update_running(mean.detach(), (var * count / (count - 1)).detach())
        y = centered * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def _update_running(self, mean: Tensor, var: Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        weight = (
            1 / float(self.num_batches_tracked or 1) if self.momentum is None else self.momentum
        )
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(var.to(self.running_var.dtype), weight)


class _GlobalBatchNormAct(GlobalBatchNorm):
    """timm's BatchNormAct2d over all ranks: normalize, drop, activate."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """Normalize and activate ``input`` [N, num_features, ...]."""
        y: Tensor = self.act(self.drop(super().forward(input)))
        return y


def use_global_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm inside ``module`` by `GlobalBatchNorm` with the same parameters and buffers.

    Args:
        module: Any network.

    Returns:
        ``module``, changed in place (or its replacement when it is a BatchNorm itself).

    Raises:
        InputError: A BatchNorm that holds more modules than timm's does: what it computes with them is unknown.

    Example:
        >>> type(use_global_batch_norm(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))[1]).__name__
        'GlobalBatchNorm'
    """
    if isinstance(module, _BatchNorm) and not isinstance(module, GlobalBatchNorm):
        ours = _global_kind(module)(
            module.num_features,
            eps=module.eps,
            momentum=module.momentum,
            affine=module.affine,
            track_running_stats=module.track_running_stats,
        )
        ours.train(module.training)
        # The same tensors, not copies: an optimizer that already holds them still trains them.
        ours._parameters = module._parameters
        ours._buffers = module._buffers
        ours._modules = module._modules
        return ours
    for name, child in module.named_children():
        setattr(module, name, use_global_batch_norm(child))
    return module


def _global_kind(norm: _BatchNorm) -> type[GlobalBatchNorm]:
    """What takes the place of a batch normalization: many timm models have one that also activates."""
    inside = {name for name, _ in norm.named_children()}
    if not inside:
        return GlobalBatchNorm
    if inside == {"drop", "act"}:
        return _GlobalBatchNormAct
    raise InputError(
        "a batch normalization of the encoder cannot be made global",
        received=f"{type(norm).__name__} with {', '.join(sorted(inside))}",
        expected="torch.nn.BatchNorm or timm's BatchNormAct2d",
        fix="replace it by falcon_ssl.networks.batchnorm.GlobalBatchNorm, or train in one process",
    )
