"""How much memory and how many threads a process may take: of the machine, a container, beside other ranks."""

import os
from types import SimpleNamespace

import psutil
import pytest

from falcon_ssl.core import machine

MIB = 2**20


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A machine with 600 MiB available, no container, one process."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=600 * MIB))
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def test_a_container_has_its_own_limit(cgroup):
    assert machine.available_memory() == 600 * MIB
    (cgroup / "memory.current").write_text(f"{90 * MIB}\n")
    (cgroup / "memory.stat").write_text("anon 5\ninactive_file 0\nactive_file 7\n")
    (cgroup / "memory.max").write_text("max\n")
    assert machine.available_memory() == 600 * MIB
    (cgroup / "memory.max").write_text(f"{200 * MIB}\n")
    assert machine.available_memory() == 110 * MIB
    (cgroup / "memory.stat").write_text(f"anon 5\ninactive_file {50 * MIB}\nactive_file 7\n")
    assert machine.available_memory() == 160 * MIB, "its cached files can go, too"
    (cgroup / "memory.max").write_text(f"{20 * MIB}\n")
    assert machine.available_memory() == 0


def test_processes_of_a_machine_share_it(cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16), raising=False)
    assert machine.num_workers() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert machine.available_memory() == 150 * MIB
    assert machine.num_workers() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert machine.num_workers() == 2


def test_this_machine_has_memory():
    assert 0 < machine.available_memory() <= psutil.virtual_memory().total
