"""Does the default ever collapse? Runs of `falcon-ssl pretrain` without an option but data, length and seed, diagnosed.

    python benchmarks/default_seeds.py --data DIR     # goes on from results/defaults/seeds.jsonl

DIR holds cifar10 as parquet files; digits come with scikit-learn. Every finished run is a line: verdict and alarms of
the diagnosis, effective rank, linear probe and kNN.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from falcon_ssl.commands import diagnose, evaluate, pretrain
from falcon_ssl.config import from_mapping
from falcon_ssl.records.run import read_run
from record import arguments, machine

RUNS = {"digits": (20, 30), "cifar10": (5, 2)}  # seeds and epochs


def run(data: str, source: str, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Train, diagnose and evaluate once."""
    out = pretrain(from_mapping({"data": source, "epochs": epochs, "seed": seed}), out=folder)
    diagnosis = diagnose(out)
    found = evaluate(out)
    return {
        "data": data,
        "seed": seed,
        "epochs": epochs,
        "verdict": diagnosis.verdict,
        "alarms": sorted({alarm.name for alarm in read_run(out).alarms}),
        **{name: found[name] for name in ("top1_linear", "top1_knn", "effective_rank_z")},
        "about": {**machine(), "command": ["benchmarks/default_seeds.py", "--data", "DIR"]},
    }


def main() -> None:
    """Run what is missing."""
    parser = arguments(__doc__, "defaults/seeds")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    path = options.out.with_suffix(".jsonl")
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for data, (seeds, epochs) in RUNS.items():
        source = data if data == "digits" else f"parquet:{options.data / data}"
        for seed in sorted(
            set(range(seeds)) - {one["seed"] for one in done if one["data"] == data}
        ):
            with tempfile.TemporaryDirectory() as folder:
                one = run(data, source, seed, epochs, Path(folder) / "run")
            with path.open("a") as file:
                file.write(json.dumps(one) + "\n")
            print({name: value for name, value in one.items() if name != "about"})


if __name__ == "__main__":
    main()
