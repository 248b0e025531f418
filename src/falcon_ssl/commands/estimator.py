"""FALCON as a scikit-learn transformer: arrays in, representations out, between a scaler and a classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from falcon_ssl.commands.loading import FITTED_TO, seen_shape
from falcon_ssl.commands.resolve import resolve
from falcon_ssl.config.encoder import EncoderConfig
from falcon_ssl.config.methods import FalconConfig
from falcon_ssl.config.run import RunConfig
from falcon_ssl.core.checks import check_at_least, check_positive
from falcon_ssl.core.devices import named_device
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import TensorSource
from falcon_ssl.methods import Falcon, Parts
from falcon_ssl.networks import build_encoder, fit_to_images, representation_width
from falcon_ssl.views import build_views

_AT_ONCE = 512  # rows that are transformed together

Draw = Callable[[Tensor, torch.Generator], list[Tensor]]


class FalconEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Pretrain an encoder on an array without its labels; `transform` returns its representations z_ND.

    Images pass the library's views and an encoder that fits their size. Rows of features are standardized, pass a
    perceptron of two layers, and two views of a row each have some of its features replaced by those of other rows
    (SCARF; Bahri et al. 2022, arXiv 2106.15147). For runs that are recorded, resumed or reported there is `pretrain`.

    Args:
        encoder: Of images, as ``--encoder.name``; None chooses by their size. Of features, None.
        width: Of both layers, for features.
        embed_dim: F, width of the embedding: the loss uses all 2^F codes, and `pretrain`'s defaults.
        epochs: Passes over the rows.
        batch_size: Rows of a step.
        lr: Peak learning rate of AdamW, which falls along a cosine.
        corruption: Fraction of a row's features that a view replaces.
        device: "auto", "cpu" or "cuda".
        random_state: Of initialization, order and views.

    Attributes:
        encoder_: The trained network, in evaluation mode on the CPU.
        terms_: Loss terms of the last epoch, means over its steps.
        n_features_in_: Features of a row; of images the height.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> X, y = load_iris(return_X_y=True)
        >>> encoder = FalconEncoder(width=16, embed_dim=16, epochs=2, random_state=0)
        >>> make_pipeline(encoder, LogisticRegression()).fit(X, y).predict(X).shape
        (150,)
    """

    def __init__(
        self,
        encoder: str | None = None,
        *,
        width: int = 128,
        embed_dim: int = 512,
        epochs: int = 30,
        batch_size: int = 256,
        lr: float = 2e-3,
        corruption: float = 0.4,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.encoder = encoder
        self.width = width
        self.embed_dim = embed_dim
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.corruption = corruption
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: object = None) -> FalconEncoder:
        """Pretrain.

        Args:
            X: Features [N, F], or images [N, H, W] or [N, H, W, C], uint8 or in [0, 1].
            y: Not used.

        Raises:
            InputError: An option out of range, or images that are none.
        """
        for name, least in (("width", 1), ("epochs", 1), ("batch_size", 2)):
            check_at_least(name, getattr(self, name), least)
        check_positive("lr", self.lr)
        rows = self._validated(X, reset=True)
        seed = int(check_random_state(self.random_state).randint(2**31))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            prepare = self._prepare_images if rows.ndim > 2 else self._prepare_features
            parts, data, draw = prepare(rows, seed)
            method = Falcon(parts, FalconConfig(embed_dim=self.embed_dim))
            self._train(method, data, draw, seed)
        self.encoder_ = method.encoder.cpu().eval().requires_grad_(False)
        if rows.ndim == 2:  # representations of a row then do not depend on the rows beside it
            self.encoder_.double()
        self._n_features_out = parts.in_dim
        return self

    def transform(self, X: Any) -> NDArray[np.floating[Any]]:
        """Representations [N, D] of rows like those of `fit`."""
        check_is_fitted(self)
        rows = self._validated(X, reset=False)
        if rows.shape[1:] != self.shape_:
            raise InputError("X is of another shape", received=rows.shape[1:], expected=self.shape_)
        with torch.no_grad():
            if rows.ndim > 2:
                images = TensorSource(_images_of(rows), name="X").tensor
                found = [
                    self.encoder_(self.views_.evaluate(some))
                    for some in torch.split(images, _AT_ONCE)
                ]
            else:
                found = [self.encoder_(torch.tensor(rows, dtype=torch.float64))]
        z_ND: NDArray[np.floating[Any]] = torch.cat(found).numpy()
        return z_ND.astype(rows.dtype if rows.dtype.kind == "f" else np.float32, copy=False)

    def _validated(self, X: Any, *, reset: bool) -> NDArray[Any]:
        is_image = getattr(X, "ndim", 2) > 2
        dtype = None if is_image else [np.float64, np.float32]
        rows: NDArray[Any] = validate_data(
            self, X, reset=reset, dtype=dtype, allow_nd=True, ensure_min_samples=2 if reset else 1
        )
        if reset:
            self.shape_ = rows.shape[1:]
        return rows

    def _prepare_features(self, rows: NDArray[Any], seed: int) -> tuple[Parts, Tensor, Draw]:
        if self.encoder is not None:
            raise InputError(
                "encoders by name are for images",
                received=f"{self.encoder!r} and features of shape {rows.shape}",
                expected="None, a perceptron of two layers",
            )
        if not 0 < self.corruption < 1:
            raise InputError(
                "corruption is out of range", received=self.corruption, expected="0 < x < 1"
            )
        data = torch.tensor(rows, dtype=torch.float32)
        std, mean = torch.std_mean(torch.tensor(rows, dtype=torch.float64), dim=0, correction=0)
        num_features = rows.shape[1]
        layers = nn.Sequential(
            _Standardize(mean.float(), std.where(std > 0, 1).float()),
            nn.Linear(num_features, self.width),
            nn.BatchNorm1d(self.width),
            nn.ReLU(),
            nn.Linear(self.width, self.width),
            nn.ReLU(),
        )

        def draw(batch: Tensor, generator: torch.Generator) -> list[Tensor]:
            views = []
            for _ in range(2):
                others = torch.randint(len(data), batch.shape, generator=generator)
                replaced = torch.rand(batch.shape, generator=generator) < self.corruption
                values = data.gather(0, others)
                views.append(batch.where(~replaced.to(batch.device), values.to(batch.device)))
            return views

        return Parts(layers, self.width, (1, 1, num_features)), data, draw

    def _prepare_images(self, rows: NDArray[Any], seed: int) -> tuple[Parts, Tensor, Draw]:
        source = TensorSource(_images_of(rows), name="X")
        wanted = RunConfig(encoder=EncoderConfig(name=self.encoder or "auto"), seed=seed)
        config = resolve(wanted, source)
        self.views_ = views = build_views(config.views)
        seen = seen_shape(source.image_shape, views)
        encoder = build_encoder(in_channels=seen[0], image_size=seen[1], **asdict(config.encoder))
        fit_to_images(encoder, lambda: views.evaluate(source.tensor[:FITTED_TO]))
        parts = Parts(encoder, representation_width(encoder, seen), seen)
        return parts, source.tensor, lambda batch, generator: views(batch, generator=generator)

    def _train(self, method: Falcon, data: Tensor, draw: Draw, seed: int) -> None:
        device = named_device(self.device)
        method.to(device).train()
        trained = [p for p in method.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=1e-4)
        batches = -(-len(data) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * batches)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(self.epochs):
            terms: list[dict[str, Tensor]] = []
            # Batches of nearly one size: a last one of a single row has no statistics.
            for chosen in torch.randperm(len(data), generator=generator).tensor_split(batches):
                out = method(draw(data[chosen].to(device), generator))
                optimizer.zero_grad()
                out.loss.backward()
                optimizer.step()
                schedule.step()
                terms.append(out.terms)
            self.terms_ = {name: float(sum(t[name] for t in terms)) / batches for name in terms[0]}


class _Standardize(nn.Module):
    """(x - mean) / std, of every feature."""

    def __init__(self, mean_F: Tensor, std_F: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean_F)
        self.register_buffer("std", std_F)

    def forward(self, x_NF: Tensor) -> Tensor:
        """[N, F] -> [N, F]."""
        return (x_NF - self.get_buffer("mean")) / self.get_buffer("std")


def _images_of(rows: NDArray[Any]) -> Tensor:
    """uint8 or floating [N, C, H, W] of an array [N, H, W] or [N, H, W, C]."""
    if rows.ndim > 4:
        raise InputError(
            "X holds no images", received=rows.shape, expected="[N, H, W] or [N, H, W, C]"
        )
    return torch.tensor(rows.reshape(*rows.shape[:3], -1)).permute(0, 3, 1, 2).contiguous()
