"""Principal components of wide features, without their covariance matrix."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.devices import multiplies_bf16

ROWS = 20_000  # that the axes are found from
BLOCK = 1024  # rows
SUBSPACE_STEPS = 3
WIDE = 1024  # columns above which products are bfloat16 where the device multiplies it


def principal_axes(x_ND: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Leading principal axes of centered rows, and the variances along them.

    By subspace iteration (Halko, Martinsson and Tropp, 2011, algorithm 4.4) on at most 20 000 rows, the first ones.

    Args:
        x_ND: Centered rows.
        count: K; at most D and N - 1 axes are returned.

    Returns:
        Orthonormal axes [D, K] and their variances [K], the largest first; float32.
    """
    x_ND = x_ND[:ROWS]
    x_ND = x_ND.to(_products_dtype(x_ND.shape[1], x_ND.device) or x_ND.dtype)
    count = min(count, x_ND.shape[1], len(x_ND) - 1)
    # More columns than are asked for: the last of a subspace converge slowly.
    width = min(x_ND.shape[1], count + count // 8 + 32)
    generator = torch.Generator().manual_seed(0)
    basis_DW = torch.randn(x_ND.shape[1], width, generator=generator).to(x_ND.device)
    for _ in range(SUBSPACE_STEPS):
        y_NW = x_ND @ torch.linalg.qr(basis_DW)[0].to(x_ND.dtype)
        basis_DW = (y_NW.T @ x_ND).T.float()
    basis_DW = torch.linalg.qr(basis_DW)[0]
    y_NW = (x_ND @ basis_DW.to(x_ND.dtype)).float()
    variance_W, rotation_WW = torch.linalg.eigh(y_NW.T @ y_NW / len(y_NW))
    leading = slice(width - count, None)
    axes_DK = (basis_DW @ rotation_WW[:, leading]).flip(1)
    return axes_DK, variance_W[leading].flip(0).clamp(min=0)


def whitened(
    train_ND: Tensor, test_ND: Tensor, count: int, *, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Train and test on the leading principal components of standardized train, each divided by its deviation.

    Args:
        train_ND: Rows to find the components of.
        test_ND: Further rows.
        count: K, at most as many as there are.
        device: Where to compute.

    Returns:
        Two matrices of K columns, float32, on the device.
    """
    whiten = Whitening.of(train_ND, count, device=device)
    return whiten(train_ND, device=device), whiten(test_ND, device=device)


class Whitening(NamedTuple):
    """Standardization, then leading principal components, each divided by its deviation."""

    standardized: Standardization
    axes_DK: Tensor

    @classmethod
    def of(cls, train_ND: Tensor, count: int, *, device: torch.device | str = "cpu") -> Whitening:
        """The ``count`` leading components of train, or as many as there are."""
        standardized = Standardization.of(train_ND)
        x_ND = standardized(train_ND, device=device)
        axes_DK, variance_K = principal_axes(x_ND, count)
        # A direction without variance beyond rounding is left at 0.
        scale_K = torch.where(variance_K > 1e-6 * variance_K[0], variance_K.rsqrt(), 0.0)
        return cls(standardized, (axes_DK * scale_K).to(x_ND.dtype))

    def __call__(self, z_ND: Tensor, *, device: torch.device | str = "cpu") -> Tensor:
        """Rows of K columns, float32, on the device."""
        return (self.standardized(z_ND, device=device) @ self.axes_DK).float()


class Standardization(NamedTuple):
    """Mean and standard deviation of the columns of train, for train and test."""

    mean_D: Tensor
    scale_D: Tensor

    @classmethod
    def of(cls, z_ND: Tensor) -> Standardization:
        """A column that is constant up to float32 rounding becomes 0, rather than amplified noise."""
        mean_D = z_ND.mean(dim=0)
        square_D = torch.zeros_like(mean_D, dtype=torch.float64)
        for z_BD in torch.split(z_ND, BLOCK):  # std(dim=0) takes 10 times as long
            square_D += (z_BD - mean_D).square().sum(dim=0)
        std_D = (square_D / (len(z_ND) - 1)).sqrt().to(z_ND.dtype)
        return cls(mean_D, torch.where(std_D > 1e-6 * mean_D.abs(), std_D, torch.inf))

    def __call__(self, z_ND: Tensor, *, device: torch.device | str = "cpu") -> Tensor:
        """Standardized rows on a device; in bfloat16 where wide ones are multiplied so."""
        dtype = _products_dtype(z_ND.shape[1], torch.device(device)) or z_ND.dtype
        x_ND = torch.empty(z_ND.shape, dtype=dtype, device=device)
        for x_BD, z_BD in zip(torch.split(x_ND, BLOCK), torch.split(z_ND, BLOCK), strict=True):
            # Whole, it would take the memory of z again.
            x_BD.copy_((z_BD - self.mean_D) / self.scale_D)
        return x_ND


def _products_dtype(width: int, device: torch.device) -> torch.dtype | None:
    half = device.type == "cpu" and width > WIDE and multiplies_bf16(device)
    return torch.bfloat16 if half else None
