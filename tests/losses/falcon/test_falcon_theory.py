"""The theorem and Corollaries 1 to 3 of the paper as executable statements.

A sequence of embeddings, ever better aligned with its codes (N q_j samples a code): the loss falls to its bound, and
what the corollaries promise holds within tolerances that shrink with the misalignment.
"""

import math

import pytest
import torch
from torch.nn.functional import normalize

from falcon_ssl import RademacherDictionary, falcon_loss, logit_scale
from falcon_ssl.dictionary.hadamard import HadamardDictionary
from support.written_out import all_codes

F = 64
EPSILON = 1e-8


def aligned(dictionary, *, samples_per_code, misalignment, seed=0):
    """Unit rows near their codes, [N, F], and the code of every row."""
    code_N = torch.arange(dictionary.num_codes).repeat_interleave(samples_per_code)
    codes_CF = dictionary.block(0, dictionary.num_codes, dtype=torch.float64)
    noise = torch.randn(
        len(code_N), F, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return normalize(codes_CF[code_N] + misalignment * noise, dim=1), code_N


def scaled(u_NF):
    return math.sqrt(F / len(u_NF)) * u_NF


@pytest.mark.parametrize("backend", ["reference", "dense", "chunked"])
def test_loss_falls_to_its_bound_on_orthogonal_codes(backend):
    dictionary = HadamardDictionary(F, F)
    L = logit_scale(F, EPSILON)
    bound = -(1 - (F - 1) * EPSILON) * math.log1p(-(F - 1) * EPSILON) - (
        F - 1
    ) * EPSILON * math.log(EPSILON)
    gaps = []
    for misalignment in (3.0, 1.0, 0.3, 0.1, 0.0):
        u, _ = aligned(dictionary, samples_per_code=3, misalignment=misalignment)
        terms = falcon_loss((u, u), dictionary, logit_scale=L, backend=backend)
        gaps.append(float(terms.total) - bound)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1
    assert abs(gaps[-1]) < 1e-12  # reached: H_eps + 0
    assert abs(float(terms.entropy) - bound) < 1e-12
    assert abs(float(terms.prior_matching)) < 1e-12


def test_forward_bound_is_the_entropy_of_the_prior():
    dictionary = HadamardDictionary(F, F)
    u, _ = aligned(dictionary, samples_per_code=2, misalignment=0.0)
    terms = falcon_loss(
        (u, u), dictionary, logit_scale=logit_scale(F, EPSILON), prior_matching="forward"
    )
    assert float(terms.prior_matching) == pytest.approx(math.log(F), rel=1e-12)


@pytest.mark.parametrize(
    "dictionary",
    [HadamardDictionary(F, F), HadamardDictionary(1024, F), RademacherDictionary(1024, F)],
)
def test_corollary_1_each_embedding_reaches_its_code(dictionary):
    distances = []
    for misalignment in (1.0, 0.3, 0.1, 0.0):
        u, code_N = aligned(dictionary, samples_per_code=2, misalignment=misalignment)
        codes_CF = dictionary.block(0, dictionary.num_codes, dtype=torch.float64)
        p_NC = (logit_scale(dictionary.num_codes, EPSILON) / math.sqrt(F) * u @ codes_CF.T).softmax(
            1
        )
        if misalignment <= 0.3:
            assert (p_NC.argmax(1) == code_N).all()
        h_NF = scaled(u)
        distances.append(float((h_NF - codes_CF[code_N] / math.sqrt(len(u))).norm() / h_NF.norm()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-14


def covariance_error(dictionary, misalignment):
    h_NF = scaled(aligned(dictionary, samples_per_code=2, misalignment=misalignment)[0])
    return float((h_NF.T @ h_NF - torch.eye(F)).norm() / math.sqrt(F))


def test_corollary_2_features_decorrelate_exactly_on_a_tight_frame():
    for num_codes in (F, 512, 2048):
        dictionary = HadamardDictionary(num_codes, F)
        errors = [covariance_error(dictionary, misalignment) for misalignment in (1.0, 0.3, 0.0)]
        assert errors[-1] < 1e-12
        assert errors == sorted(errors, reverse=True)
    # A cut last block is no frame, and says so.
    assert covariance_error(HadamardDictionary(F + F // 2, F), 0.0) > 0.1


@pytest.mark.parametrize("num_codes", [256, 1024, 4096])
def test_corollary_2_residual_on_random_codes_has_variance_one_over_c(num_codes):
    h_NF = scaled(
        aligned(RademacherDictionary(num_codes, F), samples_per_code=2, misalignment=0.0)[0]
    )
    covariance_FF = h_NF.T @ h_NF
    off_diagonal = covariance_FF[~torch.eye(F, dtype=torch.bool)]
    # F (F - 1) / 2 = 2016 independent entries: their variance is known to 2 sqrt(2 / 2016) = 6 % (two sigma) or so.
    assert float(off_diagonal.square().mean()) * num_codes == pytest.approx(1, rel=0.15)
    assert float(covariance_FF.diagonal().sub(1).abs().max()) < 1e-12


def test_corollary_3_adjacency_is_block_diagonal_with_blocks_of_n_over_c():
    dictionary, samples_per_code = HadamardDictionary(F, F), 3
    off_block = []
    for misalignment in (1.0, 0.3, 0.1, 0.0):
        u, code_N = aligned(
            dictionary, samples_per_code=samples_per_code, misalignment=misalignment
        )
        h_NF = scaled(u)
        adjacency_NN = h_NF @ h_NF.T
        same_NN = code_N[:, None] == code_N
        assert (same_NN.sum(1) == samples_per_code).all()  # N / C
        off_block.append(
            float(adjacency_NN[~same_NN].square().mean().sqrt() / adjacency_NN[same_NN].mean())
        )
    assert off_block == sorted(off_block, reverse=True)
    assert off_block[-1] < 1e-14
    assert torch.allclose(
        adjacency_NN[same_NN], torch.tensor(F / len(u), dtype=torch.float64), rtol=1e-12
    )


def test_corollary_3_on_random_codes_leaves_cosines_of_variance_one_over_f():
    u, code_N = aligned(RademacherDictionary(1024, F), samples_per_code=1, misalignment=0.0)
    cosine = (u @ u.T)[code_N[:, None] != code_N]
    assert float(cosine.square().mean()) * F == pytest.approx(1, rel=0.02)


def test_random_embeddings_satisfy_none_of_it():
    """The control: what the corollaries promise does not hold by itself."""
    dictionary = HadamardDictionary(F, F)
    u = normalize(
        torch.randn(3 * F, F, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1,
        dim=1,
    )
    h_NF = scaled(u)
    assert float((h_NF.T @ h_NF - torch.eye(F)).norm() / math.sqrt(F)) > 1
    assert falcon_loss((u, u), dictionary, logit_scale=logit_scale(F, EPSILON)).total > 1


@pytest.mark.parametrize("shares", [(8, 8, 8, 8, 8, 8, 8, 8), (32, 12, 8, 4, 4, 2, 1, 1)])
def test_the_prior_holds_leading_directions_by_their_square_and_renyi2_twice_as_hard(shares):
    """docs/theory-training.md: loss = const - (beta / T) sum_v rho_v s_v + (kappa / 2 T^2) (|S|^2 - 1/F)."""
    width, temperature = 8, 16.0
    v_FF = HadamardDictionary(width, width).block(0, width, dtype=torch.float64) / math.sqrt(width)
    agreeing = torch.tensor([round(0.75 * share) for share in shares])
    direction = torch.arange(width).repeat_interleave(torch.tensor(shares))
    place = torch.cat([torch.arange(share) for share in shares])
    first = torch.cat(
        [v_FF[direction], -v_FF[direction]]
    )  # both signs: mean 0, S = sum_v s_v v v^T
    sign = torch.where(place < agreeing[direction], 1.0, -1.0).double().repeat(2)[:, None]
    s_F = torch.tensor(shares) / sum(shares)
    rho_F = 2 * agreeing / torch.tensor(shares) - 1
    square = float(s_F.square().sum()) - 1 / width
    for prior_matching, kappa in (("reverse", 0.5), ("renyi2", 1.0)):
        terms = falcon_loss(
            (first, sign * first),
            all_codes(width),
            logit_scale=math.sqrt(width / temperature),
            prior_matching=prior_matching,
            backend="dense",
        )
        agreed = 1 / (2 * temperature) - float((rho_F * s_F).sum()) / temperature
        assert float(terms.invariance) - width * math.log(2) == pytest.approx(agreed, abs=2e-3)
        expected = kappa / (2 * temperature**2) * square
        assert float(terms.prior_matching) == pytest.approx(expected, rel=0.05, abs=1e-5)
