"""falcon-ssl: collapse-proof self-supervised pretraining (FALCON, arXiv 2410.04959).

encoder -> projector -> dictionary -> loss, and around them everything that tells whether a run is healthy.

Names are imported when they are first used, so that a report can be rebuilt where there is no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from falcon_ssl._version import __version__

if TYPE_CHECKING:
    from falcon_ssl.batchnorm import use_global_batch_norm
    from falcon_ssl.dictionary import RademacherDictionary
    from falcon_ssl.dictionary_complete import CompleteDictionary
    from falcon_ssl.dictionary_hadamard import HadamardDictionary
    from falcon_ssl.errors import InputError
    from falcon_ssl.evaluation import Features, certify, diagnose
    from falcon_ssl.losses import FalconLoss, LossTerms, falcon_loss, power_law_prior
    from falcon_ssl.losses.assign import assign, top_codes
    from falcon_ssl.projector import FalconProjector
    from falcon_ssl.temperature import (
        effective_temperature,
        logit_scale,
        logit_scale_from_temperature,
    )

_HOMES = {
    "CompleteDictionary": "dictionary_complete",
    "FalconLoss": "losses",
    "FalconProjector": "projector",
    "Features": "evaluation",
    "HadamardDictionary": "dictionary_hadamard",
    "InputError": "errors",
    "LossTerms": "losses",
    "RademacherDictionary": "dictionary",
    "assign": "losses.assign",
    "certify": "evaluation",
    "diagnose": "evaluation",
    "effective_temperature": "temperature",
    "falcon_loss": "losses",
    "logit_scale": "temperature",
    "logit_scale_from_temperature": "temperature",
    "power_law_prior": "losses",
    "top_codes": "losses.assign",
    "use_global_batch_norm": "batchnorm",
}

__all__ = [
    "CompleteDictionary",
    "FalconLoss",
    "FalconProjector",
    "Features",
    "HadamardDictionary",
    "InputError",
    "LossTerms",
    "RademacherDictionary",
    "__version__",
    "assign",
    "certify",
    "diagnose",
    "effective_temperature",
    "falcon_loss",
    "logit_scale",
    "logit_scale_from_temperature",
    "power_law_prior",
    "top_codes",
    "use_global_batch_norm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'falcon_ssl' has no attribute '{name}'")
    value = getattr(import_module(f"falcon_ssl.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
