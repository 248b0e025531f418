"""The projector: from representations to embeddings on the sphere."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import normalize

from falcon_ssl.core.checks import check_at_least, check_choice, check_matrix
from falcon_ssl.networks.batchnorm import GlobalBatchNorm

EmbeddingNorm = Literal["l2", "tanh"]


class FalconProjector(nn.Module):
    """u = L2norm(BatchNorm(Linear(z))), the projector of the paper up to the constant sqrt(F/N).

    Given a hidden layer, y = GELU(BatchNorm(Linear(z))) takes the place of z.

    The batch normalization learns no scale and no shift. The prior term is blind to the scales of features: a bit of
    the code is surer the more its feature varies, but as often +1 as -1. With learned scales the network shrinks all
    but a few features and still satisfies the loss, see docs/theory.md.

    The scaled embedding of the theory is h = sqrt(F/N) u; N cancels in the assignment, so u is what is used.

    Args:
        in_dim: D, width of the representation.
        embed_dim: F, width of the embedding.
        embedding_norm: "l2" (the paper), or "tanh": u = tanh(BatchNorm(Linear(z))) / sqrt(F), whose rows have norm
            at most 1. "tanh" is offered for comparison with the authors' released code only, whose logits are
            sqrt(N) times sharper; multiply logit_scale by that to reproduce it.
        affine: Learn scale and shift of the batch normalization all the same, for comparison.
        hidden_dim: Width of the hidden layer, whose batch normalization learns scale and shift; 0 is none.

    Linear layers start as torch's do, at a standard deviation of (3 D)^-1/2. Batch normalization follows, so that the
    scale of the weights matters only against the size of the optimizer's steps.

    Raises:
        InputError: D < 1, F < 1, a negative width, an unknown norm, a representation of the wrong shape, or N < 2 in
            training.

    Example:
        >>> import torch
        >>> projector = FalconProjector(256, 128)
        >>> projector(torch.randn(32, 256)).norm(dim=1).allclose(torch.ones(32))
        True
    """

    def __init__(
        self,
        in_dim: int,
        embed_dim: int,
        *,
        embedding_norm: EmbeddingNorm = "l2",
        affine: bool = False,
        hidden_dim: int = 0,
    ) -> None:
        super().__init__()
        check_at_least("in_dim", in_dim, 1, fix="use the width of the encoder's output")
        check_at_least("embed_dim", embed_dim, 1)
        check_at_least("hidden_dim", hidden_dim, 0, fix="0 is no hidden layer")
        check_choice("embedding_norm", embedding_norm, ("l2", "tanh"))
        self.in_dim = in_dim
        self.embed_dim = embed_dim
        self.embedding_norm = embedding_norm
        # No bias: batch normalization removes it.
        self.hidden = nn.Sequential()
        if hidden_dim:
            self.hidden.append(nn.Linear(in_dim, hidden_dim, bias=False))
            self.hidden.append(GlobalBatchNorm(hidden_dim))
            self.hidden.append(nn.GELU())
        self.linear = nn.Linear(hidden_dim or in_dim, embed_dim, bias=False)
        self.norm = GlobalBatchNorm(embed_dim, affine=affine)

    def forward(self, z_ND: Tensor) -> Tensor:
        """Embeddings u [N, F] of representations z [N, D], in the dtype of z or of autocast."""
        check_matrix("representation", z_ND, columns=self.in_dim)
        y_NF: Tensor = self.norm(self.linear(self.hidden(z_ND)))
        if self.embedding_norm == "tanh":
            return y_NF.tanh() / math.sqrt(self.embed_dim)
        # Under autocast the norm is float32 and would widen the quotient.
        return normalize(y_NF, dim=1).to(y_NF.dtype)
