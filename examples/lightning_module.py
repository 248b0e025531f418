"""A Lightning module on two processes: `python lightning_module.py`. The loss is that of the global batch by itself."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from falcon_ssl import FalconLoss, FalconProjector, RademacherDictionary


def view(batch: Tensor) -> Tensor:
    """Your augmentation."""
    return batch * (0.7 + 0.6 * torch.rand(len(batch), 1, 1, 1)) + 0.1 * torch.randn_like(batch)


class Pretraining(pl.LightningModule):
    """Encoder, projector, loss; nothing is gathered, and no batch normalization is converted."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 64, 3, stride=2), nn.ReLU(), nn.Flatten())
        self.projector = FalconProjector(576, 64)  # normalizes over all processes
        self.criterion = FalconLoss(RademacherDictionary(1024, 64))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """The same number on every process: DDP's mean of the gradients is that of the whole batch."""
        (images,) = batch
        u1, u2 = self.projector(self.encoder(torch.cat([view(images), view(images)]))).chunk(2)
        terms = self.criterion(u1, u2)
        self.log("loss", terms.total, prog_bar=True)
        return terms.total

    def on_train_epoch_end(self) -> None:
        """One line of each epoch, from the first process."""
        loss = float(self.trainer.callback_metrics["loss"])
        self.print({"processes": self.trainer.world_size, "total": loss})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Of all that is trained."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


if __name__ == "__main__":
    pl.seed_everything(0, verbose=False)
    images = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
    # 128 of each process; the prior is matched by the rows of a batch, so a short last one is left out.
    loader = DataLoader(TensorDataset(images), batch_size=128, shuffle=True, drop_last=True)
    trainer = pl.Trainer(
        accelerator="cpu",  # "gpu" where there are two
        devices=2,
        strategy="ddp",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Pretraining(), loader)
