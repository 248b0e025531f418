import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary.assign import nearest_codes
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.prototypes import PrototypeDictionary
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.evaluation.codes import aligned_cosine, code_counts, code_usage


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
    with pytest.raises(InputError, match="the center does not fit the prototypes"):
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


@pytest.mark.parametrize("num_codes", [3, 5000])
def test_aligned_cosine_is_that_of_the_own_code(num_codes):
    dictionary = RademacherDictionary(num_codes, 16, seed=0)
    generator = torch.Generator().manual_seed(0)
    u_NF = torch.randn(40, 16, generator=generator)
    code_N = torch.randint(0, num_codes, (40,), generator=generator)
    own_NF = dictionary.block(0, num_codes)[code_N]
    expected = ((u_NF * own_NF).sum(1) / (u_NF.norm(dim=1) * 4)).mean()
    assert aligned_cosine(u_NF, code_N, dictionary) == pytest.approx(float(expected), abs=1e-6)
    assert aligned_cosine(own_NF, code_N, dictionary) == pytest.approx(1)
    with pytest.raises(InputError, match="codes do not fit the dictionary"):
        aligned_cosine(u_NF, code_N + num_codes, dictionary)


def test_the_complete_dictionary_is_not_searched_code_by_code():
    with pytest.raises(InputError, match="too many codes to compare one by one"):
        nearest_codes(torch.ones(2, 128), CompleteDictionary(128))


def test_equal_use_of_all_codes():
    usage = code_usage(torch.arange(60) % 12, num_codes=12)
    assert usage["codes_used"] == 12
    assert usage["codes_used_share"] == 1
    assert usage["code_entropy_share"] == pytest.approx(1)
    assert usage["code_perplexity"] == pytest.approx(12)
    assert usage["code_largest_share"] == pytest.approx(1 / 12)


def test_one_code_for_all():
    usage = code_usage(torch.full((60,), 5), num_codes=12)
    assert usage == {
        "codes_used": 1,
        "codes_used_share": 1 / 12,
        "code_entropy_share": 0,
        "code_perplexity": 1,
        "code_largest_share": 1,
    }


def test_fewer_samples_than_codes_can_still_use_all_they_can():
    usage = code_usage(torch.tensor([3, 900]), num_codes=1000)
    assert usage["codes_used_share"] == 1
    assert usage["code_entropy_share"] == pytest.approx(1)


def test_perplexity_of_a_known_histogram():
    # m = (1/2, 1/4, 1/4): H = 1.5 bits.
    usage = code_usage(torch.tensor([0, 0, 1, 2]), num_codes=4)
    assert usage["code_perplexity"] == pytest.approx(2**1.5)
    assert usage["code_entropy_share"] == pytest.approx(1.5 * math.log(2) / math.log(4))


@pytest.mark.parametrize("codes", [torch.tensor([0, 4]), torch.zeros(0, dtype=torch.int64)])
def test_codes_that_do_not_fit(codes):
    with pytest.raises(InputError, match="codes do not fit the dictionary"):
        code_counts(codes, num_codes=4)
