"""The command `falcon-ssl`: parses, calls, prints; no maths."""

from falcon_ssl.cli.main import main

__all__ = ["main"]
