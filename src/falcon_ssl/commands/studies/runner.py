"""Run many: skip the finished, resume the stopped, record the failed; each run in a process of its own.

A process per run: whatever ends it (a bug, the system killing it for memory), the others continue.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from types import FrameType
from typing import IO, Literal

import torch

from falcon_ssl.commands.loading import build, check_same_run
from falcon_ssl.config import RunConfig, to_mapping
from falcon_ssl.core.consent import code_is_trusted
from falcon_ssl.core.errors import FailedRunsError, InputError, StoppedError
from falcon_ssl.engine import RunFolder
from falcon_ssl.records.checkpoints import Checkpoint, checkpoint_paths, newest_checkpoint
from falcon_ssl.records.files import write_text
from falcon_ssl.records.folder import CONFIG, EVALUATION, FAILURE
from falcon_ssl.records.lock import Lock

logger = logging.getLogger(__name__)

STOPPED = 75  # exit code of a run that a signal has stopped
_POLL = 0.2  # seconds between two checks of the processes


@dataclass(frozen=True)
class Job:
    """One of many runs."""

    name: str  # its folder, inside the folder of all
    config: RunConfig  # the whole configuration; nothing in it is auto
    image_shape: tuple[int, int, int]  # (channels, height, width) of its images


@dataclass(frozen=True)
class Status:
    """How far a run has come."""

    # done (evaluated), failed (tried again at the next call), stopped (to be resumed) or to do
    state: Literal["done", "failed", "stopped", "to do"]
    step: int = 0  # steps taken, of a run that was stopped
    failure: str = ""  # the last line of its failure


def read_status(run: Path) -> Status:
    """How far the run in a folder has come; the folder need not exist."""
    if (run / EVALUATION).is_file():
        return Status("done")
    found = resumable(run)
    step = found.step if found else 0
    if (run / FAILURE).is_file():
        lines = (run / FAILURE).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return Status("failed", step, lines[-1] if lines else "")
    return Status("stopped", step) if step else Status("to do")


def resumable(run: Path) -> Checkpoint | None:
    """The newest checkpoint; None where there is none to resume from."""
    if not checkpoint_paths(run):
        return None
    try:
        return newest_checkpoint(run)
    except InputError as error:
        logger.warning("%s: begins again: %s", run, error)
        return None


def check_jobs(jobs: Sequence[Job], out: Path) -> None:
    """Find out what would fail because of its options before anything is run.

    Raises:
        InputError: Options that do not fit each other, or a folder with a run of other options.
    """
    for job in jobs:
        if (out / job.name / CONFIG).is_file():
            check_same_run(RunFolder.open(out / job.name), job.config)
    built = set()
    for job in jobs:
        kind = job.name.rpartition("-seed")[0]
        if kind in built or read_status(out / job.name).state == "done":
            continue
        built.add(kind)
        try:
            build(job.config, job.image_shape)
        except InputError as error:
            raise InputError(
                f"{kind} cannot be built",
                received=str(error).rstrip("."),
                expected="options that fit each other",
            ) from error


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    *,
    processes: int | None = None,
    device: str | None = None,
    after_each: Callable[[], object] = lambda: None,
    may_start: Callable[[Job], bool] = lambda job: True,
) -> None:
    """Train and evaluate all runs that are not done.

    Finished runs are skipped, stopped ones resumed from their checkpoints, failed ones tried again. A run that fails
    leaves ``failure.txt`` in its folder and does not stop the others; a collapse is a finding and not a failure.

    Args:
        jobs: The runs.
        out: Folder of their folders.
        processes: Runs at a time, each with its share of the cores; None is one per GPU, and one without any.
        device: Of all runs, where it is known: "cpu" needs no GPU.
        after_each: Called at the start and after each run.
        may_start: Asked when the turn of a run has come; what it refuses is left for another time.

    Raises:
        InputError: As `check_jobs`, or another process is at work in ``out``.
        FailedRunsError: Some runs failed; all others are done.
    """
    if not jobs:
        raise InputError("nothing to run", received="no runs", expected="at least one")
    workers = worker_environments(processes, device)
    check_jobs(jobs, out)
    out.mkdir(parents=True, exist_ok=True)
    with Lock(out), stopped_by_signals():
        refused: list[str] = []
        waiting = [job for job in jobs if read_status(out / job.name).state != "done"]
        logger.info("%s: %d of %d runs to do", out, len(waiting), len(jobs))
        after_each()
        logs = out / "logs" if len(workers) > 1 else None

        def turns() -> Iterator[Job]:  # lazily: asked when there is a place for the run
            for job in waiting:
                if may_start(job):
                    yield job
                else:
                    refused.append(job.name)

        with closing(run_processes(turns(), out, workers, logs=logs)) as ended:
            for number, run in enumerate(ended, start=1):
                now = read_status(run)
                logger.info("%d/%d %s: %s %s", number, len(waiting), run, now.state, now.failure)
                after_each()
    if refused:
        logger.info("%d of %d runs are left for another time", len(refused), len(jobs))
    begun = [job.name for job in jobs if job.name not in refused]
    failed = [name for name in begun if read_status(out / name).state != "done"]
    if failed:
        raise FailedRunsError(
            f"{len(failed)} of {len(jobs)} runs ({', '.join(failed)}); {FAILURE} in their folders says why,"
            " the others are done; the same command tries them again"
        )


def worker_environments(processes: int | None, device: str | None) -> list[dict[str, str]]:
    """Variables of every process at a time: its share of the cores, and its GPU where there are any."""
    if processes is not None and processes < 1:
        raise InputError("processes is too small", received=processes, expected=">= 1")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [str(k) for k in range(0 if device == "cpu" else torch.cuda.device_count())]
    gpus = visible.split(",") if numbers and visible else numbers
    count = processes or max(1, len(gpus))
    workers: list[dict[str, str]] = [{} for _ in range(count)]
    for number, worker in enumerate(workers):
        if count > 1:
            worker["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // count))
        if gpus:
            worker["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return workers


def run_processes(
    jobs: Iterable[Job],
    out: Path,
    environments: Sequence[Mapping[str, str]],
    *,
    logs: Path | None,
) -> Generator[Path, None, None]:
    """Run jobs in processes of their own, as many at a time as there are environments (variables of a process).

    A job is drawn when there is a place for it. Yields the folder of every run when its process has ended, well or not
    (see `read_status`). The output of the processes goes to the folder ``logs``, one file a run, or to the terminal.

    When the iteration is left early, by an exception or by closing it, all processes are terminated and waited for.
    """
    waiting, free = iter(jobs), list(environments)
    running: dict[subprocess.Popen[str], tuple[Path, Mapping[str, str]]] = {}
    try:
        while True:
            while free and (job := next(waiting, None)) is not None:
                environment = free.pop(0)
                process = _start(job, out / job.name, environment, logs)
                running[process] = out / job.name, environment
            if not running:
                return
            sleep(_POLL)
            for process in [process for process in running if process.poll() is not None]:
                run, environment = running.pop(process)
                free.append(environment)
                process.communicate()  # closes its input
                _record_crash(run, process.returncode)
                yield run
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.communicate()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 (kill, a batch system at its time limit) as StoppedError, so that runs end with us.

    Without it the process would be gone before any ``finally``, and its runs would train on. Python handles signals in
    the main thread alone: in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise StoppedError(f"{name}; finished runs stay finished, and the same command goes on")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _start(
    job: Job, run: Path, environment: Mapping[str, str], logs: Path | None
) -> subprocess.Popen[str]:
    logger.info("%s", run)
    log: AbstractContextManager[IO[str] | None] = nullcontext()
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        log = (logs / f"{job.name.replace('/', '-')}.txt").open("a", encoding="utf-8")
    with log as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "falcon_ssl.commands.studies.worker"],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            text=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it may be gone already
        order = {"run": str(run), "config": to_mapping(job.config), "trust_code": code_is_trusted()}
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
    return process  # its input stays open: the worker ends when it is closed


def _record_crash(run: Path, code: int) -> None:
    """The failure of a process that could not write it itself: killed, mostly for memory."""
    if code == STOPPED:
        return
    if not (run / EVALUATION).is_file() and not (run / FAILURE).is_file():
        run.mkdir(parents=True, exist_ok=True)
        cause = f"killed by signal {-code}; out of memory?" if code < 0 else f"exit code {code}"
        write_text(run / FAILURE, f"the process crashed: {cause}\n")
