"""Damaged files of every kind: each is an error in one line or read, never a traceback, never a hang.

Seeds change with the day, so that the suite tries other inputs every day; a failure names the one that it was.
`FALCON_FUZZ_SEED` takes it again, `FALCON_FUZZ_COUNT` tries more of each kind.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from falcon_ssl import commands, load_encoder
from falcon_ssl.cli.printing import print_runs
from falcon_ssl.commands.evaluate import _certificate
from falcon_ssl.commands.initial import read_initial
from falcon_ssl.commands.loading import load_method, prepare
from falcon_ssl.commands.studies.grid import make_runs, read_grid
from falcon_ssl.commands.studies.table import _options, table_record
from falcon_ssl.config import ReadingConfig, from_mapping, to_mapping
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import load_splits, read_images
from falcon_ssl.engine import RunFolder
from falcon_ssl.evaluation import diagnose, load_features, load_prototypes
from falcon_ssl.records.checkpoints import _own_sum, newest_checkpoint
from falcon_ssl.records.embeddings import PartsFolder
from falcon_ssl.records.listing import list_runs
from falcon_ssl.report import build_comparison, build_report, build_sweep
from support.images import encoded, pixels
from support.mutations import damaged_arrays, damaged_bytes, damaged_value
from support.short_runs import SHORT

SEED = int(os.environ.get("FALCON_FUZZ_SEED", time.time() // 86400))
COUNT = int(os.environ.get("FALCON_FUZZ_COUNT", "18"))  # inputs of each kind
LIMIT = 20.0  # seconds of this process for one input, and six times as many on the clock

pytestmark = pytest.mark.filterwarnings("ignore")


class Hang(BaseException):
    """An input took too long."""


@contextmanager
def time_limit() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise Hang

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, ring) for number in timers}
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    signal.setitimer(signal.ITIMER_REAL, 6 * LIMIT)  # a loaded machine is no hang
    try:
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@contextmanager
def address_space(more: int) -> Iterator[None]:
    """In this block no more memory than so many bytes beside what is held; any where that is not known."""
    import resource

    pages = Path("/proc/self/statm")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if pages.is_file():
        held = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def try_all(kind: str, damage: Callable[[random.Random], None], load: Callable[[], object]) -> None:
    """Damage a file in many ways and load it; all but InputError and errors of the system is a failure."""
    failures = []
    for number in range(COUNT):
        seed = f"{SEED}-{kind}-{number}"
        damage(random.Random(seed))
        try:
            with time_limit(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load()
        except (InputError, OSError) as error:
            if isinstance(error, InputError) and len(str(error).splitlines()) != 1:
                failures.append(f"{seed}: not one line: {str(error)[:300]}")
        except (Exception, Hang) as error:
            where = error.__traceback__
            while where and where.tb_next:
                where = where.tb_next
            at = (
                f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else ""
            )
            failures.append(f"{seed}: {type(error).__name__} at {at}: {str(error)[:200]}")
    assert not failures, "\n".join(failures)


def test_the_control_finds_tracebacks_and_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.LIMIT", 0.05)
    monkeypatch.setattr(f"{__name__}.COUNT", 2)
    for load, word in ((lambda: [][1], "IndexError"), (lambda: time.sleep(5), "Hang")):
        with pytest.raises(AssertionError, match=word):
            try_all("control", lambda chance: None, load)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = from_mapping(to_mapping(SHORT) | {"epochs": 2, "evaluation": {"untrained": False}})
    run = commands.pretrain(config, out=tmp_path_factory.mktemp("fuzz") / "run")
    commands.evaluate(run)
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def in_json(path: Path) -> Callable[[random.Random], None]:
    """Damage to a JSON file: mostly to its values, sometimes to its bytes."""
    content = path.read_bytes()

    def damage(chance: random.Random) -> None:
        if chance.random() < 0.2:
            path.write_bytes(damaged_bytes(content, chance))
        else:
            path.write_text(json.dumps(damaged_value(json.loads(content), chance)))

    return damage


@pytest.mark.parametrize(
    "name", ["diagnosis.json", "evaluation.json", "environment.json", "data.json"]
)
def test_records_of_a_report(run: Path, name: str) -> None:
    def load() -> None:
        build_report(run)
        if name == "data.json":
            load_method(run)

    try_all(name, in_json(run / name), load)


def in_any_record(run: Path) -> Callable[[random.Random], None]:
    """Damage to one of the files that the pages of several runs read."""
    names = ("evaluation.json", "environment.json", "diagnosis.json", "config.yaml")
    whole = {name: (run / name).read_bytes() for name in names}

    def damage(chance: random.Random) -> None:
        for name, content in whole.items():
            (run / name).write_bytes(content)
        name = chance.choice(names)
        if name == "config.yaml":
            changed = damaged_value(yaml.safe_load(whole[name]), chance)
            (run / name).write_text(yaml.safe_dump(changed), errors="surrogatepass")
        else:
            in_json(run / name)(chance)

    return damage


def test_two_runs_compared(run: Path, whole: Path) -> None:
    damage, out = in_any_record(run), run / "page.html"
    try_all("comparison", damage, lambda: build_comparison([run, whole], out))


def test_sizes_compared(run: Path, whole: Path) -> None:
    options = yaml.safe_load((run / "config.yaml").read_text())
    options["falcon"]["num_codes"] *= 2
    (run / "config.yaml").write_text(yaml.safe_dump(options))
    damage, out = in_any_record(run), run / "page.html"
    try_all("sweep-page", damage, lambda: build_sweep([run, whole], out))


def test_metrics(run: Path) -> None:
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    content = path.read_bytes()

    def damage(chance: random.Random) -> None:
        if chance.random() < 0.2:
            path.write_bytes(damaged_bytes(content, chance))
        else:
            changed = damaged_value(lines, chance)
            rows = changed if isinstance(changed, list) else [changed]
            path.write_text("\n".join(json.dumps(row) for row in rows))

    _, method, _ = load_method(run)
    config = from_mapping(read_yaml(run / "config.yaml"))

    def load() -> None:
        _certificate(config, method, RunFolder.open(run))  # type: ignore[arg-type]
        build_report(run)

    try_all("metrics", damage, load)


def test_configurations(run: Path) -> None:
    path = run / "config.yaml"
    content = yaml.safe_load(path.read_text())

    def damage(chance: random.Random) -> None:
        text = yaml.safe_dump(damaged_value(content, chance), sort_keys=False)
        data = text.encode("utf-8", "surrogatepass")
        path.write_bytes(damaged_bytes(data, chance) if chance.random() < 0.2 else data)

    def load() -> None:
        from_mapping(read_yaml(path))

    def report() -> None:
        build_report(run)

    try_all("config", damage, load)
    try_all("config-report", damage, report)


def test_sizes_of_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option at any value: what does not fit into memory is refused before it is allocated.

    The memory is small, for to fill that of a machine with weights takes minutes; what an estimate forgets fails in the
    end, where eight times as much is asked for.
    """
    memory = 2**29
    monkeypatch.setattr("falcon_ssl.commands.memory.available_memory", lambda device: memory)
    plain = to_mapping(SHORT) | {"engine": {"device": "cpu"}}
    methods = ("falcon", "vicreg", "swav", "gedi", "lejepa", "dino", "byol", "self_classifier")
    state: dict[str, Any] = {}

    def damage(chance: random.Random) -> None:
        method = chance.choice(methods)
        defaults = to_mapping(from_mapping({"method": method}))
        values = {**plain, "method": method, method: defaults[method]}
        values = {k: v for k, v in values.items() if k not in methods or k == method}
        group = chance.choice([method, method, "views", "encoder", "optim", "evaluation", None])
        target = values if group is None else values.setdefault(group, {})
        target = values[group] = dict(target) if group else values
        names = [k for k, v in target.items() if not isinstance(v, dict) and k != "data"]
        for name in chance.sample(names, min(len(names), chance.choice([1, 1, 2]))):
            target[name] = chance.choice(
                [-4, 0, 1, 3, 10**5, 10**6, 10**7, 10**9, 10**12, 1e30, 1e300, 0.5, 10**30]
            )
        state["values"] = values

    with address_space(8 * memory):
        try_all("sizes", damage, lambda: prepare(from_mapping(state["values"])))


