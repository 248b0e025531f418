"""The FALCON loss: one objective, several back ends behind one function."""

from falcon_ssl.losses.falcon.loss import FalconLoss, falcon_loss
from falcon_ssl.losses.falcon.terms import LossTerms, power_law_prior

__all__ = ["FalconLoss", "LossTerms", "falcon_loss", "power_law_prior"]
