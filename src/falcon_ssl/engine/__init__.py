"""The engine: the training loop, its optimizer, checkpoints and records."""

from falcon_ssl.engine.checkpoint import load_model
from falcon_ssl.engine.finite import NonFiniteError
from falcon_ssl.engine.stop import StopRequest, stop_signals
from falcon_ssl.engine.trainer import Position, pretrain
from falcon_ssl.records.checkpoints import read_state
from falcon_ssl.records.folder import RunFolder
from falcon_ssl.records.provenance import environment

__all__ = [
    "NonFiniteError",
    "Position",
    "RunFolder",
    "StopRequest",
    "environment",
    "load_model",
    "pretrain",
    "read_state",
    "stop_signals",
]
