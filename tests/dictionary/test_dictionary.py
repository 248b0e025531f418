"""Codes from a seed: their signs, products, reproducibility and statistics."""

import hashlib
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from falcon_ssl import InputError, RademacherDictionary
from falcon_ssl.dictionary.base import StreamedDictionary
from falcon_ssl.dictionary.coherence import coherence
from falcon_ssl.dictionary.complete import CompleteDictionary
from falcon_ssl.dictionary.hadamard import HadamardDictionary

WIDTHS = [1, 2, 4, 12, 20, 24, 64, 96, 160, 256, 384]
FINITE = [RademacherDictionary, HadamardDictionary]


@pytest.mark.parametrize("kind", FINITE)
@pytest.mark.parametrize("width", WIDTHS)
def test_codes_are_signs_and_products_are_products(kind, width):
    num_codes = 3 * width + 2
    dictionary = kind(num_codes, width, seed=1)
    assert isinstance(dictionary, StreamedDictionary)
    codes_CF = dictionary.block(0, num_codes, dtype=torch.float64)
    assert codes_CF.shape == (num_codes, width)
    assert (codes_CF.abs() == 1).all()
    generator = torch.Generator().manual_seed(0)
    u_NF = torch.randn(5, width, dtype=torch.float64, generator=generator)
    for start, stop in (
        (0, num_codes),
        (1, width + 2),
        (width, 2 * width),
        (2 * width + 1, num_codes),
    ):
        block_KF = codes_CF[start:stop]
        assert torch.equal(dictionary.block(start, stop, dtype=torch.int8), block_KF.to(torch.int8))
        assert torch.allclose(dictionary.project(u_NF, start, stop), u_NF @ block_KF.T, atol=1e-11)
        g_NK = torch.randn(5, stop - start, dtype=torch.float64, generator=generator)
        adjoint_NF = dictionary.adjoint(g_NK, start, stop, dtype=torch.float64)
        assert torch.allclose(adjoint_NF, g_NK @ block_KF, atol=1e-11)


