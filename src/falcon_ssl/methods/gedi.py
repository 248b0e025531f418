"""GEDI: encoder, two-layer head to the classes; where asked for, an energy model of the images on the same network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from falcon_ssl.checks import InputError
from falcon_ssl.config_methods import GEDIConfig
from falcon_ssl.dictionary_prototypes import OneHotDictionary
from falcon_ssl.distributed import all_gather_rows, rank, row_counts
from falcon_ssl.losses.gedi import energy, energy_loss, gedi_loss
from falcon_ssl.methods.base import Parts, StepOutput, StuckValue
from falcon_ssl.methods.heads import Projected, mlp, unit_rows


class Langevin(nn.Module):
    """Samples of an energy model by Langevin dynamics, continued from batch to batch (as in JEM, arXiv 1912.03263).

        x <- x - step_size dE/dx + noise * standard normal

    Args:
        image_shape: Of a sample.
        steps: Steps of a batch.
        step_size: Along the gradient.
        noise: Standard deviation of the noise.
        buffer_size: Samples that are kept and continued.
        restart: Share of the samples that start from noise instead.
    """

    samples: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        steps: int,
        step_size: float,
        noise: float,
        buffer_size: int,
        restart: float,
    ) -> None:
        super().__init__()
        self.register_buffer("samples", torch.randn(buffer_size, *image_shape))
        self.steps = steps
        self.step_size = step_size
        self.noise = noise
        self.restart = restart


class GEDI(Projected):
    """Sansone and Manhaeve, 2022 (arXiv 2212.13425).

    The outputs of the head are the scores, so an embedding is as wide as there are classes, and its code is its largest
    entry.

    Args:
        encoder: Images [N, C, H, W] to z_ND.
        head: z_ND to scores [N, C], a `torch.nn.Sequential` that ends in a linear layer.
        temperature: T.
        beta: Weight of the invariance.
        langevin: Draws the samples of the energy term; None leaves the term out.
        energy_weight: Weight of the energy term.

    Numerics:
        Energies, and the samples that lower them, see the network in evaluation mode: batch statistics of samples
        would say what batch they come from. The random numbers of a step are a function of its number, which
        `before_step` is told, and the same on any number of ranks.

    Example:
        >>> method = GEDI.from_config(Parts(nn.Flatten(), 64, (1, 8, 8)), GEDIConfig(32, 20))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['consistency', 'entropy', 'invariance', 'prior_matching', 'total']
    """

    few_codes_hint = "is beta too large?"

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Sequential,
        *,
        temperature: float,
        beta: float,
        langevin: Langevin | None = None,
        energy_weight: float = 1.0,
    ) -> None:
        super().__init__(encoder, head)
        self.num_classes: int = head[-1].out_features  # type: ignore[assignment]
        self.dictionary = OneHotDictionary(self.num_classes)
        self.temperature = temperature
        self.beta = beta
        self.langevin = langevin
        self.energy_weight = energy_weight
        self.step = 0

    @classmethod
    def from_config(cls, parts: Parts, config: GEDIConfig) -> GEDI:
        """With freshly initialised head and samples."""
        langevin = Langevin(
            parts.image_shape,
            steps=config.sgld_steps,
            step_size=config.sgld_step_size,
            noise=config.sgld_noise,
            buffer_size=config.buffer_size,
            restart=config.restart,
        )
        return cls(
            parts.encoder,
            mlp([parts.in_dim, config.hidden_dim, config.num_prototypes], last_bias=True),
            temperature=config.temperature,
            beta=config.beta,
            langevin=langevin if config.generative else None,
            energy_weight=config.energy_weight,
        )

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two views."""
        s1_NC, s2_NC = self.project(views)
        terms = gedi_loss(s1_NC, s2_NC, temperature=self.temperature, beta=self.beta)
        out = StepOutput.of(terms, unit_rows(s1_NC))
        if self.langevin is None or not self.training:
            return out
        with _as_evaluated(self):
            drawn = self.draw(len(views[0]))
            # One pass for both: of images and samples alike.
            data, samples = self.energies(torch.cat([views[0], drawn])).chunk(2)
        difference = energy_loss(data, samples)
        total = terms.total + self.energy_weight * difference
        more = {"energy": difference.detach(), "total": total.detach()}
        return out._replace(loss=total, terms=out.terms | more)

    def energies(self, images: Tensor) -> Tensor:
        """E(x) of normalised images [N, C, H, W]: [N]."""
        return energy(self.head(self.encoder(images)), temperature=self.temperature)

    def draw(self, num_rows: int) -> Tensor:
        """This rank's ``num_rows`` samples of the model, after some more steps; they are kept for the next time.

        Raises:
            InputError: No energy term, or a buffer that is smaller than the batch of all ranks.
        """
        if self.langevin is None:
            raise InputError(
                "this model has no samples",
                received="langevin=None",
                expected="the energy term",
                fix="use gedi.generative=true",
            )
        chain, kept = self.langevin, self.langevin.samples
        counts = row_counts(num_rows, kept.device)
        total = sum(counts)
        if total > len(kept):
            raise InputError(
                "the buffer of samples is smaller than the batch",
                received=f"{len(kept)} samples, {total} images",
                expected="buffer_size >= batch_size",
                fix="raise gedi.buffer_size",
            )
        generator = torch.Generator().manual_seed(self.step)
        mine = slice(sum(counts[: rank()]), sum(counts[: rank() + 1]))

        def normal() -> Tensor:
            """Of all ranks' rows, this rank's: the same numbers on any number of ranks."""
            return torch.randn(total, *kept.shape[1:], generator=generator)[mine].to(kept)

        places = torch.randperm(len(kept), generator=generator)[:total].to(kept.device)
        fresh = (torch.rand(total, generator=generator) < chain.restart)[mine].to(kept.device)
        x = torch.where(fresh[:, None, None, None], normal(), kept[places[mine]])
        for _ in range(chain.steps):
            with torch.enable_grad():
                x.requires_grad_()
                slope = torch.autograd.grad(self.energies(x).sum(), x)[0]
            x = x.detach() - chain.step_size * slope + chain.noise * normal()
        kept[places] = all_gather_rows(x.detach())
        return x.detach()

    def before_step(self, step: int, num_steps: int) -> None:
        """New random numbers."""
        self.step = step

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """log C when every assignment is uniform."""
        value = math.log(self.num_classes)
        return (StuckValue("invariance", value, "every assignment is uniform (log C)"),)


@contextmanager
def _as_evaluated(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside."""
    training = [child for child in module.modules() if child.training]
    for child in training:
        child.training = False
    try:
        yield
    finally:
        for child in training:
            child.training = True
