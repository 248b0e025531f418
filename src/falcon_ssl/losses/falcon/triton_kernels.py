"""Triton kernels of the FALCON loss: products, exponentials and sums of one tile at a time, nothing N x C in memory.

Letters as in chunked.py; logits in base 2. Both views are stacked: view v has rows v N to (v + 1) N of u. Codes are
read as bits and become +-1 in registers, exact in every format.
"""

# Triton's language is not typed.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _logits(
    u_ptr,
    bits_ptr,
    i,
    j,
    N,
    C,
    F,
    bytes_per_code,
    scale,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    FEATURES: tl.constexpr,
):
    """s [ROWS, CODES] of rows i < N from u_ptr and codes j < C; what lies outside is finite and meaningless."""
    s = tl.zeros((ROWS, CODES), dtype=tl.float32)
    for start in range(0, F, FEATURES):
        f = start + tl.arange(0, FEATURES)
        u = tl.load(
            u_ptr + i[:, None] * F + f[None, :], mask=(i < N)[:, None] & (f < F)[None, :], other=0.0
        )
        byte = tl.load(
            bits_ptr + j[None, :] * bytes_per_code + f[:, None] // 8,
            mask=(f < F)[:, None] & (j < C)[None, :],
            other=0,
        )
        sign = ((byte.to(tl.int32) >> (f[:, None] % 8)) & 1) * 2 - 1
        s = tl.dot(u, sign.to(u.dtype), s, input_precision="ieee")
    return s * scale


@triton.jit
def row_sums_kernel(
    u_ptr, bits_ptr, z_ptr, M, C, F, bytes_per_code, scale, codes_per_split,
    ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """z[split, i] = sum over the split's codes of 2^s_ij."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1).to(tl.int64) * codes_per_split
    z = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, codes_per_split, CODES):
        j = first + start + tl.arange(0, CODES)
        s = _logits(u_ptr, bits_ptr, i, j, M, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES)
        z += tl.sum(tl.where((j < C)[None, :], tl.exp2(s), 0.0), axis=1)
    tl.store(z_ptr + tl.program_id(1) * M + i, z, mask=i < M)


@triton.jit
def column_sums_kernel(
    u_ptr, bits_ptr, lse_ptr, sum_ptr, N, C, F, bytes_per_code, scale,
    ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """sum[v, j] = sum over the rows of view v of P_ij."""
    j = tl.program_id(0).to(tl.int64) * CODES + tl.arange(0, CODES)
    view = tl.program_id(1)
    total = tl.zeros((CODES,), dtype=tl.float32)
    for start in range(0, N, ROWS):
        i = start + tl.arange(0, ROWS)
        s = _logits(
            u_ptr + view * N * F,
            bits_ptr,
            i,
            j,
            N,
            C,
            F,
            bytes_per_code,
            scale,
            ROWS,
            CODES,
            FEATURES,
        )
        lse = tl.load(lse_ptr + view * N + i, mask=i < N, other=0.0)
        total += tl.sum(tl.where((i < N)[:, None], tl.exp2(s - lse[:, None]), 0.0), axis=0)
    tl.store(sum_ptr + view * C + j, total, mask=j < C)


@triton.jit
def row_terms_kernel(
    u_ptr, bits_ptr, lse_ptr, slope_ptr, terms_ptr, N, C, F, bytes_per_code, scale, codes_per_split,
    ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """terms[split, (rho, own, cross), v, i] = sums over the split's codes of P a, P s and P s'."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(1)
    first = split.to(tl.int64) * codes_per_split
    lse1 = tl.load(lse_ptr + i, mask=i < N, other=0.0)
    lse2 = tl.load(lse_ptr + N + i, mask=i < N, other=0.0)
    rho1 = tl.zeros((ROWS,), dtype=tl.float32)
    rho2 = tl.zeros((ROWS,), dtype=tl.float32)
    own1 = tl.zeros((ROWS,), dtype=tl.float32)
    own2 = tl.zeros((ROWS,), dtype=tl.float32)
    cross1 = tl.zeros((ROWS,), dtype=tl.float32)
    cross2 = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, codes_per_split, CODES):
        j = first + start + tl.arange(0, CODES)
        inside = (j < C)[None, :]
        s1 = _logits(u_ptr, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES)
        s2 = _logits(
            u_ptr + N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
        )
        p1 = tl.where(inside, tl.exp2(s1 - lse1[:, None]), 0.0)
        p2 = tl.where(inside, tl.exp2(s2 - lse2[:, None]), 0.0)
        a1 = tl.load(slope_ptr + j, mask=j < C, other=0.0)
        a2 = tl.load(slope_ptr + C + j, mask=j < C, other=0.0)
        rho1 += tl.sum(p1 * a1[None, :], axis=1)
        rho2 += tl.sum(p2 * a2[None, :], axis=1)
        own1 += tl.sum(p1 * s1, axis=1)
        own2 += tl.sum(p2 * s2, axis=1)
        cross1 += tl.sum(p1 * s2, axis=1)
        cross2 += tl.sum(p2 * s1, axis=1)
    out_ptr = terms_ptr + split * 6 * N + i
    tl.store(out_ptr, rho1, mask=i < N)
    tl.store(out_ptr + N, rho2, mask=i < N)
    tl.store(out_ptr + 2 * N, own1, mask=i < N)
    tl.store(out_ptr + 3 * N, own2, mask=i < N)
    tl.store(out_ptr + 4 * N, cross1, mask=i < N)
    tl.store(out_ptr + 5 * N, cross2, mask=i < N)


@triton.jit
def gradient_kernel(
    u_ptr, bits_ptr, lse_ptr, slope_ptr, c_ptr, ds_ptr, N, C, F, bytes_per_code, scale, first, K,
    own1, other1, own2, other2,
    ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """ds[v, i, j - first] = P_ij (a_j + c_i - own_v s'_ij) - other_v P'_ij for codes first to first + K."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    local = tl.program_id(1) * CODES + tl.arange(0, CODES)
    j = first + local.to(tl.int64)
    s1 = _logits(u_ptr, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES)
    s2 = _logits(
        u_ptr + N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
    )
    p1 = tl.exp2(s1 - tl.load(lse_ptr + i, mask=i < N, other=0.0)[:, None])
    p2 = tl.exp2(s2 - tl.load(lse_ptr + N + i, mask=i < N, other=0.0)[:, None])
    a1 = tl.load(slope_ptr + j, mask=j < C, other=0.0)[None, :]
    a2 = tl.load(slope_ptr + C + j, mask=j < C, other=0.0)[None, :]
    c1 = tl.load(c_ptr + i, mask=i < N, other=0.0)[:, None]
    c2 = tl.load(c_ptr + N + i, mask=i < N, other=0.0)[:, None]
    inside = (i < N)[:, None] & (local < K)[None, :]
    out = i.to(tl.int64)[:, None] * K + local[None, :]
    tl.store(ds_ptr + out, p1 * (a1 + c1 - own1 * s2) - other1 * p2, mask=inside)
    tl.store(
        ds_ptr + N.to(tl.int64) * K + out, p2 * (a2 + c2 - own2 * s1) - other2 * p1, mask=inside
    )
