"""Losses: embeddings in, loss terms out; nothing here knows an encoder."""

from falcon_ssl.losses.falcon import FalconLoss, falcon_loss
from falcon_ssl.losses.terms import LossTerms, power_law_prior

__all__ = ["FalconLoss", "LossTerms", "falcon_loss", "power_law_prior"]