@pytest.mark.parametrize("kind", FINITE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_products_return_float32(kind, dtype):
    dictionary = kind(100, 64)
    u_NF = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    s_NK = dictionary.project(u_NF, 0, 100)
    assert s_NK.dtype == torch.float32
    truth = u_NF.double() @ dictionary.block(0, 100, dtype=torch.float64).T
    # Rounded at most once, to the format's relative precision of the largest sums.
    assert (s_NK - truth).abs().max() < truth.abs().max() * torch.finfo(dtype).eps
    g_NK = (
        torch.rand(5, 100, generator=torch.Generator().manual_seed(0)) * 1e-9
    )  # far below the range of float16
    adjoint_NF = dictionary.adjoint(g_NK, 0, 100, dtype=dtype)
    truth = g_NK.double() @ dictionary.block(0, 100, dtype=torch.float64)
    assert adjoint_NF.dtype == torch.float32
    assert (adjoint_NF - truth).abs().max() < 4 * truth.abs().max() * torch.finfo(dtype).eps


@given(
    seed=st.integers(0, 2**64 - 1), width=st.sampled_from([1, 8, 13, 48]), more=st.integers(1, 50)
)
@settings(deadline=None, max_examples=15)
def test_a_larger_dictionary_begins_with_the_smaller_one(seed, width, more):
    small, large = (RademacherDictionary(20 + n, width, seed) for n in (0, more))
    assert torch.equal(small.block(0, 20), large.block(0, 20))
    if width != 13:
        small, large = (HadamardDictionary(20 + n, width, seed) for n in (0, more))
        assert torch.equal(small.block(0, 20), large.block(0, 20))


def fingerprint(dictionary):
    signs = dictionary.block(0, dictionary.num_codes, dtype=torch.int8)
    return hashlib.sha256(signs.contiguous().numpy().tobytes()).hexdigest()[:16]


def test_the_same_seed_gives_these_codes_for_ever():
    """Golden fingerprints: a run is reproducible only as long as its dictionary is."""
    assert fingerprint(RademacherDictionary(1000, 100, seed=7)) == "4caac045ff438dac"
    assert fingerprint(HadamardDictionary(1000, 96, seed=7)) == "7a909d4e0aa19af1"


@pytest.mark.parametrize("kind", FINITE)
def test_checksum_tells_dictionaries_apart(kind):
    base = kind(100, 64, 0)
    assert base.checksum() == kind(100, 64, 0).checksum()
    assert pickle.loads(pickle.dumps(base)).checksum() == base.checksum()
    others = [kind(100, 64, 1), kind(101, 64, 0), kind(100, 32, 0)]
    assert len({base.checksum(), *(other.checksum() for other in others)}) == 4
    assert RademacherDictionary(100, 64).checksum() != HadamardDictionary(100, 64).checksum()


def test_packed_bits_are_all_that_is_stored():
    stored = pickle.dumps(RademacherDictionary(8000, 256))
    assert len(stored) < 8000 * 256 / 8 + 2000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", FINITE)
def test_the_same_bits_on_every_device(kind):
    dictionary = kind(1000, 96, seed=1)
    here = dictionary.block(10, 900)
    there = dictionary.block(10, 900, device="cuda")
    assert torch.equal(here, there.cpu())


def test_hadamard_is_a_tight_frame_of_orthogonal_blocks():
    for width in (12, 20, 48, 64):
        codes_CF = HadamardDictionary(4 * width, width, seed=2).block(0, 4 * width)
        assert torch.equal(codes_CF.T @ codes_CF, 4 * width * torch.eye(width))
        for b in range(4):
            block_FF = codes_CF[b * width : (b + 1) * width]
            assert torch.equal(block_FF @ block_FF.T, width * torch.eye(width))
        assert not torch.equal(codes_CF[:width], codes_CF[width : 2 * width])  # blocks differ


def test_coherence_beside_the_welch_bound():
    num_codes, width = 2048, 128
    random = coherence(RademacherDictionary(num_codes, width), block_size=300)
    tight = coherence(HadamardDictionary(num_codes, width), block_size=300)
    for found in (random, tight):
        assert found.welch_largest <= found.largest_cosine < 1
        assert found.mean_square_cosine >= found.welch_mean_square * (1 - 1e-12)
        assert abs(found.mean_cosine) < 1e-3
    assert tight.mean_square_cosine == pytest.approx(tight.welch_mean_square, rel=1e-12)
    assert tight.frame_error == 0
    # Random signs: mean square 1/F, largest about 2 sqrt(log C / F), frame error sqrt(F / C).
    assert random.mean_square_cosine * width == pytest.approx(1, rel=0.01)
    assert random.largest_cosine == pytest.approx(
        2 * math.sqrt(math.log(num_codes) / width), rel=0.2
    )
    assert random.frame_error == pytest.approx(math.sqrt(width / num_codes), rel=0.1)


def test_coherence_by_all_pairs():
    dictionary = RademacherDictionary(50, 16)
    codes_CF = dictionary.block(0, 50, dtype=torch.float64) / 4
    cosines = (codes_CF @ codes_CF.T)[~torch.eye(50, dtype=torch.bool)]
    found = coherence(dictionary, block_size=7)
    assert found.mean_cosine == pytest.approx(float(cosines.mean()), abs=1e-12)
    assert found.mean_square_cosine == pytest.approx(float(cosines.square().mean()), rel=1e-12)
    assert found.largest_cosine == pytest.approx(float(cosines.abs().max()), rel=1e-12)
    assert coherence(dictionary, max_codes=20).num_codes == 20


def test_complete_dictionary_lists_every_sign_pattern_once():
    dictionary = CompleteDictionary(5)
    codes_CF = dictionary.block(0, 32)
    assert len({tuple(row) for row in codes_CF.tolist()}) == 32
    assert dictionary.block(6, 7).tolist() == [[-1, 1, 1, -1, -1]]
    wide = CompleteDictionary(300)
    assert wide.num_codes == 2**300
    assert wide.block(2**300 - 1, 2**300).sum() == 300
    assert wide.checksum() != dictionary.checksum()


@pytest.mark.parametrize("kind", FINITE)
def test_bad_sizes(kind):
    with pytest.raises(InputError, match=r"num_codes is too small: received 1, expected >= 2"):
        kind(1, 8)
    with pytest.raises(InputError, match="width is too small"):
        kind(10, 0)
    with pytest.raises(InputError, match="seed is too small"):
        kind(10, 8, -1)
    for start, stop in ((-1, 3), (3, 3), (5, 4), (0, 11)):
        with pytest.raises(InputError, match="no such block of codes"):
            kind(10, 8).block(start, stop)
    with pytest.raises(InputError, match="width is too small"):
        CompleteDictionary(0)
    with pytest.raises(InputError, match="samples_per_row is too small"):
        CompleteDictionary(4, samples_per_row=1)
    with pytest.raises(InputError, match="max_codes is too small"):
        coherence(kind(10, 8), max_codes=1)
    with pytest.raises(InputError, match="block_size is too small"):
        coherence(kind(10, 8), block_size=0)


@pytest.mark.parametrize(
    ("width", "nearest"),
    [(3, "2 or 4"), (100, "96 or 128"), (1000, "768 or 1024"), (36, "32 or 40")],
)
def test_unsupported_hadamard_width_names_the_nearest(width, nearest):
    with pytest.raises(InputError, match=rf"received width {width}, .* use {nearest}"):
        HadamardDictionary(100, width)
