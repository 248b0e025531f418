"""One default for all images: settings of FALCON on four data sets, at equal short budgets, judged on images held out.

    python benchmarks/defaults.py --data DIR          # goes on from results/defaults/trials.jsonl; --minutes limits it

DIR holds cifar10, miniimagenet64 and imagenette224 as folders of parquet files; digits come with scikit-learn. Every
finished trial is a line of trials.jsonl; the table gives mean and standard deviation over seeds.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from falcon_ssl.commands import pretrain
from falcon_ssl.commands.loading import RunParts, load_method, open_data
from falcon_ssl.commands.speedrun import accuracies
from falcon_ssl.config import from_mapping
from falcon_ssl.config.mapping import merged
from falcon_ssl.data import Splits, hold_out
from record import arguments, machine, markdown

COMPLETE = {"dictionary": "complete"}
ADAMW = {"name": "adamw", "lr": 2e-3, "warmup_epochs": 0.5}
MUON = {"name": "muon", "lr": 2e-2, "lr_rest": 2e-3, "warmup_epochs": 0.5, "clip_norm": 0.0}
RADEMACHER = {"dictionary": "rademacher", "num_codes": 4096, "embed_dim": 128}
BITS = {"dictionary": "complete", "embed_dim": 512, "kernel_order": 3}
PLACES = {"places": True, "marginal": "pooled"}

SETTINGS: dict[str, dict[str, Any]] = {
    "rademacher, beta 1 (the paper)": {"falcon": {**RADEMACHER, "beta": 1.0}, "optim": ADAMW},
    "rademacher, beta .25": {"falcon": {**RADEMACHER, "beta": 0.25}, "optim": ADAMW},
    "hadamard 16384, beta .25": {
        "falcon": {**RADEMACHER, "dictionary": "hadamard", "num_codes": 16384, "beta": 0.25},
        "optim": ADAMW,
    },
    "complete 128, T .38, beta .5": {
        "falcon": {**COMPLETE, "embed_dim": 128, "temperature": 0.38, "beta": 0.5},
        "optim": ADAMW,
    },
    "complete 128, T .38, beta .5, muon": {
        "falcon": {**COMPLETE, "embed_dim": 128, "temperature": 0.38, "beta": 0.5},
        "optim": MUON,
    },
    "complete 256, T .3, beta .5, lr .008": {
        "falcon": {**BITS, "embed_dim": 256, "temperature": 0.3, "beta": 0.5},
        "optim": {**ADAMW, "lr": 8e-3},
    },
    "complete 256, T .3, beta .5, muon": {
        "falcon": {**BITS, "embed_dim": 256, "temperature": 0.3, "beta": 0.5},
        "optim": MUON,
    },
    "complete 512, T .25, beta .5, muon": {
        "falcon": {**BITS, "temperature": 0.25, "beta": 0.5},
        "optim": MUON,
    },
    "complete 512, T .25, beta .5, muon, pooled": {
        "falcon": {**BITS, "temperature": 0.25, "beta": 0.5, "marginal": "pooled"},
        "optim": MUON,
    },
    "the same by places": {
        "falcon": {**BITS, **PLACES, "temperature": 0.25, "beta": 0.5},
        "optim": MUON,
    },
    "by places, hidden layer": {
        "falcon": {**BITS, **PLACES, "hidden_dim": 512, "temperature": 0.25, "beta": 0.5},
        "optim": MUON,
    },
    "by places, beta 1": {
        "falcon": {**BITS, **PLACES, "temperature": 0.25, "beta": 1.0},
        "optim": MUON,
    },
}

WHITENED = {"name": "whitened_cnn"}
PHOTOS = {"preset": "cifar", "scale": [0.2, 1.0], "symmetric": True}
SHARED = {
    "batch_size": 128,
    "monitor": {"every_epochs": 0},
    "engine": {"log_every": 20},
    "reading": {"in_memory": True},
}
# Budgets: about a minute and a half of one core that multiplies bfloat16.
DATA: dict[str, dict[str, Any]] = {
    "digits": {"data": "digits", "epochs": 30},
    "cifar10": {
        "data": "cifar10",
        "epochs": 1,
        "views": {**PHOTOS, "size": 24, "evaluate_size": 32},
        "encoder": WHITENED,
    },
    "miniimagenet64": {
        "data": "miniimagenet64",
        "epochs": 3,
        "views": {**PHOTOS, "size": 48, "evaluate_size": 64},
        "encoder": {**WHITENED, "patch_size": 12},
    },
    "imagenette128": {
        "data": "imagenette224",
        "epochs": 20,
        "reading": {"image_size": 128},
        "views": {**PHOTOS, "size": 96, "evaluate_size": 128},
        "encoder": {**WHITENED, "patch_size": 24},
    },
}
HELD_OUT = 0.2


def trial(data: str, setting: str, seed: int, splits: Splits, folder: Path) -> dict[str, Any]:
    """Train once and evaluate on what was held out."""
    values = merged(merged(SHARED, DATA[data]), {**SETTINGS[setting], "seed": seed})
    started = time.perf_counter()
    run = pretrain(from_mapping(values), out=folder / "run", splits=splits)
    trained = time.perf_counter()
    config, method, views = load_method(run)
    found = accuracies(RunParts(config, splits, views, method), torch.device("cpu"), [])
    return {
        "data": data,
        "setting": setting,
        "seed": seed,
        **found,
        "seconds_train": round(trained - started, 1),
        "options": {name: values[name] for name in ("epochs", "falcon", "optim")},
        "about": machine(),
    }


def load(data: str, folder: Path) -> Splits:
    """Four fifths of train, and the fifth that is held out."""
    values = merged(SHARED, DATA[data])
    if values["data"] != "digits":
        values["data"] = f"parquet:{folder / values['data']}"
    return hold_out(replace(open_data(from_mapping(values)), test=None), HELD_OUT)


def table(trials: list[dict[str, Any]]) -> str:
    """Mean and standard deviation of linear probe and kNN over seeds."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for one in trials:
        found[one["setting"], one["data"]].append(one)
    lines = []
    for setting in SETTINGS:
        cells = [setting]
        for data in DATA:
            runs = found.get((setting, data), [])
            for name in ("top1_linear", "top1_knn"):
                values = [run[name] for run in runs]
                spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "")
        lines.append(cells)
    header = ["setting", *(f"{data} {name}" for data in DATA for name in ("linear", "kNN"))]
    return "\n".join(markdown(header, lines)) + "\n"


def main() -> None:
    """Run what is missing, data set by data set; print the table."""
    parser = arguments(__doc__, "defaults/trials")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(DATA), help="data sets")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no trial after so long")
    options: Namespace = parser.parse_args()
    path, started = options.out.with_suffix(".jsonl"), time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    trials = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(one["data"], one["setting"], one["seed"]) for one in trials}
    for seed in range(options.seeds):
        for data in options.only:
            todo = [s for s in options.settings if (data, s, seed) not in done]
            splits = load(data, options.data) if todo else None
            for setting in todo:
                if time.monotonic() - started > 60 * options.minutes:
                    break
                assert splits is not None
                with tempfile.TemporaryDirectory() as folder:
                    one = trial(data, setting, seed, splits, Path(folder))
                one["about"]["command"] = ["benchmarks/defaults.py", "--data", "DIR"]
                with path.open("a") as file:
                    file.write(json.dumps(one) + "\n")
                trials.append(one)
                print(
                    data, setting, seed, one["top1_linear"], one["top1_knn"], one["seconds_train"]
                )
    text = table(trials)
    path.with_name("table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
