"""SimCLR: find the other view of a sample among all views of the batch (Chen et al., 2020, arXiv 2002.05709).

s_ik = <u_i, u_k> / T        u_1 ... u_2N the unit embeddings of both views; i' is the other view of i
loss = -(1/2N) sum_i log[ exp(s_ii') / sum_{k != i} exp(s_ik) ]                                 (eq. 1, NT-Xent)
     = -(1/2N) sum_i s_ii'  +  (1/2N) sum_i log sum_{k != i} exp(s_ik)                     alignment + uniformity
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from falcon_ssl.core.checks import check_positive
from falcon_ssl.core.distributed import all_gather_rows, rank, row_counts
from falcon_ssl.core.numerics import at_least_float32
from falcon_ssl.losses.rows import check_views, global_count, mean_rows


class SimCLRTerms(NamedTuple):
    """The loss and what it is made of: 0-dim tensors in nats, equal on every rank; only ``total`` carries a gradient.

    Args:
        total: alignment + uniformity; log(2N - 1) when all embeddings are equal.
        alignment: Mean of -s_ii'; -1/T when the two views of every sample have one embedding.
        uniformity: Mean of log sum_{k != i} exp(s_ik); the smaller, the further apart the samples are.
    """

    total: Tensor
    alignment: Tensor
    uniformity: Tensor


def simclr_loss(u1: Tensor, u2: Tensor, *, temperature: float = 0.5) -> SimCLRTerms:
    """NT-Xent loss of two views.

    Args:
        u1: [N, F], rows of length 1: embeddings of the first view (this rank's rows).
        u2: [N, F], row by row the same samples.
        temperature: T.

    Returns:
        SimCLRTerms.

    Raises:
        InputError: Views that do not fit each other, fewer than two rows, a temperature that is not positive and
            finite, or ranks that disagree.

    Distributed:
        A sample is compared with those of all ranks, with gradient; shards may differ in size.

    Memory:
        O(N M) for N rows of this rank and M of all ranks.

    Numerics:
        Everything in the log domain, in float32, float64 for float64.

    Example:
        >>> u = torch.ones(8, 1)
        >>> round(float(simclr_loss(u, u).total), 3)  # collapsed: log 15
        2.708
    """
    check_views(("u1", "u2"), (u1, u2))
    check_positive("temperature", temperature, fix="the paper's is 0.5 for CIFAR-10")
    num_rows = global_count(u1, lambda: f"simclr_loss, temperature={temperature}", least=2)
    first = sum(row_counts(len(u1), u1.device)[: rank()])  # of this rank's rows among those of all
    with torch.autocast(u1.device.type, enabled=False):
        u_VNF = (at_least_float32(u1), at_least_float32(u2))
        # Both views side by side: one gather for two. Its 2N rows are in the order of the formula.
        u_MF = torch.cat(all_gather_rows(torch.cat(u_VNF, dim=1)).chunk(2, dim=1))
        alignment = uniformity = u_MF.new_zeros(())
        for u_NF, own in zip(u_VNF, (first, num_rows + first), strict=True):
            s_NM = u_NF @ u_MF.T / temperature
            other = (own + num_rows) % (2 * num_rows)
            alignment = alignment - mean_rows(s_NM.diagonal(other), num_rows) / 2
            except_own_NM = s_NM.diagonal_scatter(s_NM.new_full((len(s_NM),), -math.inf), own)
            uniformity = uniformity + mean_rows(except_own_NM.logsumexp(dim=1), num_rows) / 2
        total = alignment + uniformity
    return SimCLRTerms(total, alignment.detach(), uniformity.detach())
