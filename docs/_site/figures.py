"""Draw the figures of the documentation with the library, into docs/images.

make figures        needs runs/demo for the last one, which make demo writes
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl import (
    FalconLoss,
    Features,
    HadamardDictionary,
    RademacherDictionary,
    diagnose,
    effective_temperature,
    logit_scale,
    logit_scale_from_temperature,
)
from falcon_ssl.dictionary import coherence
from falcon_ssl.report import figures
from falcon_ssl.report.images import Matrices
from falcon_ssl.report.sheet import svg_text
from falcon_ssl.report.svg import Chart, Level, Series, line_chart

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
LOSS = ROOT / "results" / "speed" / "loss_cpu.json"
DEMO = ROOT / "runs" / "demo"


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Independent normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss_cost() -> str:
    """Memory and time of one step against C, from the record of `benchmarks/loss.py`."""
    record = json.loads(LOSS.read_text(encoding="utf-8"))
    names = {
        "log_softmax": "log-softmax",
        "chunked": "FALCON, random codes",
        "complete": "all 2^F codes",
    }

    def chart(unit: str, points: dict[str, list[tuple[int, float]]]) -> Chart:
        series = [
            Series(
                names[key],
                *np.array(sorted(points[key])).T,
                None if key == "log_softmax" else k,
                dots=True,
            )
            for k, key in enumerate(("chunked", "complete", "log_softmax"))
        ]
        return line_chart(
            series,
            x_label="codes C",
            y_label=unit,
            description=f"{unit} of one step against the number of codes",
            x_scale="log",
            y_scale="log",
            x_names=[(1024, "1 k"), (16384, "16 k"), (131072, "131 k"), (1048576, "1 M")],
        )

    memory: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    seconds: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    for row in record["memory"]:
        if row["memory"] in memory:
            memory[row["memory"]].append((row["C"], row["peak_mb"]))
    for row in record["rows"]:
        if (row["N"], row["F"], row["threads"]) == (256, 256, 1):
            for name in names:
                if name in row["seconds"]:
                    seconds[name].append((row["C"], row["seconds"][name]))
    return svg_text(
        [
            ("Memory of a step", chart("MB", memory).sheet()),
            ("Time of a step, one thread", chart("seconds", seconds).sheet()),
        ],
        columns=2,
        alt="Memory and time of the loss, forward and backward, against the number of codes; N = F = 256.",
    )


def orthogonality() -> str:
    """Cosines between 2048 codes against their width."""
    widths = [32, 64, 128, 256, 512, 1024]
    largest, typical, welch = [], [], []
    for width in widths:
        found = coherence(RademacherDictionary(2048, width, seed=0))
        largest.append(found.largest_cosine)
        typical.append(math.sqrt(found.mean_square_cosine))
        welch.append(found.welch_largest)
    x = np.array(widths, dtype=float)
    chart = line_chart(
        [
            Series("largest |cosine| of any two", x, np.array(largest), 0, dots=True),
            Series("typical (RMS)", x, np.array(typical), 1, dots=True),
            Series("Welch bound", x, np.array(welch), None),
        ],
        x_label="width F",
        y_label="cosine",
        description="cosines between random codes against their width",
        x_scale="log",
        x_names=[(w, str(w)) for w in widths],
        from_zero=True,
    )
    return svg_text([("2048 random codes are nearly orthogonal", chart.sheet())])


def temperature() -> str:
    """How sure an assignment is, and what one epsilon means at several widths."""
    num_codes, width, draws = 4096, 128, 64
    codes_CF = RademacherDictionary(num_codes, width, seed=0).block(0, num_codes)
    own_F = codes_CF[0] / math.sqrt(width)
    cosines = np.linspace(0, 1, 41)
    curves = []
    for k, T in enumerate((0.2, 0.38, 1.0)):
        L = logit_scale_from_temperature(width, T)
        sure = []
        for cosine in cosines.tolist():
            away_NF = noise(draws, width)
            away_NF = normalize(away_NF - (away_NF @ own_F)[:, None] * own_F, dim=1)
            u_NF = cosine * own_F + math.sqrt(1 - cosine**2) * away_NF
            p_NC = (L / math.sqrt(width) * u_NF @ codes_CF.T).softmax(dim=1)
            sure.append(p_NC[:, 0].mean().item())
        curves.append(Series(f"T = {T:g}", cosines, np.array(sure), k))
    left = line_chart(
        curves,
        x_label="cosine of the embedding to a code",
        y_label="probability of that code",
        description="probability of a code against the cosine to it",
        from_zero=True,
    )
    widths = np.array([32, 64, 128, 256, 512, 1024, 2048])
    right = line_chart(
        [
            Series(
                f"epsilon = {epsilon:g}",
                widths.astype(float),
                np.array(
                    [effective_temperature(w, logit_scale(4096, epsilon)) for w in widths.tolist()]
                ),
                k,
                dots=True,
            )
            for k, epsilon in enumerate((1e-5, 1e-8, 1e-12))
        ],
        x_label="width F",
        y_label="effective temperature F / L²",
        description="effective temperature against width for three epsilons",
        x_scale="log",
        y_scale="log",
        x_names=[(w, str(w)) for w in widths[::2].tolist()],
        levels=[Level(0.38, "0.38")],
    )
    return svg_text(
        [
            ("F = 128, 4096 codes", left.sheet()),
            ("The same epsilon at another width", right.sheet()),
        ],
        columns=2,
    )


def terms() -> str:
    """Both terms on a way from a network that treats all images alike to one code for each."""
    num_codes = width = 64
    codes_CF = HadamardDictionary(num_codes, width, seed=0).block(0, num_codes)
    sharpest = logit_scale(num_codes, 1e-8)
    x, rows = np.linspace(-1, 1, 81), []
    for t in x.tolist():
        sharpness = sharpest * max(min(1 + t, 1.0), 1e-3)
        spread = max(t, 0.0)
        u_NF = normalize((1 - spread) * codes_CF[:1] + spread * codes_CF, dim=1)
        epsilon = 1 / (math.exp(sharpness) + num_codes - 1)
        loss = FalconLoss(HadamardDictionary(num_codes, width, seed=0), epsilon=epsilon)
        rows.append(loss(u_NF, u_NF).as_floats())
    chart = line_chart(
        [
            Series("loss", x, np.array([row["total"] for row in rows]), 0),
            Series("invariance", x, np.array([row["invariance"] for row in rows]), 1),
            Series("prior matching", x, np.array([row["prior_matching"] for row in rows]), 2),
        ],
        x_label="",
        y_label="nats",
        description="the two terms on a way from a collapsed batch to one code for each image",
        x_names=[(-0.86, "all alike, unsure"), (0, "all alike, sure"), (0.86, "one code each")],
        levels=[Level(math.log(num_codes), "log C")],
        from_zero=True,
    )
    return svg_text([("Only different images can bring the loss below log C", chart.sheet())])


def collapses() -> str:
    """Cosines between the images of features that are healthy, or collapsed in one of the four ways."""
    N, D, classes = 2000, 128, 10
    label = torch.arange(N) * classes // N
    centers = 2 * noise(classes, D)[label]
    healthy, random_codes = (
        centers + noise(N, D, seed=1),
        torch.randint(512, (N,), generator=torch.Generator().manual_seed(0)),
    )
    made = {
        "healthy": (healthy, random_codes),
        "representation: all alike": (5 * noise(1, D) + 0.01 * noise(N, D, seed=1), random_codes),
        "dimensional: three directions": (
            (2 * noise(classes, 3)[label] + noise(N, 3, seed=1)) @ noise(3, D, seed=2),
            random_codes,
        ),
        "cluster: one code for nearly all": (healthy, (torch.arange(N) % 40 == 0).long()),
        "intracluster: a cluster is a point": (centers + 0.02 * noise(N, D, seed=1), random_codes),
    }
    named = []
    for name, (z, code) in made.items():
        found = diagnose(Features(z=z, code=code), num_codes=512, num_clusters=classes)
        bad = [one.name for one in found.collapses if one.verdict == "collapsed"]
        assert bad == ([] if name == "healthy" else [name.partition(":")[0]]), (name, bad)
        order = code.sort(stable=True).indices if name.startswith("cluster") else torch.arange(N)
        if name.startswith("cluster"):  # what the codes tell of the images: which pairs share one
            shown = torch.nn.functional.one_hot(code[order[:: N // 100]]).float()
        else:
            shown = normalize(z[order[:: N // 100]], dim=1)
        named.append((name, (shown @ shown.T).numpy()))
    return svg_text(
        [("", Matrices("gallery", named).sheet(columns=2))],
        alt="Cosines between images: " + ", ".join(made),
    )


def codes_needed() -> str:
    """To which accuracy C random codes give the softmax over all of them."""
    C = np.geomspace(64, 2**20, 40)
    chart = line_chart(
        [
            Series(f"T = {T:g}", C, np.sqrt(np.expm1(1 / T) / C), k)
            for k, T in enumerate((0.2, 0.38, 0.8))
        ],
        x_label="codes C",
        y_label="relative deviation of the softmax's sum",
        description="deviation from the complete dictionary against the number of codes",
        x_scale="log",
        y_scale="log",
        levels=[Level(0.1, "10 %")],
    )
    return svg_text([("How far C codes are from all 2^F", chart.sheet())])


def training() -> str:
    """The loss of the demo, and its distance to the optimum."""
    loss, gaps = figures.training(DEMO), figures.gaps(DEMO)
    assert isinstance(loss.body, Chart)
    assert isinstance(gaps.body, Chart)
    return svg_text(
        [("Loss on the digits", loss.body.sheet()), ("Distance to the optimum", gaps.body.sheet())],
        columns=2,
    )


DRAWN: dict[str, Callable[[], str]] = {
    "loss-cost": loss_cost,
    "orthogonality": orthogonality,
    "temperature": temperature,
    "terms": terms,
    "collapses": collapses,
    "codes-needed": codes_needed,
    "training": training,
}

if __name__ == "__main__":
    for name, draw in DRAWN.items():
        (IMAGES / f"{name}.svg").write_text(draw(), encoding="utf-8")
