"""Every method, with options that make it small, by the name of what is special about it."""

from __future__ import annotations

from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "falcon": {
        "falcon": {
            "dictionary": "rademacher",
            "num_codes": 64,
            "embed_dim": 16,
            "marginal_momentum": 0.9,
        }
    },
    "hadamard": {"falcon": {"num_codes": 64, "embed_dim": 16, "dictionary": "hadamard"}},
    "complete": {"falcon": {"embed_dim": 16, "dictionary": "complete"}},
    "prior": {
        "falcon": {
            "dictionary": "rademacher",
            "num_codes": 64,
            "embed_dim": 16,
            "prior_exponent": 1.0,
        }
    },
    "barlow_twins": {"barlow_twins": {"hidden_dim": 16, "embed_dim": 8}},
    "vicreg": {"vicreg": {"hidden_dim": 16, "embed_dim": 8}},
    "swav": {"swav": {"hidden_dim": 16, "embed_dim": 8, "num_prototypes": 10, "queue_length": 32}},
    "self_classifier": {"self_classifier": {"hidden_dim": 16, "embed_dim": 8}},
    "gedi": {
        "gedi": {
            "hidden_dim": 16,
            "num_prototypes": 10,
            "generative": True,
            "sgld_steps": 2,
            "buffer_size": 32,
        }
    },
    "dino": {"dino": {"hidden_dim": 16, "embed_dim": 8, "num_prototypes": 10}},
    "lejepa": {"lejepa": {"hidden_dim": 16, "embed_dim": 8, "num_directions": 4}},
}
