"""One cell of a grid: where it stands, and running it in a process of its own.

A process per cell: whatever ends it (a bug, the system killing it for memory), the others go on.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import sleep
from typing import IO, Any, Literal

from falcon_ssl import commands
from falcon_ssl.commands.loading import check_same_run, open_data
from falcon_ssl.commands.resolve import resolve
from falcon_ssl.config import FalconConfig, RunConfig, from_mapping, to_mapping
from falcon_ssl.core.devices import best_device, hardware
from falcon_ssl.core.errors import CollapseError, InputError
from falcon_ssl.engine import RunFolder, read_state
from falcon_ssl.records.files import write_text
from falcon_ssl.records.folder import (
    CHECKPOINT,
    CONFIG,
    ENVIRONMENT,
    EVALUATION,
    FAILURE,
    STATE,
)
from falcon_ssl.records.provenance import environment

logger = logging.getLogger(__name__)

_POLL = 0.2  # seconds between two looks at the processes


@dataclass(frozen=True)
class Standing:
    """Where a cell stands.

    Args:
        state: done (judged), failed (tried again at the next call), stopped (goes on) or to do.
        step: Steps taken, of a cell that was stopped.
        failure: The last line of its failure.
    """

    state: Literal["done", "failed", "stopped", "to do"]
    step: int = 0
    failure: str = ""


def standing(run: Path) -> Standing:
    """Where the run in a folder stands; the folder need not exist."""
    if (run / EVALUATION).is_file():
        return Standing("done")
    step = _step(run)
    if (run / FAILURE).is_file():
        lines = (run / FAILURE).read_text(encoding="utf-8").strip().splitlines()
        return Standing("failed", step, lines[-1] if lines else "")
    return Standing("stopped", step) if step else Standing("to do")


def run_cell(config: RunConfig, run: Path) -> None:
    """Train and judge one run, from where it stands; a collapse is a finding and not an error.

    Raises:
        Exception: Whatever `commands.pretrain` and `commands.evaluate` raise, but CollapseError.
    """
    (run / FAILURE).unlink(missing_ok=True)
    if not (run / ENVIRONMENT).is_file():  # the last record of the training
        resume = _step(run) > 0
        begun = (run / CONFIG).is_file() and not resume  # stopped before its first checkpoint
        try:
            commands.pretrain(config, out=run, resume=resume, overwrite=begun)
        except CollapseError as error:
            logger.warning("%s: collapsed: %s", run, error)
    commands.evaluate(run)


@dataclass
class Place:
    """Where one process runs.

    Args:
        environment: Variables of the process: its threads and its device.
    """

    environment: Mapping[str, str]
    process: subprocess.Popen[str] | None = None
    run: Path | None = None


def run_all(
    work: Sequence[tuple[RunConfig, Path]],
    environments: Sequence[Mapping[str, str]],
    *,
    logs: Path | None,
) -> Generator[Path, None, None]:
    """Run cells in processes of their own, as many at a time as there are environments.

    Args:
        work: Configuration and folder of every cell.
        environments: Variables of each place that can run a process.
        logs: Folder for what the processes say, one file a cell; None lets them speak to the terminal.

    Yields:
        The folder of every cell when its process has ended, well or not (see `standing`).

    When the iteration is left early, by an exception or by closing it, all processes are terminated and waited for.
    """
    places = [Place(environment) for environment in environments]
    waiting = list(work)
    try:
        while waiting or any(place.process for place in places):
            for place in places:
                if place.process and place.process.poll() is not None:
                    assert place.run is not None
                    _let_go(place.process)
                    _note_sudden_end(place.run, place.process.returncode)
                    place.process = None
                    yield place.run
                if waiting and place.process is None:
                    config, place.run = waiting.pop(0)
                    place.process = _start(config, place.run, place.environment, logs)
            sleep(_POLL)
    finally:
        left = [place.process for place in places if place.process]
        for process in left:
            process.terminate()
        for process in left:
            process.wait()
            _let_go(process)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM (kill, a batch system at its time limit) as Ctrl-C: KeyboardInterrupt, so that cells end with us.

    Without it the process would be gone before any ``finally``, and its cells would train on. Python handles signals in
    the main thread alone: in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _start(
    config: RunConfig, run: Path, environment: Mapping[str, str], logs: Path | None
) -> subprocess.Popen[str]:
    logger.info("%s", run)
    with _log(logs, run) as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "falcon_ssl.commands.studies.runner"],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            text=True,
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it may be gone already
        process.stdin.write(json.dumps({"run": str(run), "config": to_mapping(config)}) + "\n")
        process.stdin.flush()
    return process  # its input stays open: see _end_with_parent


def _let_go(process: subprocess.Popen[str]) -> None:
    """Close the input of a process that has ended."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # what it did not read is still waiting to be written
        process.stdin.close()


