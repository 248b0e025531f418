"""DINO: a student learns from a teacher that is its own running average."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from falcon_ssl.config import DINOConfig
from falcon_ssl.core.monitor import StuckValue
from falcon_ssl.dictionary.prototypes import PrototypeDictionary
from falcon_ssl.losses.dino import dino_loss, updated_center
from falcon_ssl.methods.base import Parts, StepOutput, represent
from falcon_ssl.methods.heads import Projected, Prototypes, mlp, unit_rows
from falcon_ssl.methods.teacher import Teacher

NUM_LARGE = 2  # views that the teacher sees


class DINO(Projected):
    """Caron et al., 2021 (arXiv 2104.14294); takes small views after the two large ones.

    The teacher is what is evaluated and exported, as in the paper. As with its authors it drops nothing: it is the
    student without dropout and stochastic depth.

    Example:
        >>> method = DINO(Parts(torch.nn.Flatten(), 64, (1, 8, 8)), DINOConfig(32, 16, 20))
        >>> view1, view2 = torch.randn(2, 16, 1, 8, 8)
        >>> sorted(method([view1, view2]).terms)
        ['consistency', 'entropy', 'total']
    """

    few_codes_hint = "is teacher_temperature too small?"

    def __init__(self, parts: Parts, config: DINOConfig) -> None:
        widths = [parts.in_dim, config.hidden_dim, config.hidden_dim, config.embed_dim]
        head = mlp(widths, activation="gelu", batch_norm=False, last_bias=True)
        super().__init__(parts.encoder, head)
        self.config = config
        self.prototypes = Prototypes(config.num_prototypes, config.embed_dim)
        self.teacher = Teacher(self._student())
        teacher_prototypes = self.teacher["prototypes"]
        assert isinstance(teacher_prototypes, Prototypes)
        # Not a buffer: those are replaced when a module moves, and the dictionary follows this one as it follows the
        # prototypes.
        self.center = nn.Parameter(torch.zeros(config.num_prototypes), requires_grad=False)
        self.dictionary = PrototypeDictionary(teacher_prototypes.weight, center_C=self.center)
        self.teacher_temperature = config.teacher_temperature  # of the step

    @property
    def evaluated_encoder(self) -> nn.Module:
        """The teacher's."""
        return self.teacher["encoder"]

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Loss of two large views and any number of small ones."""
        with torch.no_grad():
            large, micro_batches = views[:NUM_LARGE], self.micro_batches
            t_VND = represent(self.teacher["encoder"], large, micro_batches=micro_batches)
            t_VNF = unit_rows(self.teacher["head"](t_VND))
            teacher = self.teacher["prototypes"](t_VNF).chunk(NUM_LARGE)
        student = [self.prototypes(unit_rows(y_NF)) for y_NF in self.project(views)]
        terms = dino_loss(
            student,
            teacher,
            self.center,
            student_temperature=self.config.student_temperature,
            teacher_temperature=self.teacher_temperature,
        )
        if self.training:
            momentum = self.config.center_momentum
            self.center.copy_(updated_center(self.center, teacher, momentum=momentum))
        return StepOutput.of(terms, t_VNF.chunk(NUM_LARGE)[0])

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Representations z_ND and unit embeddings u_NF of the teacher."""
        z_ND = self.teacher["encoder"](images)
        return z_ND, unit_rows(self.teacher["head"](z_ND))

    def before_step(self, step: int, num_steps: int) -> None:
        """Prototypes are frozen at the start of a run, and the teacher's temperature is warmed up.

        T_t = start + (end - start) min(1, step / (warmup num_steps))
        """
        self.prototypes.frozen = step < self.config.prototypes_frozen * num_steps
        start, end = self.config.teacher_temperature_start, self.config.teacher_temperature
        if start is not None:
            done = min(1.0, step / (self.config.teacher_temperature_warmup * num_steps))
            self.teacher_temperature = start + (end - start) * done

    def after_backward(self, step: int, num_steps: int) -> None:
        """Frozen prototypes are neither moved nor decayed."""
        self.prototypes.cancel_gradient()

    def after_step(self, step: int, num_steps: int) -> None:
        """The teacher follows the student, more and more slowly."""
        momentum = self.config.teacher_momentum
        self.teacher.follow(self._student(), momentum=momentum, step=step, num_steps=num_steps)

    def stuck_values(self, batch_size: int) -> tuple[StuckValue, ...]:
        """log C when teacher or student is uniform."""
        value = math.log(self.config.num_prototypes)
        return (StuckValue("total", value, "every sample gets the same assignment (log C)"),)

    def _student(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "head": self.head, "prototypes": self.prototypes}
