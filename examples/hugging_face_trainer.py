"""Hugging Face's Trainer with a vision transformer: the loss inside a model that returns {"loss": ...}."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTModel

from falcon_ssl import FalconLoss, FalconProjector, RademacherDictionary

images = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:512, None]
config = ViTConfig(
    image_size=8,
    patch_size=4,
    num_channels=1,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
)


class Pretraining(nn.Module):
    """Encoder, projector, loss."""

    def __init__(self, encoder: ViTModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = FalconProjector(encoder.config.hidden_size, 64)
        self.criterion = FalconLoss(RademacherDictionary(1024, 64))

    def forward(self, view1: Tensor, view2: Tensor) -> dict[str, Tensor]:
        """Two views [N, C, H, W] of a batch; both pass the projector together."""
        tokens = self.encoder(pixel_values=torch.cat([view1, view2])).last_hidden_state
        u1, u2 = self.projector(tokens[:, 0]).chunk(2)
        return {"loss": self.criterion(u1, u2).total}


def view(batch: Tensor) -> Tensor:
    """Your augmentation."""
    return batch * (0.7 + 0.6 * torch.rand(len(batch), 1, 1, 1)) + 0.1 * torch.randn_like(batch)


def collate(rows: list[Tensor]) -> dict[str, Tensor]:
    """Images -> the arguments of `Pretraining.forward`."""
    batch = torch.stack(rows)
    return {"view1": view(batch), "view2": view(batch)}


model = Pretraining(ViTModel(config, add_pooling_layer=False))
arguments = TrainingArguments(
    output_dir="vit",
    num_train_epochs=2,
    per_device_train_batch_size=128,
    learning_rate=1e-3,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    remove_unused_columns=False,  # rows are tensors, not columns
    dataloader_drop_last=True,  # a last batch of few rows matches the prior badly
    dataloader_pin_memory=False,
    disable_tqdm=True,
)
trainer = Trainer(model=model, args=arguments, train_dataset=list(images), data_collator=collate)
trainer.train()
losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
print("loss", losses[0], "->", losses[-1])
model.encoder.save_pretrained("vit")
