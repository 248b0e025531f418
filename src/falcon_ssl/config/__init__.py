"""Every option of a run, its default, its bounds and its meaning, in one place."""

from falcon_ssl.config.encoder import EncoderConfig, InitConfig
from falcon_ssl.config.engine import EngineConfig
from falcon_ssl.config.evaluation import EvaluationConfig, MonitorConfig
from falcon_ssl.config.finetune import FinetuneConfig
from falcon_ssl.config.methods import (
    BarlowTwinsConfig,
    BYOLConfig,
    DINOConfig,
    FalconConfig,
    GEDIConfig,
    LeJEPAConfig,
    MethodConfig,
    SelfClassifierConfig,
    SimCLRConfig,
    SwAVConfig,
    VICRegConfig,
)
from falcon_ssl.config.run import (
    METHODS,
    OptimConfig,
    ReadingConfig,
    RunConfig,
    ViewsConfig,
    from_mapping,
    to_mapping,
)

__all__ = [
    "METHODS",
    "BYOLConfig",
    "BarlowTwinsConfig",
    "DINOConfig",
    "EncoderConfig",
    "EngineConfig",
    "EvaluationConfig",
    "FalconConfig",
    "FinetuneConfig",
    "GEDIConfig",
    "InitConfig",
    "LeJEPAConfig",
    "MethodConfig",
    "MonitorConfig",
    "OptimConfig",
    "ReadingConfig",
    "RunConfig",
    "SelfClassifierConfig",
    "SimCLRConfig",
    "SwAVConfig",
    "VICRegConfig",
    "ViewsConfig",
    "from_mapping",
    "to_mapping",
]
