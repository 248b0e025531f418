"""Many runs that answer one question, resumable run by run."""

from falcon_ssl.commands.studies.grid import Selection
from falcon_ssl.commands.studies.reproduce import plan, reproduce
from falcon_ssl.commands.studies.sweep import sweep
from falcon_ssl.commands.studies.tune import Tuning, tune

__all__ = ["Selection", "Tuning", "plan", "reproduce", "sweep", "tune"]