def test_state(run: Path) -> None:
    """Of a checkpoint; its own checksum is made anew, so that what is in it is believed."""
    path = run / "checkpoint" / "state.json"
    shutil.rmtree(run / "checkpoint-step_2", ignore_errors=True)
    content = json.loads(path.read_text())

    def damage(chance: random.Random) -> None:
        value = damaged_value(content, chance)
        with suppress(Exception):
            value["sha256"]["state.json"] = _own_sum(json.loads(json.dumps(value)))
        path.write_text(json.dumps(value))

    config = from_mapping(read_yaml(run / "config.yaml"))

    def load() -> None:
        newest_checkpoint(run)
        commands.pretrain(config, out=run, resume=True)

    kept = path.parent

    def damage_and_restore(chance: random.Random) -> None:
        for other in run.glob("checkpoint-*"):
            shutil.rmtree(other)
        backup = run.parent / "kept"
        if not backup.exists():
            shutil.copytree(kept, backup)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(backup, kept)
        damage(chance)

    try_all("state", damage_and_restore, load)


def test_tensors(run: Path) -> None:
    path = run / "checkpoint" / "model.safetensors"
    shutil.rmtree(run / "checkpoint-step_2", ignore_errors=True)
    content = path.read_bytes()
    try_all(
        "tensors",
        lambda chance: path.write_bytes(damaged_bytes(content, chance)) and None,
        lambda: load_method(run),
    )


