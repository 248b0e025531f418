"""Every option of a run, its default, its bounds and its meaning, in one place."""

from falcon_ssl.config.methods import (
    BarlowTwinsConfig,
    DINOConfig,
    FalconConfig,
    GEDIConfig,
    LeJEPAConfig,
    MethodConfig,
    SelfClassifierConfig,
    SwAVConfig,
    VICRegConfig,
)
from falcon_ssl.config.run import (
    METHODS,
    EncoderConfig,
    EngineConfig,
    EvaluationConfig,
    MonitorConfig,
    OptimConfig,
    ReadingConfig,
    RunConfig,
    ViewsConfig,
    from_mapping,
    to_mapping,
)

__all__ = [
    "METHODS",
    "BarlowTwinsConfig",
    "DINOConfig",
    "EncoderConfig",
    "EngineConfig",
    "EvaluationConfig",
    "FalconConfig",
    "GEDIConfig",
    "LeJEPAConfig",
    "MethodConfig",
    "MonitorConfig",
    "OptimConfig",
    "ReadingConfig",
    "RunConfig",
    "SelfClassifierConfig",
    "SwAVConfig",
    "VICRegConfig",
    "ViewsConfig",
    "from_mapping",
    "to_mapping",
]
