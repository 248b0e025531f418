"""Losses: embeddings or scores in, loss terms out; nothing here depends on an encoder."""

from falcon_ssl.losses.barlow_twins import BarlowTwinsTerms, barlow_twins_loss
from falcon_ssl.losses.byol import BYOLTerms, byol_loss
from falcon_ssl.losses.dino import DINOTerms, dino_loss, updated_center
from falcon_ssl.losses.falcon.loss import FalconLoss, falcon_loss
from falcon_ssl.losses.falcon.terms import LossTerms, power_law_prior
from falcon_ssl.losses.gedi import GEDITerms, energy, energy_loss, gedi_loss
from falcon_ssl.losses.lejepa import LeJEPATerms, lejepa_loss, random_directions, sigreg_loss
from falcon_ssl.losses.self_classifier import SelfClassifierTerms, self_classifier_loss
from falcon_ssl.losses.simclr import SimCLRTerms, simclr_loss
from falcon_ssl.losses.swav import SwAVTerms, sinkhorn, swav_loss
from falcon_ssl.losses.vicreg import VICRegTerms, vicreg_loss

__all__ = [
    "BYOLTerms",
    "BarlowTwinsTerms",
    "DINOTerms",
    "FalconLoss",
    "GEDITerms",
    "LeJEPATerms",
    "LossTerms",
    "SelfClassifierTerms",
    "SimCLRTerms",
    "SwAVTerms",
    "VICRegTerms",
    "barlow_twins_loss",
    "byol_loss",
    "dino_loss",
    "energy",
    "energy_loss",
    "falcon_loss",
    "gedi_loss",
    "lejepa_loss",
    "power_law_prior",
    "random_directions",
    "self_classifier_loss",
    "sigreg_loss",
    "simclr_loss",
    "sinkhorn",
    "swav_loss",
    "updated_center",
    "vicreg_loss",
]
