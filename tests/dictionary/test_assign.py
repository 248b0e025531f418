"""Assignments without N x C memory, against the softmax written out."""

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_ssl import InputError, RademacherDictionary
from falcon_ssl.dictionary.assign import assign, top_codes
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from support.problems import unit_rows

DICTIONARIES = [RademacherDictionary(700, 8), HadamardDictionary(700, 8), CompleteDictionary(8)]


@pytest.mark.parametrize("dictionary", DICTIONARIES, ids=lambda d: d.kind)
@pytest.mark.parametrize("k", [1, 5, 256])
def test_top_codes_are_those_of_the_softmax(dictionary, k, monkeypatch):
    monkeypatch.setattr(sys.modules[assign.__module__], "fitting_block_size", lambda *_: 64)
    u, _ = unit_rows(9, 8)
    codes_CF = dictionary.block(0, dictionary.num_codes, dtype=torch.float64)
    p_NC = (5.0 / math.sqrt(8) * u @ codes_CF.T).softmax(1)
    top = top_codes(u, dictionary, logit_scale=5.0, k=k)
    assert torch.allclose(top.probability, p_NC.topk(k, dim=1).values, rtol=1e-10)
    # The same code may stand twice in a random dictionary: compare what the codes get, not their numbers.
    assert torch.allclose(p_NC.gather(1, top.code), top.probability, rtol=1e-10)
    assert all(len(set(row)) == k for row in top.code.tolist())


@given(width=st.integers(1, 10), k=st.integers(1, 40), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=25)
def test_best_sign_patterns(width, k, seed):
    dictionary = CompleteDictionary(width)
    k = min(k, dictionary.num_codes)
    u, _ = unit_rows(4, width, seed=seed)
    codes_CF = dictionary.block(0, dictionary.num_codes, dtype=torch.float64)
    p_NC = (7.0 / math.sqrt(width) * u @ codes_CF.T).softmax(1)
    top = top_codes(u, dictionary, logit_scale=7.0, k=k)
    assert torch.allclose(top.probability, p_NC.topk(k, dim=1).values, rtol=1e-9)
    assert torch.allclose(p_NC.gather(1, top.code), top.probability, rtol=1e-9)


def test_a_code_is_assigned_to_itself():
    for dictionary in (RademacherDictionary(5000, 64), HadamardDictionary(5000, 64)):
        assignment = assign(dictionary.block(4000, 4010) / 8, dictionary, logit_scale=18.4)
        assert assignment.code.tolist() == list(range(4000, 4010))
        assert (assignment.probability > 0.5).all()
    complete = CompleteDictionary(20)
    assert assign(complete.block(4000, 4010), complete, logit_scale=5.0).code.tolist() == list(
        range(4000, 4010)
    )


def test_wide_sign_patterns_get_equal_numbers_iff_equal():
    u, _ = unit_rows(200, 128)
    dictionary = CompleteDictionary(128)
    assignment = assign(torch.cat([u, 0.5 * u, -u]), dictionary, logit_scale=18.0)
    first, same, opposite = assignment.code.view(3, -1)
    assert torch.equal(first, same)
    assert len(set(first.tolist()) | set(opposite.tolist())) == 400
    assert (assignment.code >= 0).all()


def test_half_precision_embeddings():
    u, _ = unit_rows(9, 64, dtype=torch.bfloat16)
    dictionary = RademacherDictionary(300, 64)
    half = assign(u, dictionary, logit_scale=18.0)
    assert half.probability.dtype == torch.float32
    full = assign(u.float(), dictionary, logit_scale=18.0)
    assert torch.allclose(
        half.probability, full.probability, rtol=0.1
    )  # s up to 18, rounded to 8 bits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is too small"),
        ({"k": 257}, "k exceeds the dictionary: received 257, expected k <= 256"),
        ({"logit_scale": -1.0}, "logit_scale is not positive"),
    ],
)
def test_bad_input(options, message):
    u, _ = unit_rows(2, 8)
    with pytest.raises(InputError, match=message):
        top_codes(u, CompleteDictionary(8), **{"logit_scale": 3.0, "k": 1, **options})
    with pytest.raises(InputError, match="u has the wrong width"):
        assign(u[:, 1:], CompleteDictionary(8), logit_scale=3.0)
