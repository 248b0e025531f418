"""The process of one of many runs: `falcon_ssl.commands.studies.runner` starts one for each."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from falcon_ssl import commands
from falcon_ssl.commands.studies.runner import STOPPED, resumable
from falcon_ssl.config import RunConfig, from_mapping
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.errors import CollapseError, one_line
from falcon_ssl.records.checkpoints import checkpoint_paths
from falcon_ssl.records.files import write_text
from falcon_ssl.records.folder import FAILURE

logger = logging.getLogger(__name__)


def main() -> int:
    """Read what to do from the input, do it, leave a failure in the run folder; returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("falcon_ssl").setLevel(logging.INFO)
    job = json.loads(sys.stdin.readline())
    _end_with_parent()
    run = Path(job["run"])
    try:
        with trusting_code(job["trust_code"]):
            run_job(from_mapping(job["config"]), run)
    except KeyboardInterrupt:  # a signal, after which the run can be resumed
        return STOPPED
    except Exception as error:
        _record(run, error)
        return 1
    return 0


def run_job(config: RunConfig, run: Path) -> None:
    """Train and evaluate one run, from where it stopped; a collapse is a finding and not an error.

    Raises:
        Exception: Whatever `commands.pretrain` and `commands.evaluate` raise, except CollapseError.
    """
    (run / FAILURE).unlink(missing_ok=True)
    found = resumable(run)
    if found is None or not found.state["finished"]:
        unreadable = found is None and bool(checkpoint_paths(run))
        how: dict[str, Any] = {"overwrite": True} if unreadable else {"resume": "auto"}
        try:
            commands.pretrain(config, out=run, **how)
        except CollapseError as error:
            logger.warning("%s: collapsed: %s", run, error)
    commands.evaluate(run)


def _record(run: Path, error: Exception) -> None:
    """Write a failure and where it happened; on a full disk there is room for a line in the terminal alone."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_text(run / FAILURE, "".join(traceback.format_exception(error)))
    except OSError as refused:
        logger.error("%s: %s; %s is not written: %s", run, one_line(error), FAILURE, refused)


def _end_with_parent() -> None:
    """End this process as soon as its input ends, which is when the parent closes it or is gone, killed even."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    # Not through sys.stdin, whose lock the thread would still hold when the interpreter shuts down.
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
