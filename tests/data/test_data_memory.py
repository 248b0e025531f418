"""How much memory and how many threads a process may take: of the machine, a container, beside other ranks."""

import os

import pytest

from falcon_ssl.data import memory

MIB = 2**20


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine as its files tell it: 100 MiB free, 600 MiB available, no container, one process."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal: 1024000 kB\nMemFree: {100 * 1024} kB\nMemAvailable: {600 * 1024} kB\n"
    )
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def test_files_that_the_system_keeps_cached_count_as_available(machine):
    assert memory.available_memory() == 600 * MIB


def test_a_container_has_its_own_limit(machine):
    (machine / "memory.current").write_text(f"{90 * MIB}\n")
    (machine / "memory.max").write_text("max\n")
    assert memory.available_memory() == 600 * MIB
    (machine / "memory.max").write_text(f"{200 * MIB}\n")
    assert memory.available_memory() == 110 * MIB
    (machine / "memory.stat").write_text(f"anon 5\ninactive_file {50 * MIB}\nactive_file 7\n")
    assert memory.available_memory() == 160 * MIB, "its cached files can go, too"
    (machine / "memory.max").write_text(f"{20 * MIB}\n")
    assert memory.available_memory() == 0


def test_processes_of_a_machine_share_it(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16), raising=False)
    assert memory.num_workers() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.available_memory() == 150 * MIB
    assert memory.num_workers() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert memory.num_workers() == 2


def test_a_system_without_meminfo_is_asked_itself(machine, monkeypatch):
    (machine / "meminfo").unlink()
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000, "SC_AVPHYS_PAGES": 300}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    assert memory.available_memory() == 300 * 4096
