"""The complete dictionary as a finite one, to compare its closed form with."""

import torch

from falcon_ssl.dictionary.base import StreamedDictionary
from falcon_ssl.dictionary.complete import CompleteDictionary


class WrittenOut(StreamedDictionary):
    """All 2^F codes as a finite dictionary."""

    granule = 1

    def __init__(self, width):
        self.width, self.num_codes = width, 2**width
        self.codes_CF = CompleteDictionary(width).block(0, 2**width, dtype=torch.float64)

    def block(self, start, stop, *, device="cpu", dtype=torch.float64):
        return self.codes_CF[start:stop].to(device, dtype)

    def project(self, u_NF, start, stop):
        return u_NF @ self.block(start, stop).T

    def adjoint(self, g_NK, start, stop, *, dtype):
        return g_NK @ self.block(start, stop)

    def checksum(self):
        return "written out"
