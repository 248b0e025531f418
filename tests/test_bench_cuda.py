"""`make bench-cuda` meets a GPU for the first time when somebody pays for it: here all of it runs at tiny sizes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "cuda"
    methods = ["FALCON, Rademacher 4096", "BYOL"]
    words = ["--device", "cpu", "--repeats", "1", "--warm-up", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "cuda.py"), *words, "--methods", *methods],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["failed"] == {}
    assert record["left_out"] == []
    assert all(row["skipped"] == {} for row in record["loss"]), "every contender ran"
    assert set(record["steps"]) == {f"{name}, eager" for name in methods} | {
        f"{methods[0]}, compiled"
    }
    assert out.with_suffix(".md").read_text().startswith("# One GPU")

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from cuda import check

    check(record)
    name, row = next(iter(record["steps"].items()))
    for broken in (
        {key: value for key, value in record.items() if key != "loss"},
        record | {"bytes_per_s": math.nan},
        record | {"steps": {name: row | {"seconds": 0.0}}},
        record | {"loss": [{"precision": "bf16"}]},
    ):
        with pytest.raises(ValueError, match=r"entries|not positive"):
            check(broken)
