"""Run folders that look like real ones, made of numpy only: what the report tests read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

MakeRun = Callable[..., Path]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _shares(rows: np.ndarray) -> np.ndarray:
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    return (values / values.sum()).astype(np.float32)


def _curves(num_steps: int, num_codes: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    done = np.linspace(0, 1, num_steps)
    noise = rng.normal(size=(5, num_steps))
    entropy = np.log(num_codes) * np.exp(-6 * done) + 0.06 + 0.02 * abs(noise[0])
    consistency = 1.3 * done * np.exp(-4 * done) + 0.12 + 0.03 * abs(noise[1])
    prior = 3.2 * np.exp(-7 * done) + 0.55 + 0.06 * noise[2]
    lines = []
    for step in range(num_steps):
        e, c, d = (float(v[step]) for v in (entropy, consistency, prior))
        lines.append(
            {
                "step": step,
                "epoch": 30 * step / num_steps,
                "seconds": 0.031 * step,
                "images_per_s": 4100 + 130 * float(noise[3][step]),
                "lr": 1e-3 * float(min(1, 20 * done[step]) * (1 + np.cos(np.pi * done[step])) / 2),
                "grad_norm": 1.5 * float(np.exp(-2 * done[step]))
                + 0.2 * abs(float(noise[4][step])),
                "total": 0.5 * (e + c) + d,
                "invariance": e + c,
                "prior_matching": d,
                "entropy": e,
                "consistency": c,
                "effective_rank_u": 10 + 42 * float(1 - np.exp(-5 * done[step])),
                "codes_used": int(20 + 90 * (1 - np.exp(-6 * done[step]))),
            }
        )
    return lines


@cache
def _pictures(num_codes: int, width: int, seed: int, labeled: bool) -> Mapping[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    digits = load_digits()
    chosen = rng.permutation(len(digits.target))[:360]
    images, labels = digits.images[chosen], digits.target[chosen].astype(np.int64)
    codes_CF = rng.choice([-1.0, 1.0], size=(num_codes, width))
    code = (labels * 7 + rng.integers(0, 7, 360)) % num_codes
    u = _unit(codes_CF[code] + 0.55 * rng.normal(size=(360, width)))
    z = codes_CF[code] @ rng.normal(size=(width, 64)) + 2 * rng.normal(size=(360, 64))
    flat = images.reshape(360, -1)
    random_u = _unit(flat @ rng.normal(size=(64, width)) + 40)
    rows = np.sort(rng.permutation(360)[:240])
    rows = rows[np.argsort(code[rows], kind="stable")]
    angle = 2 * np.pi * labels / 10
    xy = np.stack([np.cos(angle), np.sin(angle)], 1) * 20 + 2.6 * rng.normal(size=(360, 2))
    unknown = np.full(360, -1)
    return {
        "covariance_FF": (width / 360 * u.T @ u).astype(np.float32),
        "covariance_random_FF": (width / 360 * random_u.T @ random_u).astype(np.float32),
        "adjacency_MM": (u[rows] @ u[rows].T).astype(np.float32),
        "adjacency_code_M": code[rows],
        "adjacency_label_M": labels[rows] if labeled else unknown[rows],
        "spectrum_z": _shares(z),
        "spectrum_u": _shares(u),
        "spectrum_random_z": _shares(flat),
        "spectrum_random_u": _shares(random_u),
        "code_counts_C": np.bincount(code, minlength=num_codes),
        "projection": np.array("the projection that was recorded"),
        "map_xy_M2": xy.astype(np.float32),
        "map_label_M": labels if labeled else unknown,
        "map_thumbnails": (images * 255 / 16).round().astype(np.uint8),
    }


def _evaluation(num_codes: int, width: int, shift: float, labeled: bool) -> dict[str, Any]:
    free = {
        "mean_cosine_z": 0.11,
        "mean_cosine_centered_z": -0.002,
        "feature_std_z": 0.83,
        "effective_rank_z": 38.4,
        "effective_rank_share_z": 0.6,
        "effective_rank_u": 51.7,
        "effective_rank_share_u": 0.404,
        "identity_gap_u": 1.42,
        "offdiagonal_rms_u": 0.126,
        "codes_used": 70.0,
        "codes_used_share": 0.194,
        "code_entropy_share": 0.71,
        "code_perplexity": 66.0,
        "code_largest_share": 0.031,
        "within_variance_codes": 0.21,
        "within_entropy_codes": -1.31,
    }
    untrained = {key: value * 0.4 for key, value in free.items()}
    if labeled:
        for name, mine, random in (
            ("top1_linear", 0.9861, 0.9311),
            ("top1_knn", 0.9889, 0.9417),
            ("nmi_codes", 0.711, 0.583),
            ("ami_codes", 0.612, 0.311),
            ("ari_codes", 0.224, 0.098),
            ("chance_nmi_codes", 0.402, 0.381),
            ("nmi_kmeans_z", 0.921, 0.702),
            ("ami_kmeans_z", 0.917, 0.694),
            ("ari_kmeans_z", 0.902, 0.611),
            ("accuracy_kmeans_z", 0.958, 0.741),
            ("nmi_kmeans_u", 0.934, 0.655),
            ("ami_kmeans_u", 0.931, 0.642),
            ("ari_kmeans_u", 0.917, 0.563),
            ("accuracy_kmeans_u", 0.964, 0.702),
        ):
            free[name], untrained[name] = mine + shift, random
    about = {
        "data": "digits (scikit-learn, 1797 images of 8x8)",
        "note": "80 % train, 20 % test, stratified, seed 0",
        "split": "test",
        "num_train": 1437,
        "num_test": 360,
        "num_codes": num_codes,
        "embed_dim": width,
        "falcon_ssl": "0.1.0",
        "torch": "2.13.0",
        "device": "cpu",
        "seconds": 3.2,
    }
    found = {**free, "random_encoder": untrained, "about": about}
    if labeled:
        about |= {"num_classes": 10, "class_names": [str(k) for k in range(10)]}
        found["chance"] = {"top1": 0.1}
    return found


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Write a run folder; every keyword removes or changes one thing of a healthy run."""

    def write(
        folder: Path,
        *,
        seed: int = 0,
        num_codes: int = 1024,
        width: int = 128,
        num_steps: int = 5,
        labeled: bool = True,
        evaluated: bool = True,
        pictured: bool = False,
        extra_lines: tuple[Mapping[str, Any], ...] = (),
        **changed_metrics: Any,
    ) -> Path:
        rng = np.random.default_rng(seed)
        folder.mkdir(parents=True)
        config = {
            "data": "digits", "epochs": 30, "batch_size": 128, "seed": seed, "method": "falcon",
            "encoder": {"name": "digits_cnn", "width": None},
            "falcon": {"dictionary": "rademacher", "num_codes": num_codes, "embed_dim": width,
                       "epsilon": 1e-8, "temperature": None, "beta": 0.5,
                       "prior_matching": "reverse", "prior_exponent": 0.0},
            "optim": {"lr": 0.002}, "engine": {"precision": "no"}, "evaluation": {"seed": 0},
        }  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        lines = [*_curves(num_steps, num_codes, rng), *extra_lines]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        environment = {
            "command": ["/somewhere/bin/falcon-ssl", "pretrain", "--data", "digits", "--seed", str(seed)],
            "python": "3.11.7", "torch": "2.13.0", "falcon_ssl": "0.1.0", "device": "cpu, 2 cores",
            "precision": "float32", "num_parameters": 101_376, "seconds": 10.3, "images_per_s": 4186.0,
        }  # fmt: skip
        (folder / "environment.json").write_text(json.dumps(environment))
        if evaluated:
            metrics = _evaluation(num_codes, width, 0.002 * rng.normal(), labeled)
            (folder / "evaluation.json").write_text(json.dumps({**metrics, **changed_metrics}))
            healthy = {"verdict": "healthy", "collapses": []}
            (folder / "diagnosis.json").write_text(json.dumps(healthy))
        if pictured:
            np.savez_compressed(folder / "arrays.npz", **_pictures(num_codes, width, seed, labeled))
        return folder

    return write
