"""Finite dictionaries whose codes are a matrix: to compare closed forms with, or with codes in another order."""

import torch
from torch import Tensor

from falcon_ssl.dictionary.base import StreamedDictionary
from falcon_ssl.dictionary.complete import CompleteDictionary


class Listed(StreamedDictionary):
    """The codes [C, F] of a matrix."""

    granule = 1

    def __init__(self, codes_CF: Tensor):
        self.codes_CF = codes_CF
        self.num_codes, self.width = codes_CF.shape

    def block(self, start, stop, *, device="cpu", dtype=torch.float64):
        return self.codes_CF[start:stop].to(device, dtype)

    def project(self, u_NF, start, stop):
        return u_NF @ self.block(start, stop).T

    def adjoint(self, g_NK, start, stop, *, dtype):
        return g_NK @ self.block(start, stop)

    def checksum(self):
        return "listed"


def all_codes(width):
    """All 2^F codes as a finite dictionary."""
    return Listed(CompleteDictionary(width).block(0, 2**width, dtype=torch.float64))
