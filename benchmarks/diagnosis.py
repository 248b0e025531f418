"""How long a diagnosis takes, how much memory, and how often it is right on features of known health.

make bench-diagnosis
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from falcon_ssl.evaluation import Features, diagnose
from record import arguments, machine, peak_bytes, write_record

SEEDS = range(20)
N, D, F, C, CLASSES = 2000, 128, 64, 512, 10


def noise(*shape: int, seed: int) -> Tensor:
    """Independent normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clustered(seed: int, *, spread: float = 1.0, classes: int = CLASSES) -> Tensor:
    """z of some classes: centers that stand apart, and as much spread around them."""
    label = torch.arange(N) % classes
    return noise(classes, D, seed=seed)[label] * 2 + spread * noise(N, D, seed=seed + 1000)


def codes(seed: int, *, used: int = C) -> Tensor:
    """A random one of the first codes for every sample."""
    return torch.randint(used, (N,), generator=torch.Generator().manual_seed(seed))


def features(
    seed: int, *, z: Tensor | None = None, u: Tensor | None = None, used: int = C
) -> Features:
    """Healthy features, except for what is given."""
    return Features(
        z=clustered(seed) if z is None else z,
        u=normalize(noise(N, F, seed=seed + 2000) if u is None else u, dim=1),
        code=codes(seed, used=used),
    )


# Name of the collapse that must be found, or None -> features made to have it and no other.
CASES: dict[str, tuple[str | None, Callable[[int], Features]]] = {
    "healthy": (None, lambda s: features(s)),
    "healthy, few classes": (None, lambda s: features(s, z=clustered(s, classes=3))),
    "healthy, positive as after a ReLU": (None, lambda s: features(s, z=clustered(s).relu())),
    "all samples alike": (
        "representation",
        lambda s: features(s, z=5 * noise(1, D, seed=s) + 0.01 * noise(N, D, seed=s + 1)),
    ),
    "three directions of z": (
        "dimensional",
        lambda s: features(s, z=noise(N, 3, seed=s) @ noise(3, D, seed=s + 1)),
    ),
    "three directions of u": (
        "dimensional",
        lambda s: features(s, u=noise(N, 3, seed=s) @ noise(3, F, seed=s + 1)),
    ),
    "one code": ("cluster", lambda s: features(s, used=1)),
    "clusters that are points": (
        "intracluster",
        lambda s: features(s, z=clustered(s, spread=0.02, classes=32)),
    ),
}


def suite() -> dict[str, dict[str, float | str | None]]:
    """For each case: over the seeds, how often its collapse was found and how often another one was claimed."""
    found: dict[str, dict[str, float | str | None]] = {}
    for name, (wanted, make) in CASES.items():
        detected = false_alarms = 0
        for seed in SEEDS:
            diagnosis = diagnose(make(seed), num_codes=C)
            bad = {c.name for c in diagnosis.collapses if c.verdict == "collapsed"}
            detected += wanted in bad
            false_alarms += bool(bad - {wanted})
        found[name] = {"collapse": wanted, "seeds": len(SEEDS), "false_alarms": false_alarms}
        if wanted is not None:
            found[name]["detected"] = detected
        print(name, found[name])
    return found


def speed(num_rows: int, width: int) -> dict[str, float]:
    """Median seconds of three diagnoses, and the most memory beside the features."""
    z = noise(num_rows, width, seed=0)
    label = torch.arange(num_rows) % 10
    large = Features(z=z, label=label)
    before = peak_bytes()
    wall, cpu = [], []
    for _ in range(3):
        start, start_cpu = time.perf_counter(), time.process_time()
        diagnose(large)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    found = {
        "rows": num_rows,
        "width": width,
        "wall_seconds": round(statistics.median(wall), 2),
        "cpu_seconds": round(statistics.median(cpu), 2),
        "extra_memory_mib": round((peak_bytes() - before) / 2**20, 1),
    }
    print(found)
    return found


def main() -> None:
    """Measure and write the record."""
    options = arguments(__doc__, "diagnosis/diagnosis").parse_args()
    record = {
        "speed": speed(50_000, 512),
        "threads": torch.get_num_threads(),
        "suite": suite(),
        "environment": machine(),
    }
    write_record(options.out, record)


if __name__ == "__main__":
    main()
