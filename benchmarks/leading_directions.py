"""What the loss does at first to the leading directions of an untrained network's embeddings: digits and photographs.

    python benchmarks/leading_directions.py --cifar10 parquet:PATH

S = E[u u^T] has eigenvectors v of share s = v^T S v, and the two views of an image agree on v by
rho = v^T E[u u'^T] v / s. To lowest order (docs/theory-training.md) a term pulls the logarithm of v's amplitude by

    invariance   2 beta (s / T) (rho - mean rho)         prior   -2 kappa (s / T^2) (v^T (S - diag S) v - mean)

with kappa = 1/2 for reverse and 1 for renyi2, means weighed by s. Measured is the derivative of the whole loss, exact.
Mean over three seeds of the recipes `digits` and `cifar10-cpu`, 512 images, F = 128, T = .38; reverse by 16384 random
codes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl import CompleteDictionary, FalconLoss, RademacherDictionary
from falcon_ssl.commands.loading import prepare
from falcon_ssl.config import from_mapping
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.recipes import recipe_path
from falcon_ssl.methods import Falcon
from falcon_ssl.methods.base import represent
from record import arguments, machine, markdown, write_record

ROWS, WIDTH, TEMPERATURE, SEEDS, DIRECTIONS = 512, 128, 0.38, (0, 1, 2), (0, 1, 2, 3, 15)
SETTINGS = (("reverse", 1.0), ("reverse", 0.5), ("renyi2", 1.0), ("renyi2", 0.5))


@torch.no_grad()
def embeddings(recipe: str, data: str, seed: int) -> Tensor:
    """u [2, N, F] of two views by the untrained network of a recipe."""
    config = from_mapping(read_yaml(recipe_path(recipe)))
    run = prepare(replace(config, data=data, seed=seed))
    method = run.method
    assert isinstance(method, Falcon)
    images = run.splits.train.images(torch.arange(ROWS))
    views = run.views(images, generator=torch.Generator().manual_seed(seed))
    u_MF: Tensor = method.train().projector(represent(method.encoder, views))
    return u_MF.view(2, ROWS, WIDTH)


def pulls(u_VNF: Tensor) -> list[dict[str, float]]:
    """What the terms do to some directions: minus the derivative with respect to the logarithm of their amplitude."""
    losses = {
        "reverse": FalconLoss(RademacherDictionary(16384, WIDTH), temperature=TEMPERATURE),
        "renyi2": FalconLoss(CompleteDictionary(WIDTH), temperature=TEMPERATURE),
    }
    u_MF = u_VNF.flatten(0, 1)
    s_FF = u_MF.T @ u_MF / len(u_MF)
    agreed_FF = u_VNF[0].T @ u_VNF[1] / ROWS
    share_F, v_FF = torch.linalg.eigh(s_FF)
    share_F, v_FF = share_F.flip(0), v_FF.flip(1)
    rho_F = torch.einsum("fk,fg,gk->k", v_FF, agreed_FF, v_FF) / share_F
    seen_F = torch.einsum("fk,fg,gk->k", v_FF, s_FF - torch.diag(s_FF.diagonal()), v_FF)
    rows = []
    for k in DIRECTIONS:
        row = {"direction": k + 1, "share": float(share_F[k]), "rho": float(rho_F[k])}
        first = 2 * share_F[k] / TEMPERATURE * (rho_F[k] - (share_F * rho_F).sum())
        second = share_F[k] / TEMPERATURE**2 * (seen_F[k] - (share_F * seen_F).sum())
        row |= {"invariance_predicted": float(first), "reverse_predicted": -float(second)}
        for name, loss in losses.items():
            for term, beta in (("prior", 0.0), ("both", 1.0)):
                log_amplitude = torch.zeros((), requires_grad=True)
                part_VN1 = (u_VNF @ v_FF[:, k])[:, :, None] * v_FF[:, k]
                moved = normalize(u_VNF + log_amplitude.expm1() * part_VN1, dim=2)
                loss.beta = beta
                loss(*moved).total.backward()
                row[f"{name}_{term}"] = -float(log_amplitude.grad)
        row["invariance"] = row["renyi2_both"] - row["renyi2_prior"]
        for name, beta in SETTINGS:
            row[f"{name} {beta}"] = beta * row["invariance"] + row[f"{name}_prior"]
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print and write the table."""
    parser = arguments(__doc__, "leading_directions")
    parser.add_argument("--cifar10", required=True, help="parquet:PATH")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: list[dict[str, Any]] = []
    for name, recipe, data in (
        ("digits", "digits", "digits"),
        ("CIFAR-10", "cifar10-cpu", options.cifar10),
    ):
        seeds = [pulls(embeddings(recipe, data, seed)) for seed in SEEDS]
        for of_seeds in zip(*seeds, strict=True):
            mean = {key: sum(row[key] for row in of_seeds) / len(SEEDS) for key in of_seeds[0]}
            table.append({"images": name, **mean})
    columns = ["direction", "share", "rho", "invariance", "invariance_predicted"]
    columns += ["reverse_prior", "reverse_predicted", "renyi2_prior"]
    columns += [f"{name} {beta}" for name, beta in SETTINGS]
    cells = [[row["images"], *(f"{row[column]:.3g}" for column in columns)] for row in table]
    lines = markdown(["images", *columns], cells)
    write_record(options.out, {"rows": table, "environment": machine()}, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
