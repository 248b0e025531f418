"""The libraries that an encoder is written for."""

from __future__ import annotations

from typing import Literal, TypeAlias

Format: TypeAlias = Literal["safetensors", "timm", "hf", "onnx", "torch"]
