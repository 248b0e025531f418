"""falcon-ssl: collapse-proof self-supervised pretraining (FALCON, arXiv 2410.04959).

encoder -> projector -> dictionary -> loss, and around them everything that says whether a run is healthy.

Names are imported when they are first used, so that a report can be rebuilt where there is no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from falcon_ssl.core.version import __version__

if TYPE_CHECKING:
    from falcon_ssl.commands import load_encoder
    from falcon_ssl.commands.estimator import FalconEncoder
    from falcon_ssl.core.consent import trusting_code
    from falcon_ssl.core.errors import InputError
    from falcon_ssl.core.theory import (
        codes_needed,
        effective_temperature,
        logit_scale,
        logit_scale_from_temperature,
    )
    from falcon_ssl.dictionary.assign import assign, top_codes
    from falcon_ssl.dictionary.complete import CompleteDictionary
    from falcon_ssl.dictionary.hadamard import HadamardDictionary
    from falcon_ssl.dictionary.rademacher import RademacherDictionary
    from falcon_ssl.evaluation import Features, certify, diagnose
    from falcon_ssl.losses import FalconLoss, LossTerms, falcon_loss, power_law_prior
    from falcon_ssl.networks.batchnorm import use_global_batch_norm
    from falcon_ssl.networks.projector import FalconProjector

_HOMES = {
    "CompleteDictionary": "dictionary",
    "FalconEncoder": "commands",
    "FalconLoss": "losses",
    "FalconProjector": "networks.projector",
    "Features": "evaluation",
    "HadamardDictionary": "dictionary",
    "InputError": "core.errors",
    "LossTerms": "losses",
    "RademacherDictionary": "dictionary",
    "assign": "dictionary",
    "certify": "evaluation",
    "codes_needed": "core.theory",
    "diagnose": "evaluation",
    "effective_temperature": "core.theory",
    "falcon_loss": "losses",
    "load_encoder": "commands",
    "logit_scale": "core.theory",
    "logit_scale_from_temperature": "core.theory",
    "power_law_prior": "losses",
    "top_codes": "dictionary",
    "trusting_code": "core.consent",
    "use_global_batch_norm": "networks.batchnorm",
}

__all__ = [
    "CompleteDictionary",
    "FalconEncoder",
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
    "codes_needed",
    "diagnose",
    "effective_temperature",
    "falcon_loss",
    "load_encoder",
    "logit_scale",
    "logit_scale_from_temperature",
    "power_law_prior",
    "top_codes",
    "trusting_code",
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
