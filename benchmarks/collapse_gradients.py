"""Does a loss pull a collapsed network apart? The norm of its gradient at the collapsed point and near it.

make bench-collapse

All samples are one point z0 plus s times Gaussian noise, and the second view adds half as much noise again. What pulls
them apart is dL/dz minus its mean over the samples, which moves all alike. Its norm, relative to that at s = 1: above 1
the pull grows towards the collapse, near 0 it is gone. "with head" is the method as trained, at its initialization;
"loss alone" hands z to the loss, after the normalization that its theory asks for. Mean over three seeds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from falcon_ssl import methods
from falcon_ssl.config import from_mapping
from falcon_ssl.methods import Method
from falcon_ssl.methods.base import Parts
from record import arguments, machine, markdown, write_record

ROWS, WIDTH, SEEDS = 256, 64, (0, 1, 2)
SPREADS = (1.0, 0.1, 1e-2, 1e-3)
VARIANTS: dict[str, dict[str, Any]] = {
    "falcon, 4096 codes": {"method": "falcon", "falcon": {"embed_dim": WIDTH}},
    "falcon, all 2^64 codes": {
        "method": "falcon",
        "falcon": {"embed_dim": WIDTH, "dictionary": "complete"},
    },
    **{
        name: {"method": name, name: {"hidden_dim": WIDTH, "embed_dim": WIDTH}}
        for name in ("barlow_twins", "vicreg", "swav", "self_classifier", "dino", "lejepa")
    },
    "gedi": {"method": "gedi", "gedi": {"hidden_dim": WIDTH, "num_prototypes": WIDTH}},
}


class UnitRows(nn.Module):
    """The projector of FALCON without what is learned and without batch statistics."""

    def forward(self, z_ND: torch.Tensor) -> torch.Tensor:
        """u [N, D]."""
        return normalize(z_ND, dim=1)


def build(options: dict[str, Any], seed: int, *, with_head: bool) -> Method:
    """A method on representations: its encoder is the identity."""
    torch.manual_seed(seed)
    config = from_mapping(options)
    parts = Parts(nn.Identity(), WIDTH, (1, 1, WIDTH))
    method = methods._METHODS[config.method](parts, getattr(config, config.method))
    if not with_head:
        name = "projector" if config.method == "falcon" else "head"
        setattr(method, name, UnitRows() if name == "projector" else nn.Identity())
    return method.train()


def gradient_norm(options: dict[str, Any], spread: float, seed: int, *, with_head: bool) -> float:
    """|dL/dz - mean over samples| of both views."""
    method = build(options, seed, with_head=with_head)
    generator = torch.Generator().manual_seed(seed)
    one, noise1, noise2 = torch.randn(3, ROWS, WIDTH, generator=generator)
    z1_ND = one[:1] + spread * noise1
    z2_ND = z1_ND + 0.5 * spread * noise2
    views = [z1_ND.requires_grad_(), z2_ND.detach().requires_grad_()]
    gradients = torch.autograd.grad(method(views).loss, views, allow_unused=True)
    apart = [g - g.mean(dim=0) for g in gradients if g is not None]
    return float(torch.stack([g.norm() for g in apart]).norm())


def main() -> None:
    """Measure every loss, print and write the table."""
    options = arguments(__doc__, "collapse_gradients").parse_args()
    rows = []
    for name, variant in VARIANTS.items():
        for with_head in (False, True):
            relative = []
            for spread in SPREADS:
                norms = [
                    gradient_norm(variant, spread, seed, with_head=with_head)
                    / gradient_norm(variant, 1.0, seed, with_head=with_head)
                    for seed in SEEDS
                ]
                relative.append(sum(norms) / len(norms))
            rows.append([name, "with head" if with_head else "loss alone", *relative])
    header = ["loss", "", *(f"s = {spread:g}" for spread in SPREADS)]
    table = markdown(header, [[*row[:2], *(f"{x:.2g}" for x in row[2:])] for row in rows])
    record = {"header": header, "rows": rows, "about": machine()}
    write_record(options.out, record, "\n".join(table))


if __name__ == "__main__":
    main()
