"""What the trackers of a run hold is read back from their files."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from falcon_ssl import commands
from falcon_ssl.core.errors import InputError
from falcon_ssl.records.folder import TRACKED
from support.short_runs import SHORT, lines_of

BLOCK, FULL, LAST = 2**15, 1, 4
PICTURES = {"report/spectrum", "report/covariance", "report/codes", "report/blocks"}


def tracked_run(folder: Path, tracker: str) -> Path:
    engine = replace(SHORT.engine, trackers=(tracker,))
    run = commands.pretrain(replace(SHORT, engine=engine), out=folder / "trial")
    commands.evaluate(run)
    return run


def test_tensorboard_holds_numbers_options_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    run = tracked_run(tmp_path, "tensorboard")
    events = EventMultiplexer().AddRunsFromDirectory(str(run / TRACKED)).Reload()
    (name,) = [name for name in events.Runs() if events.Runs()[name]["images"]]
    tags = events.Runs()[name]
    logged = {line["step"]: line["total"] for line in lines_of(run) if "total" in line}
    assert {e.step: e.value for e in events.Scalars(name, "total")} == pytest.approx(logged)
    held_out = {line["step"]: line["monitor"] for line in lines_of(run) if "monitor" in line}
    assert held_out
    assert {e.step: e.value for e in events.Scalars(name, "held_out/top1_knn")} == pytest.approx(
        {step: monitor["top1_knn"] for step, monitor in held_out.items()}
    )
    record = json.loads((run / "evaluation.json").read_text())
    (top1,) = events.Scalars(name, "evaluation/top1_knn")
    assert (top1.step, top1.value) == (6, pytest.approx(record["top1_knn"]))
    assert {tag.removesuffix("/image/0") for tag in tags["images"]} >= PICTURES
    (picture,) = events.Images(name, "report/covariance")
    assert picture.width > 300
    (options,) = (run / TRACKED).rglob("hparams.yml")
    assert yaml.safe_load(options.read_text())["falcon.num_codes"] == 64


def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("falcon_ssl.engine.accelerator.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install wandb"):
        tracked_run(tmp_path, "wandb")


def test_wandb_holds_the_same_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tracked_run(tmp_path, "wandb")
    files = sorted((run / TRACKED / "wandb").glob("offline-run-*/*.wandb"))
    training, evaluation = (wandb_records(file) for file in files)
    deadline = time.monotonic() + 60
    while not evaluation["ended"] and time.monotonic() < deadline:  # another process writes it
        time.sleep(0.1)
        evaluation = wandb_records(files[-1])
    logged = [line["total"] for line in lines_of(run) if "total" in line]
    assert [row["total"] for row in training["history"]] == pytest.approx(logged)
    assert training["config"]["falcon.num_codes"] == 64
    assert (training["name"], evaluation["name"]) == ("trial", "trial evaluation")
    rows = {name: value for row in evaluation["history"] for name, value in row.items()}
    record = json.loads((run / "evaluation.json").read_text())
    assert rows["evaluation/top1_knn"] == pytest.approx(record["top1_knn"])
    assert {rows.get(f"{name}/_type") for name in PICTURES} == {"images/separated"}
    assert not (Path.cwd() / "wandb").exists()


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, 7 bytes of head before the first.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    at, record = 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:  # too short for a head: filled up
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (FULL, LAST):
            yield record
            record = b""


def wandb_records(file: Path) -> dict[str, Any]:
    """Name, options and history of an offline run."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Any] = {"config": {}, "history": [], "name": "", "ended": False}
    for data in log_records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            found["history"].append(row)
        elif kind == "exit":
            found["ended"] = True
        elif kind in ("run", "config"):
            update = record.run.config if kind == "run" else record.config
            found["config"] |= {item.key: json.loads(item.value_json) for item in update.update}
            found["name"] = record.run.display_name or found["name"]
    return found