@contextmanager
def _log(logs: Path | None, run: Path) -> Iterator[IO[str] | None]:
    if logs is None:
        yield None
        return
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{run.parent.name}-{run.name}.txt").open("a", encoding="utf-8") as file:
        yield file


def _note_sudden_end(run: Path, code: int) -> None:
    """A process that could not write its failure itself: killed, mostly for memory."""
    if not (run / EVALUATION).is_file() and not (run / FAILURE).is_file():
        run.mkdir(parents=True, exist_ok=True)
        cause = f"killed by signal {-code}; out of memory?" if code < 0 else f"exit code {code}"
        write_text(run / FAILURE, f"the process ended without a word: {cause}\n")


def _step(run: Path) -> int:
    """Step of the last checkpoint; 0 without one."""
    path = run / CHECKPOINT
    return int(read_state(path)["step"]) if (path / STATE).is_file() else 0


def _end_with_parent() -> None:
    """End this process as soon as its input ends, which is when the parent closes it or is gone, killed even."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    # Not through sys.stdin, whose lock the thread would still hold when the interpreter shuts down.
    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """The process of one cell: reads what to do from its input, leaves a failure in the cell's folder."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("falcon_ssl").setLevel(logging.INFO)
    told = json.loads(sys.stdin.readline())
    _end_with_parent()
    run = Path(told["run"])
    try:
        run_cell(from_mapping(told["config"]), run)
    except KeyboardInterrupt:
        return 130
    except Exception:
        run.mkdir(parents=True, exist_ok=True)
        write_text(run / FAILURE, traceback.format_exc())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())


def _train_all(
    config: RunConfig, settings: Mapping[str, FalconConfig], seeds: Sequence[int], out: Path
) -> dict[str, list[Path]]:
    """Train and judge every setting with every seed, unless that is done; the run folders by name of the setting."""
    if config.method != "falcon":
        raise InputError(
            "this study varies options of falcon",
            received=f"method={config.method}",
            expected="method=falcon",
            fix="compare other methods with falcon-ssl report RUN RUN",
        )
    runs: dict[str, list[Path]] = {name: [] for name in settings}
    resolved = resolve(config, open_data(config).train)
    for (name, falcon), seed in product(settings.items(), seeds):
        run = out / f"{name}-seed{seed}"
        runs[name].append(run)
        own = replace(resolved, falcon=falcon, seed=seed)
        if (run / EVALUATION).is_file():
            check_same_run(RunFolder.open(run), own)
            logger.info("%s: done before", run)
            continue
        logger.info("%s", run)
        try:
            commands.pretrain(own, out=run, resume=_can_resume(run))
        except CollapseError as error:  # a finding of the study, not its end
            logger.warning("%s: collapsed: %s", run, error)
        commands.evaluate(run)
    return runs


def _can_resume(run: Path) -> bool:
    return (run / CHECKPOINT / STATE).is_file()


def _write_record(
    path: Path, config: RunConfig, seeds: Sequence[int], found: Mapping[str, Any]
) -> None:
    """What a study found, and what it takes to repeat it."""
    about = {"data": config.data, "epochs": config.epochs, "seeds": list(seeds)}
    record = {**found, "about": about | environment(hardware(best_device()))}
    write_text(path, json.dumps(record, indent=1) + "\n")
