"""A DINO-style loop (student, EMA teacher, large and small crops) whose head and loss are FALCON's.

DINO's head becomes `FalconProjector`, its loss `falcon_loss`: centering, sharpening and the temperature of the teacher
are gone. The teacher is no target any more; its average of the weights is kept as what may be evaluated.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from falcon_ssl import FalconProjector, RademacherDictionary, falcon_loss, logit_scale
from falcon_ssl.views import Normalization, RandomResizedCrop, Views, multi_crop, two_view

images = torch.tensor(load_digits().images * 15.9, dtype=torch.uint8)[:, None]
large, small = RandomResizedCrop(8, scale=(0.6, 1.0)), RandomResizedCrop(6, scale=(0.3, 0.6))
crops = Views(
    multi_crop(two_view([large]), [small], count=4), normalization=Normalization((0.3,), (0.38,))
)


def backbone() -> nn.Module:
    """Any that takes crops of several sizes."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )


class MultiCropWrapper(nn.Module):
    """DINO's: one pass for each size, then the head on all crops."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, crops: list[Tensor]) -> list[Tensor]:
        """V crops -> V embeddings."""
        z = [self.backbone(torch.cat(same)) for same in (crops[:2], crops[2:])]
        return list(self.head(torch.cat(z)).chunk(len(crops)))


student = MultiCropWrapper(backbone(), FalconProjector(256, 64))  # was DINOHead
teacher = backbone().requires_grad_(False)
teacher.load_state_dict(student.backbone.state_dict())
dictionary = RademacherDictionary(1024, 64)
optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
generator = torch.Generator().manual_seed(0)

for epoch in range(3):
    for batch in images[torch.randperm(len(images))].split(256):
        if len(batch) < 256:  # the prior is matched by the rows of a batch, and 5 are too few
            continue
        u = student(crops(batch, generator=generator))
        terms = falcon_loss(  # was DINOLoss: the two large crops are targets of all others
            u, dictionary, logit_scale=logit_scale(1024, 1e-8), num_targets=2
        )
        optimizer.zero_grad()
        terms.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(teacher.parameters(), student.backbone.parameters(), strict=True):
                kept.lerp_(new, 1 - 0.99)
    print(epoch, terms.as_floats())
