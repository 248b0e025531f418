"""The command `falcon-ssl`: parses, calls, prints.

Exit codes: 0 done, 1 a run that failed, 2 bad usage or input (one line on stderr), 3 collapsed (an alarm with
--monitor.on_collapse stop, or diagnose --fail_on_collapse), 75 stopped by a signal and to be run again, 130
interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import yaml
from safetensors import SafetensorError

from falcon_ssl.cli.commands import COMMANDS
from falcon_ssl.cli.parser import UsageError, overview, parse
from falcon_ssl.config.run import to_mapping
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.errors import (
    CollapseError,
    FailedRunsError,
    InputError,
    LostRankError,
    StoppedError,
    did_you_mean,
    one_line,
)
from falcon_ssl.core.machine import is_main_process
from falcon_ssl.core.version import __version__

# How torch says it, on a CPU, a GPU and in its libraries.
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "CUDNN_STATUS_ALLOC")
LESS_MEMORY = (
    "take a smaller --batch_size, --reading.image_size, --views.size or encoder, fewer codes, --engine.precision bf16"
    " on a GPU, or --reading.in_memory false for many images"
)


def first_sentence(error: BaseException) -> str:
    """What an error says, on one line, without advice for programmers."""
    return one_line(error).partition(". ")[0].rstrip(".")[:200]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    level = logging.INFO if is_main_process() else logging.WARNING
    logging.getLogger("falcon_ssl").setLevel(level)
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except (InputError, UsageError) as error:
        return _fail(2, f"error: {error}")
    except CollapseError as error:
        return _fail(3, f"collapsed: {error}")
    except (OSError, SafetensorError, ArithmeticError, FailedRunsError, LostRankError) as error:
        return _fail(1, f"the run failed: {error}")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(one in str(error) for one in NO_MEMORY):
            raise
        return _fail(1, f"the run failed: out of memory ({first_sentence(error)}): {LESS_MEMORY}")
    except StoppedError as error:
        return _fail(75, f"stopped by {error}")
    except KeyboardInterrupt:
        return _fail(130, "interrupted; the same command resumes reproduce, sweep and tune")


def _run(words: list[str]) -> int:
    if words[:1] in (["--help"], ["-h"]):
        print(overview(COMMANDS))
        return 0
    if words[:1] == ["--version"]:
        print(f"falcon-ssl {__version__}")
        return 0
    if not words:
        raise UsageError("missing command (falcon-ssl --help)")
    if words[0] not in COMMANDS:
        hint = did_you_mean(words[0], COMMANDS)
        said = ", ".join(filter(None, [f"unknown command {words[0]}", hint]))
        raise UsageError(f"{said} (falcon-ssl --help)")
    name, *options = words
    try:
        arguments = parse(name, COMMANDS[name], options)
    except InputError as error:
        hint = "" if "--help" in str(error) else f" See falcon-ssl {name} --help."
        raise UsageError(f"{error}{hint}") from error
    if arguments.pop("print_config", False):
        print(yaml.safe_dump(to_mapping(arguments["config"]), sort_keys=False), end="")
    else:
        with trusting_code(arguments.pop("trust_code", False)):
            COMMANDS[name](**arguments)
    return 0


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"falcon-ssl: {' '.join(message.splitlines())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
