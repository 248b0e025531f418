"""lightly's projection head and its `criterion(z0, z1)`, with our loss in place of theirs."""

from __future__ import annotations

import torch
from lightly.models.modules.heads import SimCLRProjectionHead
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import normalize

from falcon_ssl import FalconLoss, RademacherDictionary

images = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
backbone = nn.Sequential(nn.Conv2d(1, 64, 3, stride=2), nn.ReLU(), nn.Flatten())
head = SimCLRProjectionHead(576, 256, 64)
criterion = FalconLoss(RademacherDictionary(1024, 64))
optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-3)


def view(batch: Tensor) -> Tensor:
    """Or a transform of lightly, in the data set."""
    return batch * (0.7 + 0.6 * torch.rand(len(batch), 1, 1, 1)) + 0.1 * torch.randn_like(batch)


for epoch in range(3):
    for batch in images[torch.randperm(len(images))].split(256):
        if len(batch) < 256:  # the prior is matched by the rows of a batch, and 5 are too few
            continue
        z0, z1 = (normalize(head(backbone(view(batch))), dim=1) for _ in range(2))
        loss = criterion(z0, z1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.as_floats())
