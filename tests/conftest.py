"""Triton kernels are interpreted on a machine without a GPU; this must be known before triton is first imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
