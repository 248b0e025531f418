"""The nearest code of an embedding, and what every dictionary says of itself."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary import (
    CompleteDictionary,
    Dictionary,
    HadamardDictionary,
    OneHotDictionary,
    PrototypeDictionary,
    RademacherDictionary,
    nearest_codes,
)

ALL = [
    RademacherDictionary(40, 8),
    HadamardDictionary(40, 8),
    CompleteDictionary(8),
    PrototypeDictionary(torch.randn(40, 8, generator=torch.Generator().manual_seed(0))),
    OneHotDictionary(8),
]


@pytest.mark.parametrize("dictionary", ALL, ids=lambda d: type(d).__name__)
def test_every_dictionary_says_what_others_need_to_know(dictionary):
    complete = isinstance(dictionary, CompleteDictionary)
    assert dictionary.log_num_codes == pytest.approx(math.log(dictionary.num_codes))
    assert dictionary.default_prior_matching == ("renyi2" if complete else "reverse")
    assert dictionary.has_histogram != complete
    assert dictionary.center(0, 2) is None
    u_NF = torch.randn(30, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u_NF[0] = 0  # ties: the lowest index
    assert torch.equal(dictionary.nearest(u_NF), Dictionary.nearest(dictionary, u_NF, block_size=7))


@settings(deadline=None, max_examples=20)
@given(
    num_rows=st.integers(1, 40),
    num_codes=st.integers(2, 70),
    width=st.integers(1, 20),
    block_size=st.integers(1, 50),
)
def test_blocks_find_the_argmax_of_the_whole_matrix(num_rows, num_codes, width, block_size):
    dictionary = RademacherDictionary(num_codes, width, seed=1)
    u_NF = torch.randn(num_rows, width, generator=torch.Generator().manual_seed(num_rows))
    score_NC = u_NF.double() @ dictionary.block(0, num_codes, dtype=torch.float64).T
    found_N = nearest_codes(u_NF.double(), dictionary, block_size=block_size)
    # Narrow dictionaries hold equal codes: compare scores, then that the first of equals is taken.
    best_N = score_NC.max(dim=1).values
    torch.testing.assert_close(score_NC.gather(1, found_N[:, None])[:, 0], best_N)
    assert torch.equal(found_N, (score_NC >= best_N[:, None] - 1e-12).int().argmax(dim=1))


def test_a_code_is_nearest_to_itself():
    dictionary = RademacherDictionary(100, 64, seed=0)
    u_NF = dictionary.block(0, 100) / 8
    assert torch.equal(nearest_codes(u_NF, dictionary, block_size=7), torch.arange(100))


def test_prototypes_are_compared_by_cosine_not_by_length():
    prototypes = PrototypeDictionary(torch.tensor([[100.0, 100.0], [0.0, 0.1]]))
    assert nearest_codes(torch.tensor([[0.0, 1.0]]), prototypes).tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_a_center_is_subtracted_from_the_cosines(dtype, block_size):
    center = torch.tensor([0.9, 0.0, 0.0])
    prototypes = PrototypeDictionary(torch.eye(3), center_C=center)
    u_NF = torch.tensor([[0.8, 0.6, 0.0], [0.0, 0.0, 1.0]], dtype=dtype)
    assert nearest_codes(u_NF, prototypes, block_size=block_size).tolist() == [1, 2]
    center.zero_()  # it is followed
    assert nearest_codes(u_NF, prototypes, block_size=block_size).tolist() == [0, 2]


def test_a_center_of_another_size_is_refused():
    with pytest.raises(InputError, match="the center has the wrong shape"):
        PrototypeDictionary(torch.eye(3), center_C=torch.zeros(2))


@pytest.mark.parametrize(
    ("prototypes", "message"),
    [
        (torch.ones(3), "prototypes has the wrong number of dimensions"),
        (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "received 1 zero rows"),
        (torch.tensor([[float("nan"), 1.0]]), "prototypes holds values that are not finite"),
    ],
)
def test_bad_prototypes(prototypes, message):
    with pytest.raises(InputError, match=message):
        PrototypeDictionary(prototypes)


def test_embedding_of_another_width():
    with pytest.raises(InputError, match="u has the wrong width"):
        nearest_codes(torch.ones(2, 3), RademacherDictionary(4, 8))


def test_the_complete_dictionary_is_not_searched_code_by_code():
    with pytest.raises(InputError, match="too many codes to compare one by one"):
        nearest_codes(torch.ones(2, 128), CompleteDictionary(128))
