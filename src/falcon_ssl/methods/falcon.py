"""FALCON: encoder, projector, dictionary, loss. No teacher, no queue, no stop-gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from falcon_ssl.config.run import FalconConfig
from falcon_ssl.core.theory import COMPLETE_TEMPERATURE
from falcon_ssl.dictionary.base import Dictionary
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.losses import FalconLoss, power_law_prior
from falcon_ssl.methods.base import Method, Parts, StepOutput, check_two_views
from falcon_ssl.networks.projector import FalconProjector


class Falcon(Method):
    """The method of the paper (arXiv 2410.04959).

        z = encoder(x)      u = projector(z)      loss = falcon_loss(u, u', dictionary)

    Args:
        encoder: Images [N, C, H, W] to z_ND.
        projector: z_ND to unit rows u_NF.
        loss: u_NF of two views to loss terms.

    Example:
        >>> from falcon_ssl import FalconLoss, FalconProjector, RademacherDictionary
        >>> method = Falcon(
        ...     encoder=nn.Flatten(),
        ...     projector=FalconProjector(64, 32),
        ...     loss=FalconLoss(RademacherDictionary(256, 32)),
        ... )
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['consistency', 'entropy', 'invariance', 'prior_matching', 'total']
    """

    few_codes_hint = "is beta too large?"

    def __init__(self, encoder: nn.Module, projector: FalconProjector, loss: FalconLoss) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.loss = loss
        self.dictionary = loss.dictionary
        self.logit_scale = loss.logit_scale

    @classmethod
    def from_config(cls, parts: Parts, config: FalconConfig) -> Falcon:
        """With a freshly initialised projector."""
        temperature = config.temperature
        if config.dictionary == "complete" and config.epsilon is None and temperature is None:
            temperature = COMPLETE_TEMPERATURE
        loss = FalconLoss(
            build_dictionary(config),
            epsilon=config.epsilon,
            temperature=temperature,
            beta=config.beta,
            prior_matching=config.prior_matching,
            prior=power_law_prior(config.num_codes, config.prior_exponent)
            if config.prior_exponent
            else None,
            symmetric=config.symmetric,
            backend=config.backend,
            marginal_momentum=config.marginal_momentum,
        )
        projector = FalconProjector(
            parts.in_dim,
            config.embed_dim,
            embedding_norm=config.embedding_norm,
            affine=config.affine,
        )
        return cls(parts.encoder, projector, loss)

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two views, which pass the encoder as one batch."""
        check_two_views("falcon", views)
        _, u_NF = self.embed(torch.cat(views))
        u1_NF, u2_NF = u_NF.chunk(2)
        terms = self.loss(u1_NF, u2_NF)
        return StepOutput(
            loss=terms.total,
            terms={name: term.detach() for name, term in terms._asdict().items()},
            u_NF=u1_NF.detach(),
        )

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representations z_ND and unit embeddings u_NF."""
        z_ND = self.encoder(images)
        return z_ND, self.projector(z_ND)


def build_dictionary(config: FalconConfig) -> Dictionary:
    """The codes of a configuration, rebuilt from their seed."""
    if config.dictionary == "complete":
        return CompleteDictionary(config.embed_dim)
    kind = HadamardDictionary if config.dictionary == "hadamard" else RademacherDictionary
    return kind(config.num_codes, config.embed_dim, config.dictionary_seed)
