"""Dictionaries: fixed codes, how they lie to each other, and which of them an embedding is assigned to."""

from falcon_ssl.dictionary.assign import Assignment, assign, nearest_codes, top_codes
from falcon_ssl.dictionary.base import Dictionary, StreamedDictionary
from falcon_ssl.dictionary.coherence import Coherence, coherence
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from falcon_ssl.dictionary.prototypes import OneHotDictionary, PrototypeDictionary
from falcon_ssl.dictionary.rademacher import RademacherDictionary

__all__ = [
    "Assignment",
    "Coherence",
    "CompleteDictionary",
    "Dictionary",
    "HadamardDictionary",
    "OneHotDictionary",
    "PrototypeDictionary",
    "RademacherDictionary",
    "StreamedDictionary",
    "assign",
    "coherence",
    "nearest_codes",
    "top_codes",
]
