"""FALCON: encoder, projector, dictionary, loss. No teacher, no queue, no stop-gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from falcon_ssl.config import FalconConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary.base import Dictionary
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.losses import FalconLoss, power_law_prior
from falcon_ssl.methods.base import Method, Parts, StepOutput, num_large, represent
from falcon_ssl.networks.projector import FalconProjector
from falcon_ssl.networks.registry import representation_width


class Falcon(Method):
    """The method of the paper (arXiv 2410.04959).

        z = encoder(x)      u = projector(z)      loss = falcon_loss(views of u, dictionary)

    By places, z are the places of encoder.maps(x)[-1], each with an embedding of its own. The embedding of an image,
    for monitors and codes, is then the normalized mean over its places.

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
        self.num_places, in_dim = _measure_places(parts) if config.places else (1, parts.in_dim)
        self.projector = FalconProjector(
            in_dim,
            config.embed_dim,
            embedding_norm=config.embedding_norm,
            affine=config.affine,
            hidden_dim=config.hidden_dim,
        )
        self.loss = FalconLoss(
            build_dictionary(config),
            epsilon=config.epsilon,
            temperature=config.temperature,
            beta=config.beta,
            prior_matching=config.prior_matching,
            prior=prior,
            marginal=config.marginal,
            backend=config.backend,
            input_precision=config.input_precision,
            marginal_momentum=config.marginal_momentum,
        )
        self.dictionary = self.loss.dictionary
        self.logit_scale = self.loss.logit_scale

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two or more views; the large ones, or the first ``config.num_targets``, are targets."""
        if self.config.places and any(view.shape[2:] != views[0].shape[2:] for view in views):
            raise InputError(
                "falcon.places takes views of one size, whose last maps have equally many places",
                received=", ".join(str(tuple(view.shape[2:])) for view in views),
                expected=f"all {tuple(views[0].shape[2:])}",
                fix="leave the small crops out",
            )
        encoder = _Places(self.encoder) if self.config.places else self.encoder
        z_MD = represent(encoder, views, micro_batches=self.micro_batches)
        batches = z_MD.chunk(len(views)) if self.config.view_norm == "separate" else (z_MD,)
        u_MF = torch.cat([self.projector(z) for z in batches])
        shape = (len(views), len(views[0]), -1) if self.config.places else (len(views), -1)
        u_V = u_MF.view(*shape, u_MF.shape[1])  # [V, N, F], or [V, N, S, F] by places
        terms = self.loss(*u_V, num_targets=self.config.num_targets or num_large(views))
        return StepOutput.of(terms, _of_images(u_V[0]))

    def rows_per_sample(self, num_large: int) -> int:
        """Rows of one image in a marginal of a batch of so many large views: places, of all targets if pooled."""
        num_targets = self.config.num_targets or num_large
        return self.num_places * (num_targets if self.config.marginal == "pooled" else 1)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representations z_ND and unit embeddings u_NF."""
        if not self.config.places:
            z_ND = self.encoder(images)
            return z_ND, self.projector(z_ND)
        last_NCHW = self.encoder.maps(images)[-1]  # type: ignore[operator]
        pool = getattr(self.encoder, "pool_map", None)  # without it the encoder runs twice
        z_ND = self.encoder(images) if pool is None else pool(last_NCHW)
        u_MF = self.projector(_rows(last_NCHW))
        return z_ND, _of_images(u_MF.view(len(images), -1, u_MF.shape[1]))

    def compile_encoder(self, mode: str) -> None:
        """As `Method`: by places a step calls the encoder's maps in its place."""
        if self.config.places:
            encoder: Any = self.encoder
            encoder.maps = torch.compile(encoder.maps, mode=mode)
        else:
            super().compile_encoder(mode)


class _Places(nn.Module):
    """The places of an encoder's last map as rows [N S, C], those of an image in succession."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_places = 0  # S of the images seen last

    def forward(self, images: Tensor) -> Tensor:
        x_NCHW = self.encoder.maps(images)[-1]  # type: ignore[operator]
        self.num_places = x_NCHW.shape[2] * x_NCHW.shape[3]
        return _rows(x_NCHW)


def _rows(x_NCHW: Tensor) -> Tensor:
    """The places of a map [N S, C], those of an image in succession."""
    return x_NCHW.permute(0, 2, 3, 1).flatten(0, 2)


def _of_images(u: Tensor) -> Tensor:
    """Embeddings of images [N, F]: of those of their places [N, S, F], the normalized mean."""
    return u if u.dim() == 2 else normalize(u.mean(dim=1), dim=1).to(u.dtype)


def _measure_places(parts: Parts) -> tuple[int, int]:
    """S and C of the encoder's last map of a large view.

    Raises:
        InputError: An encoder without maps.
    """
    if not hasattr(parts.encoder, "maps"):
        raise InputError(
            "falcon.places needs an encoder with feature maps",
            received=f"{type(parts.encoder).__name__}, which has no method maps(images)",
            expected="an encoder with maps(images), such as resnet18",
            fix="choose another encoder, or leave places out",
        )
    places = _Places(parts.encoder)
    width = representation_width(places, parts.image_shape)
    return places.num_places, width


def build_dictionary(config: FalconConfig) -> Dictionary:
    """The codes of a configuration, rebuilt from their seed."""
    if config.dictionary == "complete":
        return CompleteDictionary(
            config.embed_dim,
            kernel_order=config.kernel_order,
            kernel_places=config.kernel_places,
        )
    kind = HadamardDictionary if config.dictionary == "hadamard" else RademacherDictionary
    return kind(config.num_codes, config.embed_dim, config.dictionary_seed)
