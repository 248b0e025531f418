"""The command `falcon-ssl`: parses, calls, prints; no maths."""

import sys
from collections.abc import Sequence

from falcon_ssl.core.extras import MissingExtraError, train_extra

try:
    with train_extra("the command falcon-ssl"):
        from falcon_ssl.cli.main import main
except MissingExtraError as error:
    _missing = f"falcon-ssl: error: {error}\n"

    def _usage_error(argv: Sequence[str] | None = None) -> int:
        """Print what is missing; returns the exit code of bad usage."""
        sys.stderr.write(_missing)
        return 2

    main = _usage_error


__all__ = ["main"]
