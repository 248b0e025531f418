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

    Raises:
        InputError: D < 1, F < 1, an unknown norm, a representation of the wrong shape, or N < 2 in training.

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
    ) -> None:
        super().__init__()
        check_at_least("in_dim", in_dim, 1, fix="use the width of the encoder's output")
        check_at_least("embed_dim", embed_dim, 1)
        check_choice("embedding_norm", embedding_norm, ("l2", "tanh"))
        self.in_dim = in_dim
        self.embed_dim = embed_dim
        self.embedding_norm = embedding_norm
        # No bias: batch normalization removes it.
        self.linear = nn.Linear(in_dim, embed_dim, bias=False)
        self.norm = GlobalBatchNorm(embed_dim, affine=affine)

    def forward(self, z_ND: Tensor) -> Tensor:
        """Embeddings u [N, F] of representations z [N, D], in the dtype of z or of autocast."""
        check_matrix("representation", z_ND, columns=self.in_dim)
        y_NF: Tensor = self.norm(self.linear(z_ND))
        if self.embedding_norm == "tanh":
            return y_NF.tanh() / math.sqrt(self.embed_dim)
        # Under autocast the norm is float32 and would widen the quotient.
        return normalize(y_NF, dim=1).to(y_NF.dtype)
