"""How many codes to compute together."""

from __future__ import annotations

import torch

from falcon_ssl.core.distributed import world_size
from falcon_ssl.dictionary.base import StreamedDictionary

# Of one block, of logits and of codes: caches of a CPU, or enough to fill a device.
BLOCK_LOGITS = {"cpu": 2**19, "cuda": 2**25}
BLOCK_CODES = {"cpu": 2**21, "cuda": 2**26}


def fitting_block_size(dictionary: StreamedDictionary, num_rows: int, device: torch.device) -> int:
    """Codes a block, the same on every rank: a multiple of the dictionary's granule that fits the cache."""
    rows = 2 * -(-num_rows // world_size())
    size = BLOCK_LOGITS.get(device.type, 2**25) // rows
    if dictionary.granule > 1:
        return max(1, size // dictionary.granule) * dictionary.granule
    return max(256, min(size, BLOCK_CODES.get(device.type, 2**26) // dictionary.width) // 64 * 64)
