"""Loaders: nothing lost, nothing doubled, one order for any number of ranks and either loader."""

import re
import threading
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from falcon_ssl.config import ReadingConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.data import (
    BatchPlan,
    ResidentLoader,
    StreamingLoader,
    TensorSource,
    build_loader,
    load_splits,
    order,
    shards,
    source,
)


def numbered(count: int) -> TensorSource:
    """Images that hold their own index."""
    index = torch.arange(count)
    images = torch.stack([index // 256, index % 256], dim=1)[:, :, None, None].to(torch.uint8)
    return TensorSource(images.expand(-1, -1, 2, 2), name="numbers")


@settings(deadline=None, max_examples=60)
@given(
    num_images=st.integers(1, 300),
    batch_size=st.integers(1, 64),
    world_size=st.integers(1, 5),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_ranks_share_out_the_batches_of_one_process(
    num_images, batch_size, world_size, seed, epoch
):
    def plan(**ranks: int) -> BatchPlan:
        return BatchPlan(num_images=num_images, batch_size=batch_size, seed=seed, **ranks)

    try:
        alone = list(plan().epoch_indices(epoch))
        shares = [
            list(plan(rank=rank, world_size=world_size).epoch_indices(epoch))
            for rank in range(world_size)
        ]
    except InputError:
        assert batch_size < world_size or num_images < batch_size
        return
    assert [torch.cat(parts).tolist() for parts in zip(*shares, strict=True)] == [
        rows.tolist() for rows in alone
    ]
    seen = torch.cat(alone)
    assert len(seen.unique()) == len(seen)
    assert len(seen) == num_images // batch_size * batch_size
    assert all(min(map(len, parts)) >= 1 for parts in zip(*shares, strict=True))


@settings(deadline=None, max_examples=40)
@given(
    blocks=st.lists(st.integers(0, 3000), min_size=1, max_size=12).filter(any),
    seed=st.integers(0, 3),
)
def test_blocks_are_shuffled_in_windows_and_nothing_is_lost(blocks, seed):
    def drawn(epoch: int) -> list[int]:
        # One batch: nothing is left out of an epoch.
        plan = BatchPlan(
            num_images=sum(blocks), batch_size=sum(blocks), seed=seed, blocks=tuple(blocks)
        )
        return torch.cat(list(plan.epoch_indices(epoch))).tolist()

    assert sorted(drawn(0)) == list(range(sum(blocks)))
    assert drawn(0) == drawn(0)
    if sum(blocks) > 10:
        assert drawn(0) != drawn(1)


def plan_of(blocks: tuple[int, ...], batch_size: int, **options: int) -> BatchPlan:
    return BatchPlan(
        num_images=sum(blocks), batch_size=batch_size, seed=0, blocks=blocks, **options
    )


@settings(deadline=None, max_examples=100)
@given(
    blocks=st.lists(st.integers(0, 40), min_size=1, max_size=40).filter(any).map(tuple),
    batch_size=st.integers(4, 70),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 3),
    data=st.data(),
)
def test_blocks_dealt_to_ranks_are_the_batches_of_one_process(
    blocks, batch_size, world_size, epoch, data
):
    assume(sum(blocks) >= batch_size)
    with mock.patch.object(order, "_WINDOW_ROWS", 200):
        alone = list(plan_of(blocks, batch_size).epoch_indices(epoch))
        plans = [
            plan_of(blocks, batch_size, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        shares = [list(plan.epoch_indices(epoch)) for plan in plans]
        start = data.draw(st.integers(0, len(alone)))
        resumed = [list(plan.epoch_indices(epoch, start)) for plan in plans]
    assert [torch.cat(parts).tolist() for parts in zip(*shares, strict=True)] == [
        rows.tolist() for rows in alone
    ]
    assert [len(rows) for rows in alone] == [batch_size] * (sum(blocks) // batch_size)
    seen = torch.cat(alone)
    assert len(seen.unique()) == len(seen)
    assert [[rows.tolist() for rows in share[start:]] for share in shares] == [
        [rows.tolist() for rows in share] for share in resumed
    ]


@pytest.mark.parametrize("batch_size", [64, 100, 1001])  # 8 lanes divide the first alone
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
def test_a_rank_reads_its_own_blocks(world_size, batch_size):
    blocks = tuple(50 + 7 * (index % 13) for index in range(200))  # 50 to 134 rows
    edges = torch.tensor([0, *blocks]).cumsum(0)
    touched = []
    for rank in range(world_size):
        plan = plan_of(blocks, batch_size, rank=rank, world_size=world_size)
        rows = torch.cat(list(plan.epoch_indices(0)))
        touched.append(set(torch.bucketize(rows, edges, right=True).tolist()))
    # 8 lanes meet in 7 blocks, and 3 ranks in 2 of the lanes; each rank would read all 200 otherwise.
    shared_lanes = 0 if 8 % world_size == 0 else world_size - 1
    assert sum(map(len, touched)) <= 200 + 7 + shared_lanes * (200 // 8 + 1)


def test_large_blocks_are_not_read_side_by_side():
    """Every lane holds a block in memory: blocks of a window's size leave one lane."""
    plan = plan_of((5000,) * 6, 64)
    for rows in plan.epoch_indices(0):
        assert len((rows // 5000).unique()) <= 2


def test_streamed_row_groups_are_read_about_once_an_epoch(write_parquet, monkeypatch):
    folder = write_parquet("set/train.parquet", 60, rows_per_group=2)
    monkeypatch.setattr(order, "_WINDOW_ROWS", 6)
    reads = []
    read_group = shards._read_group
    monkeypatch.setattr(
        shards, "_read_group", lambda *args: (reads.append(args), read_group(*args))[1]
    )
    source = load_splits(f"parquet:{folder}", ReadingConfig(stream=True)).train
    assert len(source.blocks) == 30

    def reads_of(batches: StreamingLoader) -> int:
        before = len(reads)
        seen = torch.cat([indices for indices, _ in batches.epoch_batches(0)])
        assert sorted(seen.tolist()) == list(range(60))
        return len(reads) - before

    batches = StreamingLoader(source, batch_size=4, seed=0, device="cpu", workers=1)
    assert reads_of(batches) <= 33
    batches.plan = replace(batches.plan, blocks=None)
    assert reads_of(batches) > 40, "an order without windows reads groups again and again"


def test_order_depends_on_seed_and_epoch_alone():
    def drawn(seed: int, epoch: int) -> list[int]:
        plan = BatchPlan(num_images=50, batch_size=10, seed=seed)
        return torch.cat(list(plan.epoch_indices(epoch))).tolist()

    assert drawn(1, 2) == drawn(1, 2)
    assert len({tuple(drawn(*key)) for key in [(1, 2), (2, 1), (1, 3), (0, 0)]}) == 4


@pytest.mark.parametrize("make", [ResidentLoader, StreamingLoader])
def test_every_image_comes_with_its_index_once_an_epoch(make):
    batches = make(numbered(1000), batch_size=50, seed=3, device="cpu")
    seen = []
    for indices, images in batches.epoch_batches(0):
        assert torch.equal(images[:, 0, 0, 0].long() * 256 + images[:, 1, 0, 0], indices)
        seen += indices.tolist()
    assert len(seen) == 1000
    assert sorted(seen) == list(range(1000))
    assert batches.batches_per_epoch == 20


@pytest.mark.parametrize("make", [ResidentLoader, StreamingLoader])
def test_resuming_inside_an_epoch_continues_it(make):
    batches = make(numbered(100), batch_size=16, seed=3, device="cpu")
    whole = [indices.tolist() for indices, _ in batches.epoch_batches(2)]
    rest = [indices.tolist() for indices, _ in batches.epoch_batches(2, start=4)]
    assert rest == whole[4:]
    assert len(whole) == batches.batches_per_epoch == 6


def test_streaming_and_resident_give_the_same_batches(write_parquet):
    folder = write_parquet("set/train.parquet", 20)
    kept = load_splits(f"parquet:{folder}").train
    on_demand = load_splits(f"parquet:{folder}", ReadingConfig(in_memory=False)).train
    options = {"batch_size": 8, "seed": 1, "device": "cpu"}
    resident, streaming = build_loader(kept, **options), build_loader(on_demand, **options)
    assert isinstance(resident, ResidentLoader)
    assert isinstance(streaming, StreamingLoader)
    for one, other in zip(resident.epoch_batches(3), streaming.epoch_batches(3), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_streaming_leaves_unreadable_images_out(write_folder):
    files = {f"good{i:02}.png": i for i in range(19)} | {"broken.png": b"nothing"}
    root = write_folder(files)
    for holdout in (0.0, 0.05):
        source = load_splits(
            f"folder:{root}", ReadingConfig(in_memory=False, max_unreadable=0.1, holdout=holdout)
        ).train
        batches = StreamingLoader(source, batch_size=1, seed=0, device="cpu")
        images = torch.cat([images for _, images in batches.epoch_batches(0)])
        indices = torch.cat([indices for indices, _ in batches.epoch_batches(1)])
        assert (images.flatten(1).float().mean(1) > 0).all()
        assert len(images) == len(indices) == source.readable(torch.arange(len(source))).sum()


def test_streaming_stops_at_too_many_unreadable_images(write_folder):
    files = {f"good{i:03}.png": i for i in range(96)}
    # Spread between the images whose heads are looked at; found only when they are read.
    truncated = write_folder(files) / "good002.png"
    truncated.write_bytes(truncated.read_bytes()[:200])
    source = load_splits(
        f"folder:{truncated.parent}", ReadingConfig(in_memory=False, max_unreadable=0)
    ).train
    batches = StreamingLoader(source, batch_size=8, seed=0, device="cpu")
    with pytest.raises(InputError, match="too many unreadable"):
        list(batches.epoch_batches(0))


def test_stopping_early_leaves_no_thread_behind():
    before = threading.active_count()
    batches = StreamingLoader(numbered(500), batch_size=8, seed=0, device="cpu", workers=3)
    for _ in batches.epoch_batches(0):
        break
    assert threading.active_count() == before


@pytest.mark.parametrize("in_memory", [True, False, None])
@pytest.mark.parametrize("holdout", [0.0, 0.5])
def test_the_memory_estimate_is_logged_once(write_folder, caplog, in_memory, holdout):
    root = write_folder({f"{i}.png": i for i in range(4)})
    reading = ReadingConfig(in_memory=in_memory, holdout=holdout)
    with caplog.at_level("INFO"):
        source = load_splits(f"folder:{root}", reading).train
        build_loader(source, batch_size=2, seed=0, device="cpu")
    (line,) = [line for line in caplog.messages if " MiB" in line]
    how = "decoded on demand" if in_memory is False else "decoded once and kept"
    assert re.search(rf"4 images of 12x12\): 0\.0 MiB of .* free memory, {how}", line)


def test_loader_streams_when_the_device_is_too_small(monkeypatch, caplog):
    monkeypatch.setattr(source, "available_memory", lambda device: 100)
    with caplog.at_level("INFO"):  # no CUDA needed: construction does not touch the device
        chosen = build_loader(numbered(100), batch_size=8, seed=0, device="cuda")
    assert isinstance(chosen, StreamingLoader)
    assert "numbers: 0.0 MiB of 0.0 MiB free memory on cuda, streamed to it" in caplog.text


@pytest.mark.parametrize(("batch_size", "short"), [(64, True), (100, False), (300, False)])
def test_images_of_the_short_batch_are_logged(batch_size, short, caplog):
    with caplog.at_level("INFO"):
        batches = build_loader(numbered(300), batch_size=batch_size, seed=0, device="cpu")
    left = 300 - len(torch.cat([indices for indices, _ in batches.epoch_batches(0)]))
    assert left == (44 if short else 0)
    assert ("leave out 44 of 300 images" in caplog.text) == short


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 11}, "larger than the data set"),
        ({"batch_size": 0}, "too small"),
        ({"seed": -1}, "seed"),
        ({"world_size": 5, "batch_size": 4}, "too small"),
    ],
)
def test_plans_that_cannot_work_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        BatchPlan(**{"num_images": 10, "batch_size": 4, "seed": 0} | options)
