"""What cannot fit into memory is refused before it is allocated."""

from __future__ import annotations

from typing import Any

import pytest

from falcon_ssl.cli.main import main
from falcon_ssl.commands import memory
from falcon_ssl.commands.loading import prepare
from falcon_ssl.config import METHODS, RunConfig, from_mapping, to_mapping
from falcon_ssl.config.mapping import flat_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.methods import build_method

HUGE: list[tuple[str, dict[str, Any]]] = [
    ("falcon.num_codes", {"falcon": {"dictionary": "rademacher", "num_codes": 10**12, "temperature": 1.0}}),
    ("views of 100000 pixels", {"views": {"size": 10**5, "preset": "grayscale"}}),
    ("swav.queue_length", {"method": "swav", "swav": {"queue_length": 10**12}}),
    ("swav.num_prototypes", {"method": "swav", "swav": {"num_prototypes": 10**11}}),
    ("lejepa.num_directions", {"method": "lejepa", "lejepa": {"num_directions": 10**11}}),
    ("gedi.buffer_size", {"method": "gedi", "gedi": {"generative": True, "buffer_size": 10**12}}),
    ("dino.hidden_dim", {"method": "dino", "dino": {"hidden_dim": 10**7}}),
    ("images to evaluate", {"views": {"evaluate_size": 10**6, "preset": "grayscale"}}),
    ("weights", {"encoder": {"name": "resnet18", "width": 2**16, "stem": "cifar"}}),
    ("weights", {"falcon": {"embed_dim": 10**8}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), HUGE, ids=[name for name, _ in HUGE])
def test_absurd_sizes_are_named(name: str, options: dict[str, Any]) -> None:
    config = from_mapping({"engine": {"device": "cpu"}, **options})
    with pytest.raises(InputError, match=rf"does not fit into the memory of cpu.*{name}"):
        prepare(config)


def test_a_small_machine_refuses_what_a_large_one_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = from_mapping({"engine": {"device": "cpu"}})
    memory.check_memory(config, (1, 8, 8))
    monkeypatch.setattr(memory, "available_memory", lambda device: 2**16)
    with pytest.raises(InputError, match=r"at most \.?0\.1 MiB"):
        memory.check_memory(config, (1, 8, 8))


def test_ranks_share_the_rows_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    config = from_mapping({"batch_size": 512, "views": {"size": 8, "preset": "grayscale"}})
    alone = memory.sizes(config, (1, 8, 8))
    monkeypatch.setenv("WORLD_SIZE", "4")
    shared = memory.sizes(config, (1, 8, 8))
    assert alone.pop("views of 8 pixels") == 4 * shared.pop("views of 8 pixels") == 4 * 2 * 512 * 64
    assert alone == shared, "what every rank has"


@pytest.mark.parametrize("method", ["falcon", "dino"])
def test_weights_that_ranks_share(method: str) -> None:
    """All of the encoder's once, a rank's part of them and of the moments; heads are on every rank."""
    config = from_mapping({"method": method, "encoder": {"name": "digits_cnn"}})
    built = build_method(config, image_shape=(1, 8, 8))
    encoder = sum(p.numel() for p in built.encoder.parameters())
    moved = sum(p.numel() for p in built.parameters() if p.requires_grad)
    still = sum(p.numel() for p in built.parameters()) - moved  # of a teacher, with heads
    assert (still > encoder) == (method == "dino")
    teacher = encoder if method == "dino" else 0
    for moments in (1, 2):
        alone = memory.parameter_bytes(built, moments=moments)
        assert alone == 4 * ((2 + moments) * moved + still)
        heads = (2 + moments) * (moved - encoder) + still - teacher
        whole = encoder + teacher
        for ranks in (2, 4):
            parts = ((1 + moments) * encoder + teacher) / ranks
            shared = memory.parameter_bytes(built, moments=moments, ranks=ranks)
            assert shared == pytest.approx(4 * (heads + whole + parts), rel=1e-3)


def test_a_network_that_only_its_shards_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"name": "resnet18", "width": 2**13, "stem": "cifar"}
    config = from_mapping({"encoder": wide, "engine": {"device": "cpu", "shard": True}})
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**12)
    with pytest.raises(InputError, match="weights"):
        memory.check_memory(config, (1, 8, 8))
    monkeypatch.setenv("WORLD_SIZE", "8")
    memory.check_memory(config, (1, 8, 8))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 34.0 GiB for an array"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity"),
    ],
)
def test_out_of_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("falcon_ssl.commands.evaluate", fail)
    assert main(["evaluate", "somewhere"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("falcon-ssl: the run failed: out of memory (")
    assert "--batch_size" in said
    assert said.count("\n") == 1


def test_other_errors_of_torch_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("size mismatch: a defect")

    monkeypatch.setattr("falcon_ssl.commands.evaluate", fail)
    with pytest.raises(RuntimeError, match="size mismatch"):
        main(["evaluate", "somewhere"])


@pytest.mark.parametrize("method", METHODS)
def test_what_is_named_are_options(method: str) -> None:
    config = from_mapping({"method": method})
    named = [name for name in memory.sizes(config, (1, 8, 8)) if "." in name]
    assert set(named) <= flat_mapping(to_mapping(config)).keys()


def test_a_method_of_the_users_has_no_sizes_of_its_own() -> None:
    config = from_mapping({"method": "python:somewhere:method"})
    assert [name for name in memory.sizes(config, (1, 8, 8)) if "python" in name] == []
    assert memory.sizes(config, (1, 8, 8)).keys() < memory.sizes(RunConfig(), (1, 8, 8)).keys()
