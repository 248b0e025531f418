"""The loss in a loop of your own: encoder, projector, two views, 30 lines."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from falcon_ssl import FalconLoss, FalconProjector, RademacherDictionary

images = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
encoder = nn.Sequential(nn.Conv2d(1, 64, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(576, 128))
projector = FalconProjector(128, 64)  # rows of norm 1
criterion = FalconLoss(RademacherDictionary(1024, 64))
parameters = [*encoder.parameters(), *projector.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=1e-3)


def view(batch: Tensor) -> Tensor:
    """Your augmentation."""
    return batch * (0.7 + 0.6 * torch.rand(len(batch), 1, 1, 1)) + 0.1 * torch.randn_like(batch)


for epoch in range(5):
    for batch in images[torch.randperm(len(images))].split(256):
        if len(batch) < 256:  # the prior is matched by the rows of a batch, and 5 are too few
            continue
        u1, u2 = projector(encoder(torch.cat([view(batch), view(batch)]))).chunk(2)
        loss = criterion(u1, u2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.as_floats())
