"""FALCON: encoder, projector, dictionary, loss. No teacher, no queue, no stop-gradient."""

from __future__ import annotations

from torch import Tensor

from falcon_ssl.config import FalconConfig
from falcon_ssl.dictionary.base import Dictionary
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.losses import FalconLoss, power_law_prior
from falcon_ssl.methods.base import Method, Parts, StepOutput, num_large, represent
from falcon_ssl.networks.projector import FalconProjector


class Falcon(Method):
    """The method of the paper (arXiv 2410.04959).

        z = encoder(x)      u = projector(z)      loss = falcon_loss(views of u, dictionary)

    Example:
        >>> method = Falcon(Parts(torch.nn.Flatten(), 64, (1, 8, 8)), FalconConfig(embed_dim=32))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['consistency', 'entropy', 'invariance', 'prior_matching', 'total']
    """

    few_codes_hint = "is beta too large?"

    def __init__(self, parts: Parts, config: FalconConfig) -> None:
        super().__init__()
        prior = None
        if config.prior_exponent:
            prior = power_law_prior(config.num_codes, config.prior_exponent)
        self.config = config
        self.encoder = parts.encoder
        self.projector = FalconProjector(
            parts.in_dim,
            config.embed_dim,
            embedding_norm=config.embedding_norm,
            affine=config.affine,
        )
        self.loss = FalconLoss(
            build_dictionary(config),
            epsilon=config.epsilon,
            temperature=config.temperature,
            beta=config.beta,
            prior_matching=config.prior_matching,
            prior=prior,
            backend=config.backend,
            marginal_momentum=config.marginal_momentum,
        )
        self.dictionary = self.loss.dictionary
        self.logit_scale = self.loss.logit_scale

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two or more views; the large ones, or the first ``config.num_targets``, are targets."""
        u_MF = self.projector(represent(self.encoder, views))
        u_VNF = u_MF.view(len(views), -1, u_MF.shape[1])
        terms = self.loss(*u_VNF, num_targets=self.config.num_targets or num_large(views))
        return StepOutput.of(terms, u_VNF[0])

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
