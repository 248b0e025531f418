"""Encoders as models of Hugging Face's transformers: importing this module lets `AutoModel` load them.

Those that timm has need no such class: `AutoModel` reads their folders itself, as TimmWrapper.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from falcon_ssl.networks.readout import Readout
from falcon_ssl.networks.registry import build_encoder
from falcon_ssl.networks.timm import import_transformers

import_transformers()

from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel  # noqa: E402
from transformers.modeling_outputs import BaseModelOutputWithPooling  # noqa: E402

MODEL_TYPE = "falcon_ssl"


class FalconEncoderConfig(PretrainedConfig):  # type: ignore[misc]
    """What `build_encoder` and `Readout` are given.

    Args:
        encoder: Options of `build_encoder`, with its name.
        num_channels: Channels of the images.
        image_size: Their side.
        readout: Options of `Readout`.
        **kwargs: Those of every configuration of transformers.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        num_channels: int = 3,
        image_size: int = 32,
        readout: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder or {"name": "resnet18"}
        self.num_channels, self.image_size = num_channels, image_size
        self.readout = readout or asdict(Readout())
        super().__init__(**kwargs)


class FalconEncoderModel(PreTrainedModel):  # type: ignore[misc]
    """An encoder and what is read off it: ``model(pixel_values).pooler_output`` is z_ND."""

    config_class = FalconEncoderConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: FalconEncoderConfig) -> None:
        super().__init__(config)
        self.encoder = build_encoder(
            in_channels=config.num_channels, image_size=config.image_size, **config.encoder
        )
        self.readout = Readout(**config.readout)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the layers of an encoder initialize themselves, and weights are loaded over that."""

    def forward(
        self, pixel_values: Tensor, return_dict: bool | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling | tuple[Tensor, ...]:
        """Normalized images [N, C, H, W] -> ``pooler_output`` z_ND; ``last_hidden_state`` is the same as [N, 1, D]."""
        z_ND = self.readout(self.encoder, pixel_values)
        if return_dict is False:
            return z_ND[:, None], z_ND
        return BaseModelOutputWithPooling(last_hidden_state=z_ND[:, None], pooler_output=z_ND)


AutoConfig.register(MODEL_TYPE, FalconEncoderConfig)
AutoModel.register(FalconEncoderConfig, FalconEncoderModel)
