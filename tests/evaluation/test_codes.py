import math

import pytest
import torch

from falcon_ssl.core.errors import InputError
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.evaluation.codes import aligned_cosine, code_counts, code_usage


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