def test_arrays(run: Path) -> None:
    with np.load(run / "arrays.npz") as stored:
        arrays = dict(stored)
    path = run / "arrays.npz"
    try_all(
        "arrays",
        lambda chance: path.write_bytes(damaged_arrays(arrays, chance)) and None,
        lambda: build_report(run),
    )


def small_features() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "z": generator.normal(size=(40, 6)).astype(np.float32),
        "u": generator.normal(size=(40, 4)).astype(np.float32),
        "code": generator.integers(0, 8, 40),
        "label": generator.integers(0, 3, 40),
        "prototypes": generator.normal(size=(5, 6)).astype(np.float32),
    }


def load_all_features(path: Path) -> None:
    codes = load_prototypes(path, required=False)
    diagnose(load_features(path), dictionary=codes)


def test_features_npz(tmp_path: Path) -> None:
    path, arrays = tmp_path / "features.npz", small_features()
    try_all(
        "features",
        lambda chance: path.write_bytes(damaged_arrays(arrays, chance)) and None,
        lambda: load_all_features(path),
    )


def test_features_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    save_file({name: torch.from_numpy(value) for name, value in small_features().items()}, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")

    def damage(chance: random.Random) -> None:
        if chance.random() < 0.5:
            path.write_bytes(damaged_bytes(content, chance))
            return
        head = damaged_value(json.loads(content[8 : 8 + length]), chance)
        text = json.dumps(head).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

    try_all("safetensors", damage, lambda: load_all_features(path))


def parquet_bytes(columns: dict[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def test_features_parquet(tmp_path: Path) -> None:
    path, arrays = tmp_path / "features.parquet", small_features()

    def damage(chance: random.Random) -> None:
        columns: dict[str, Any] = {
            "z": arrays["z"].tolist(),
            "row": list(range(40)),
            "label": arrays["label"].tolist(),
            "path": [f"{i}.png" for i in range(40)],
        }
        name = chance.choice(sorted(columns))
        odd = [
            ["a"] * 40,
            [None] * 40,
            [1.5] * 40,
            [[1.0]] * 40,
            [[]] * 40,
            [10**15] * 40,
            [-1] * 40,
        ]
        odd += [[[1.0, 2.0], [1.0]] * 20, [b"\xff"] * 40, [True] * 40, [["x"]] * 40, [[None]] * 40]
        columns[name] = chance.choice(odd)
        data = parquet_bytes(columns)
        path.write_bytes(damaged_bytes(data, chance) if chance.random() < 0.4 else data)

    try_all("features-parquet", damage, lambda: load_all_features(path))


def images_table() -> dict[str, Any]:
    images = [{"bytes": encoded(pixels(i)), "path": None} for i in range(20)]
    return {"image": images, "label": [i % 3 for i in range(20)]}


def read_everything(data: str, reading: ReadingConfig) -> None:
    splits = load_splits(data, reading)
    read_images(splits.train, torch.arange(len(splits.train)))


@pytest.mark.parametrize("stream", [False, True])
def test_tables_of_images(tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(pixels(9)))
    os.mkfifo(tmp_path / "pipe.png")
    table = tmp_path / "table"
    table.mkdir()
    path = table / "train.parquet"

    def damage(chance: random.Random) -> None:
        columns = images_table()
        what = chance.choice(["label", "image", "path", "bytes", "column", "content"])
        if what == "label":
            odd = [
                ["a"] * 20,
                [None] * 20,
                [1.5] * 20,
                [[1]] * 20,
                [-1] * 20,
                [2**40] * 20,
                [True] * 20,
            ]
            columns["label"] = chance.choice(odd)
        elif what == "image":
            columns["image"] = chance.choice(
                [[b""] * 20, [b"x"] * 20, [1] * 20, ["a"] * 20, [None] * 20]
            )
        elif what == "path":
            names = [
                str(secret),
                "../secret.png",
                "/dev/zero",
                str(tmp_path / "pipe.png"),
                "",
                "\x00",
            ]
            columns["image"] = [{"bytes": None, "path": chance.choice(names)}] * 20
        elif what == "column":
            columns[chance.choice(["img", "labels", "cls", "png"])] = columns.pop("image")
        elif what == "content":
            images = [damaged_bytes(encoded(pixels(i)), chance) for i in range(20)]
            columns["image"] = [{"bytes": one, "path": None} for one in images]
        data = parquet_bytes(columns)
        path.write_bytes(damaged_bytes(data, chance) if what == "bytes" else data)
        shutil.rmtree(cache, ignore_errors=True)

    reading = ReadingConfig(stream=stream, max_unreadable=chance_of_all())
    try_all(f"table-{stream}", damage, lambda: read_everything(f"parquet:{table}", reading))


def chance_of_all() -> float:
    """All images may be unreadable, so that every one is tried."""
    return 1.0


def test_folders_of_images(tmp_path: Path) -> None:
    kinds = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "good.png").write_bytes(encoded(pixels(0)))

    def damage(chance: random.Random) -> None:
        for old in tmp_path.glob("bad*"):
            old.unlink()
        for number in range(3):
            kind = chance.choice(kinds)
            mode = chance.choice(["RGB", "L", "P", "RGBA", "CMYK", "I;16", "1", "F"])
            try:
                content = encoded(Image.fromarray(pixels(number)).convert(mode), kind)
            except (OSError, ValueError, KeyError):
                content = encoded(pixels(number), kind)
            name = f"bad{number}.{kind.lower()}"
            (tmp_path / name).write_bytes(damaged_bytes(content, chance))

    reading = ReadingConfig(image_size=8, max_unreadable=1.0)
    try_all("images", damage, lambda: read_everything(f"folder:{tmp_path}", reading))


GRID = {
    "title": "t",
    "columns": ["top1_linear"],
    "seeds": [0],
    "datasets": {"digits": {"num_train": 1437, "image_shape": [1, 8, 8], "options": {"data": "digits"}}},
    "rows": {"falcon": {"label": "FALCON", "options": {"falcon": {"dictionary": "rademacher", "num_codes": 64}}}},
    "shared": {"encoder": {"name": "digits_cnn"}, "views": {"preset": "digits"}, "epochs": 2},
}  # fmt: skip


def test_grids(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(GRID))
    read_grid(path)

    def damage(chance: random.Random) -> None:
        value = damaged_value(GRID, chance)
        text = yaml.safe_dump(value, sort_keys=False)
        if chance.random() < 0.2:
            depth = chance.choice([12, 40, 2000])
            lines = [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, depth)]
            text += "\n".join(["a0: &a0 [1, 2]", *lines, "self: &self [*self]"])
        path.write_text(text, errors="surrogatepass")

    try_all("grid", damage, lambda: read_grid(path))


def test_tables_of_runs(tmp_path: Path) -> None:
    grid_file, path = tmp_path / "grid.yaml", tmp_path / "table.json"
    grid_file.write_text(yaml.safe_dump(GRID))
    grid = read_grid(grid_file)
    (done,) = make_runs(grid)
    cell = {
        "run": done.name,
        "dataset": done.dataset,
        "row": done.row,
        "seed": 0,
        "state": "done",
        "options": _options(done.config),
        "note": "a fifth",
        "precision": "no",
        "metrics": {"top1_linear": 0.9},
        "random_encoder": {"top1_linear": 0.5},
        "seconds": 3.0,
        "images_per_s": 900.0,
        "numbers_read": 64,
    }
    path.write_text(json.dumps({"cells": [cell, dict(cell, run="other")]}))
    record = table_record(grid, [done], tmp_path / "runs", tmp_path)
    assert record["datasets"]["digits"]["rows"]["falcon"]["top1_linear"]["mean"] == 0.9
    damage = in_json(path)
    try_all("table", damage, lambda: table_record(grid, [done], tmp_path / "runs", tmp_path))


def test_baselines(run: Path, tmp_path: Path) -> None:
    from falcon_ssl.commands.evaluate import _baseline

    path = tmp_path / "baseline.json"
    about = json.loads((run / "data.json").read_text())
    path.write_text(json.dumps({"top1_linear": 0.5, "about": about}))
    try_all("baseline", in_json(path), lambda: _baseline(path, run, data=None))


def test_lists_of_runs(run: Path) -> None:
    names = ["metrics.jsonl", "evaluation.json", "environment.json", "diagnosis.json"]
    whole = {name: (run / name).read_bytes() for name in names}
    options = yaml.safe_load((run / "config.yaml").read_text())

    def damage(chance: random.Random) -> None:
        for name, content in whole.items():
            (run / name).write_bytes(content)
        (run / "config.yaml").write_text(yaml.safe_dump(options))
        name = chance.choice([*names, "config.yaml"])
        if name == "metrics.jsonl":
            lines = [json.loads(line) for line in whole[name].splitlines()]
            changed = [damaged_value(line, chance) for line in lines]
            text = "\n".join(json.dumps(line) for line in changed).encode()
            (run / name).write_bytes(damaged_bytes(text, chance) if chance.random() < 0.3 else text)
        elif name == "config.yaml":
            odd = damaged_value(dict.fromkeys(("data", "epochs", "method"), 1), chance)
            changed = {**options, **odd} if isinstance(odd, dict) else odd
            (run / name).write_text(yaml.safe_dump(changed), errors="surrogatepass")
        else:
            in_json(run / name)(chance)

    try_all("list", damage, lambda: print_runs(list_runs(run.parent), str(run.parent)))


def tar_bytes(labels: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, label in enumerate(labels):
            for name, content in ((".png", encoded(pixels(number))), (".cls", label)):
                info = tarfile.TarInfo(f"{number:04}{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def lying_head(content: bytes, chance: random.Random) -> bytes:
    """A tar file in which a name, a size or a kind is another, with a checksum that belongs to it."""
    data = bytearray(content)
    found = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    at, (start, length) = chance.choice(found), chance.choice([(0, 100), (124, 12), (156, 1)])
    odd = [b"\xff" * length, b"7" * length, bytes(length), chance.randbytes(length)]
    if length == 12:
        odd += [(-1024).to_bytes(12, "big", signed=True), b"\x80" + b"\x7f" * 11]
    if length == 1:
        odd = [bytes([kind]) for kind in b"xgLKSDV5\x00"]
    data[at + start : at + start + length] = chance.choice(odd)
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\x00 " % sum(data[at : at + 512])
    return bytes(data)


@pytest.mark.parametrize("stream", [False, True])
def test_tar_files(tmp_path: Path, stream: bool) -> None:
    path = tmp_path / "train-0.tar"

    def damage(chance: random.Random) -> None:
        labels = [b"%d" % number for number in range(6)]
        what = chance.choice(["label", "head", "head", "bytes"])
        if what == "label":
            labels[3] = chance.choice([b"9" * 31, b"-1", b"", b"1e3", b"\xff", b"4_0", b"7" * 400])
        data = tar_bytes(labels)
        if what == "head":
            data = lying_head(data, chance)
        elif what == "bytes":
            data = damaged_bytes(data, chance)
        path.write_bytes(data)

    reading = ReadingConfig(stream=stream, max_unreadable=1.0)
    try_all(f"tar-{stream}", damage, lambda: read_everything(f"tar:{path}", reading))


def test_exports(run: Path, tmp_path: Path) -> None:
    """Folders of weights, of this library and of timm, to load and to start from."""
    folder = Path(commands.export(run, out=tmp_path / "export", to="safetensors"))
    weights, about = (folder / name for name in ("model.safetensors", "falcon_ssl.json"))
    config = folder / "config.json"
    whole = {path: path.read_bytes() for path in (weights, about)}
    described = {
        "architecture": "resnet10t",
        "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
    }

    def damage(chance: random.Random) -> None:
        for path, content in whole.items():
            path.write_bytes(content)
        config.unlink(missing_ok=True)
        what = chance.choice([weights, about, about, config])
        if what == config:  # as timm writes it
            about.unlink()
            config.write_text(json.dumps(damaged_value(described, chance)))
        elif what == weights:
            weights.write_bytes(damaged_bytes(whole[weights], chance))
        else:
            in_json(about)(chance)

    def load() -> None:
        method = load_method(run)[1]
        with suppress(InputError):
            load_encoder(folder)
        read_initial(str(folder)).fill(method.encoder, in_channels=1)

    try_all("export", damage, load)


def test_tables_of_embeddings(run: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = Path(commands.embed(run, out=tmp_path / "z.parquet"))
    table, content = pq.read_table(path), path.read_bytes()
    about = json.loads(table.schema.metadata[b"falcon_ssl"])

    def damage(chance: random.Random) -> None:
        what = chance.choice(["bytes", "about", "column", "column"])
        if what == "bytes":
            path.write_bytes(damaged_bytes(content, chance))
            return
        changed = table
        if what == "about":
            text = json.dumps(damaged_value(about, chance)).encode()
            text = damaged_bytes(text, chance) if chance.random() < 0.3 else text
            changed = table.replace_schema_metadata({b"falcon_ssl": text})
        else:
            odd = [
                ["a"],
                [None],
                [1.5],
                [[1.0]],
                [[]],
                [10**15],
                [-1],
                [b"\xff"],
                [True],
                [[None]],
                [["x"]],
            ]
            odd += [[[float("nan")] * 4], [[1.0, 2.0], [1.0]]]
            values = chance.choice(odd) * len(table)
            name = chance.choice(table.column_names)
            changed = table.drop_columns([name])
            if chance.random() < 0.9:
                changed = changed.append_column(name, [values[: len(table)]])
        pq.write_table(changed, path, row_group_size=chance.choice([100, 10**6]))

    def load() -> None:
        for use in (commands.duplicates, lambda file: commands.search(file, [0])):
            with suppress(InputError):
                use(path)
        commands.search(path, [chart])

    chart = tmp_path / "0.png"
    chart.write_bytes(encoded(pixels(0, size=(8, 8), channels=1)))
    load()
    try_all("embeddings", damage, load)


def test_parts_of_embeddings(tmp_path: Path) -> None:
    """An embedding that was stopped, and continues beside parts that are damaged."""
    out = tmp_path / "z.parquet"
    columns = {"row": np.arange(20), "z": np.ones((20, 3), np.float32), "split": ["train"] * 20}

    def damage(chance: random.Random) -> None:
        shutil.rmtree(f"{out}.parts", ignore_errors=True)
        begun = PartsFolder(out, {"data": "digits"})
        begun.begin(overwrite=False)
        for number in range(2):
            begun.write(number, columns)
        begun._lock.release()  # type: ignore[union-attr]
        path = begun.path / chance.choice(["about.json", "part-000000.parquet"])
        path.write_bytes(damaged_bytes(path.read_bytes(), chance))

    def load() -> None:
        folder = PartsFolder(out, {"data": "digits"})
        try:
            folder.begin(overwrite=False)
            for number in range(2):
                if not folder.has(number):
                    folder.write(number, columns)
            folder.finish(2)
        finally:
            if folder._lock is not None:
                folder._lock.release()

    try_all("parts", damage, load)
