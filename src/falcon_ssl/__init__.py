"""falcon-ssl: collapse-proof self-supervised pretraining (FALCON, arXiv 2410.04959).

encoder -> projector -> dictionary -> loss, and everything around them that tells whether a run is healthy.
"""

from falcon_ssl._version import __version__
from falcon_ssl.checks import InputError
from falcon_ssl.dictionary import RademacherDictionary
from falcon_ssl.losses import FalconLoss, LossTerms, falcon_loss, power_law_prior
from falcon_ssl.projector import FalconProjector
from falcon_ssl.temperature import (
    effective_temperature,
    logit_scale,
    logit_scale_from_temperature,
)

__all__ = [
    "FalconLoss",
    "FalconProjector",
    "InputError",
    "LossTerms",
    "RademacherDictionary",
    "__version__",
    "effective_temperature",
    "falcon_loss",
    "logit_scale",
    "logit_scale_from_temperature",
    "power_law_prior",
]
