"""GEDI: encoder, two-layer head to the classes; where asked for, an energy model of the images on the same network."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from falcon_ssl.config import GEDIConfig
from falcon_ssl.core.distributed import all_gather_rows, all_reduce_max, rank, row_counts
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.modes import evaluation_mode
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.dictionary.prototypes import OneHotDictionary
from falcon_ssl.losses import energy, energy_loss, gedi_loss
from falcon_ssl.methods.base import Parts, StepOutput, num_large
from falcon_ssl.methods.heads import Projected, mlp, unit_rows


class ReplayBuffer(nn.Module):
    """Samples of an energy model that Langevin dynamics continues from batch to batch."""

    samples: Tensor
    started: Tensor

    def __init__(self, size: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("samples", torch.zeros(size, *image_shape))
        self.register_buffer("started", torch.zeros(size, dtype=torch.bool))


class GEDI(Projected):
    """Sansone and Manhaeve, 2022 (arXiv 2212.13425).

    The outputs of the head are the scores, so an embedding is as wide as there are classes, and its code is its largest
    entry.

    Numerics:
        Energies, and the samples that lower them, are computed in evaluation mode: batch statistics of samples would
        give away what batch they come from. The random numbers of a step are a function of its number, which
        `before_step` receives, and the same on any number of ranks.

    Example:
        >>> method = GEDI(Parts(torch.nn.Flatten(), 64, (1, 8, 8)), GEDIConfig(32, 20))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['consistency', 'entropy', 'invariance', 'prior_matching', 'total']
    """

    few_codes_hint = "is beta too large?"

    def __init__(self, parts: Parts, config: GEDIConfig) -> None:
        widths = [parts.in_dim, config.hidden_dim, config.num_prototypes]
        super().__init__(parts.encoder, mlp(widths, last_bias=True))
        self.config = config
        self.dictionary = OneHotDictionary(config.num_prototypes)
        self.langevin: ReplayBuffer | None = None
        if config.generative:
            self.langevin = ReplayBuffer(config.buffer_size, parts.image_shape)
        self.step = 0

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two or more views, of which the large ones are targets."""
        s_VNC = self.project(views)
        terms = gedi_loss(
            s_VNC,
            num_targets=num_large(views),
            temperature=self.config.temperature,
            beta=self.config.beta,
        )
        out = StepOutput.of(terms, unit_rows(s_VNC[0]))
        if self.langevin is None or not self.training:
            return out
        images = views[0]
        with evaluation_mode(self):
            drawn = self.draw(images)
            noise = _Draws(len(images), images, seed=2 * self.step + 1).normal()
            noisy = images + self.config.data_noise * noise
            # One pass for images and samples.
            data, samples = self.energies(torch.cat([noisy, drawn])).chunk(2)
        difference = energy_loss(data, samples)
        total = terms.total + self.config.energy_weight * difference
        more = {"energy": difference.detach(), "total": total.detach()}
        return out._replace(loss=total, terms=out.terms | more)

    def energies(self, images: Tensor) -> Tensor:
        """E(x) of normalized images [N, C, H, W]: [N]."""
        scores_NC = self.head(self.encoder(images))
        return energy(scores_NC, temperature=self.config.energy_temperature)

    def draw(self, images: Tensor) -> Tensor:
        """As many samples of the model as ``images``, by Langevin dynamics as in JEM (arXiv 1912.03263).

            x <- clamp(x - step_size dE/dx + noise * standard normal, low, high)

        A chain starts uniform in [low, high], for every channel the smallest and largest value of the images of the
        batch, and is continued from the buffer the next time. JEM does not clamp; without, the energy of a network of
        ReLUs falls without end far away from all images.

        Args:
            images: This rank's normalized images [N, C, H, W]; only their number and range matter.

        Raises:
            InputError: No energy term, a buffer that is smaller than the batch of all ranks, or images of another size.
        """
        if self.langevin is None:
            raise InputError(
                "this model has no samples",
                received="gedi.generative=false",
                expected="the energy term",
                fix="set gedi.generative=true",
            )
        kept = self.langevin.samples
        draws = _Draws(len(images), kept, seed=2 * self.step)
        if draws.total > len(kept):
            raise InputError(
                "the buffer of samples is smaller than the batch",
                received=f"{len(kept)} samples, {draws.total} images",
                expected="buffer_size >= batch_size",
                fix="raise gedi.buffer_size",
            )
        if images.shape[1:] != kept.shape[1:]:
            raise InputError(
                "the images have another size than the samples",
                received=tuple(images.shape[1:]),
                expected=tuple(kept.shape[1:]),
                fix="leave out views.start_size",
            )
        low, high = _range(images)
        places = draws.places(len(kept))
        mine = places[draws.mine]
        restarted = draws.uniform()[:, 0, 0, 0] < self.config.restart
        fresh = restarted | ~self.langevin.started[mine]
        start = low + (high - low) * draws.uniform()
        x = torch.where(fresh[:, None, None, None], start, kept[mine])
        for _ in range(self.config.sgld_steps):
            with torch.enable_grad():
                x.requires_grad_()
                slope = torch.autograd.grad(self.energies(x).sum(), x)[0]
            noise = self.config.sgld_noise * draws.normal()
            x = (x.detach() - self.config.sgld_step_size * slope + noise).clamp(low, high)
        kept[places] = all_gather_rows(x.detach())
        self.langevin.started[places] = True
        return x.detach()

    def before_step(self, step: int, num_steps: int) -> None:
        """New random numbers."""
        self.step = step

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """H(p_i) = log C when every assignment is uniform; a cross-entropy passes there when views disagree, too."""
        value = math.log(self.config.num_prototypes)
        return (StuckValue("entropy", value, "every assignment is uniform (log C)"),)


class _Draws:
    """Random numbers of a step for this rank's rows: the same numbers on any number of ranks.

    Args:
        num_rows: Of this rank.
        like: Numbers have its dtype, device and trailing shape.
        seed: Of the step.
    """

    def __init__(self, num_rows: int, like: Tensor, *, seed: int) -> None:
        counts = row_counts(num_rows, like.device)
        self.total = sum(counts)
        self.mine = slice(sum(counts[: rank()]), sum(counts[: rank() + 1]))
        self._shape = (self.total, *like.shape[1:])
        self._dtype, self._device = like.dtype, like.device
        # Of the device: copies of what is drawn for every step of the dynamics would make the host wait.
        self._generator = torch.Generator(self._device).manual_seed(seed)

    def normal(self) -> Tensor:
        return self._drawn(torch.randn)

    def uniform(self) -> Tensor:
        return self._drawn(torch.rand)

    def _drawn(self, draw: Callable[..., Tensor]) -> Tensor:
        drawn = draw(self._shape, generator=self._generator, device=self._device)
        return drawn[self.mine].to(self._dtype)

    def places(self, num: int) -> Tensor:
        """Different places for the rows of all ranks, among ``num``."""
        order = torch.randperm(num, generator=self._generator, device=self._device)
        return order[: self.total]


def _range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of every channel over the images of all ranks, [C, 1, 1] each."""
    extremes = torch.stack([-images.amin(dim=(0, 2, 3)), images.amax(dim=(0, 2, 3))])
    low, high = all_reduce_max(extremes)[:, :, None, None]
    return -low, high
