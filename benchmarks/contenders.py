"""What the loss benchmarks compare: the formula as published, as one would write it cleanly, and this library's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from falcon_ssl import FalconLoss, RademacherDictionary
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.hadamard import HadamardDictionary

Step = Callable[[Tensor, Tensor], Tensor]  # two views' embeddings to the loss
EPSILON = 1e-8


def published(u1: Tensor, u2: Tensor, codes_CF: Tensor, logit_scale: float) -> Tensor:
    """Softmax, its logarithm, and the logarithm of its mean: the formula as the authors published it."""
    scale = logit_scale / math.sqrt(codes_CF.shape[1])
    p1, p2 = (torch.softmax(scale * u @ codes_CF.T, dim=1) for u in (u1, u2))
    invariance = -((p1 * p2.log()).sum(1).mean() + (p2 * p1.log()).sum(1).mean()) / 2
    m1, m2 = p1.mean(0), p2.mean(0)
    log_C = math.log(len(codes_CF))
    return invariance + ((m1 * m1.log()).sum() + (m2 * m2.log()).sum()) / 2 + log_C


def log_softmax(u1: Tensor, u2: Tensor, codes_CF: Tensor, logit_scale: float) -> Tensor:
    """The same value, cleanly: one product for both views, log-softmax, one exponential."""
    u = torch.cat([u1, u2]) * (logit_scale / math.sqrt(codes_CF.shape[1]))
    log_p = torch.log_softmax(u @ codes_CF.T, dim=1).view(2, len(u1), -1)
    p = log_p.exp()
    invariance = -(p * log_p.flip(0)).sum() / (2 * len(u1))
    m = p.mean(1)
    return invariance + (m * m.log()).sum() / 2 + math.log(len(codes_CF))


def build(name: str, *, width: int, num_codes: int, device: str = "cpu") -> Step | None:
    """A contender by name, with its codes in place; None where it does not exist for these sizes."""
    logit_scale = math.log1p(-EPSILON * (num_codes - 1)) - math.log(EPSILON)
    if name in ("published", "log_softmax", "compiled"):
        dtype = torch.float32
        codes_CF = RademacherDictionary(num_codes, width).block(
            0, num_codes, device=device, dtype=dtype
        )
        formula = published if name == "published" else log_softmax
        if name == "compiled":
            formula = torch.compile(formula)
        return lambda u1, u2: formula(u1, u2, codes_CF.to(u1.dtype), logit_scale)
    if name == "complete":
        loss = FalconLoss(CompleteDictionary(width), temperature=0.38)
    elif name == "hadamard":
        if width & (width - 1) and width not in (384,):
            return None
        loss = FalconLoss(HadamardDictionary(num_codes, width), epsilon=EPSILON)
    else:
        backend, _, precision = name.partition("_")
        options = {"input_precision": precision} if precision in ("ieee", "tf32") else {}
        dictionary = RademacherDictionary(num_codes, width)
        loss = FalconLoss(dictionary, epsilon=EPSILON, backend=backend, **options)  # type: ignore[arg-type]
    return lambda u1, u2: loss(u1, u2).total


def tensors_of_n_times_c(name: str) -> int:
    """How many N x C float32 tensors (N counting both views) a contender holds at its peak, roughly."""
    return {"published": 8, "log_softmax": 7, "compiled": 6, "dense": 7}.get(name, 0)


def embeddings(
    name: str, num_rows: int, width: int, *, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Two views that resemble each other, in the precision the contender's name ends with."""
    generator = torch.Generator().manual_seed(0)
    base, noise1, noise2 = torch.randn(3, num_rows, width, generator=generator)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name.split("_")[-1], torch.float32)
    views = (torch.nn.functional.normalize(base + 0.5 * noise, dim=1) for noise in (noise1, noise2))
    u1, u2 = (u.to(device=device, dtype=dtype).requires_grad_() for u in views)
    return u1, u2
