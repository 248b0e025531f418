"""Triton kernels are interpreted on a machine without a GPU; this must be known before triton is first imported."""

import gc
import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_finish() -> None:
    """What is imported by now is no garbage: without this, collections look through all of it again and again."""
    gc.collect()
    gc.freeze()
