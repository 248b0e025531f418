"""Triton kernels of the FALCON loss: products, exponentials and sums of one tile at a time, nothing N x C in memory.

Letters as in chunked.py; logits in base 2. The views are stacked: view v has rows v N to (v + 1) N of u. Codes are read
as bits and become +-1 in registers, exact in every format.
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
            u_ptr + view * N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
        )  # fmt: skip
        lse = tl.load(lse_ptr + view * N + i, mask=i < N, other=0.0)
        total += tl.sum(tl.where((i < N)[:, None], tl.exp2(s - lse[:, None]), 0.0), axis=0)
    tl.store(sum_ptr + view * C + j, total, mask=j < C)


@triton.jit
def row_terms_kernel(
    u_ptr, bits_ptr, lse_ptr, slope_ptr, terms_ptr, N, C, F, bytes_per_code, scale, codes_per_split,
    VIEWS: tl.constexpr, TARGETS: tl.constexpr, PADDED: tl.constexpr, PLACES: tl.constexpr, PER_MARGINAL: tl.constexpr,
    ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """terms[split, (rho, own, cross), o, i] = sums over the split's codes of P a, P s and P s', s' the others' sum.

    PADDED is the power of two that holds the targets.
    """
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(1)
    first = split.to(tl.int64) * codes_per_split
    target = tl.arange(0, PADDED)[:, None]
    rho = tl.zeros((PADDED, ROWS), dtype=tl.float32)
    own = tl.zeros((PADDED, ROWS), dtype=tl.float32)
    cross = tl.zeros((PADDED, ROWS), dtype=tl.float32)
    for start in range(0, codes_per_split, CODES):
        j = first + start + tl.arange(0, CODES)
        if VIEWS == 2:
            s1 = _logits(
                u_ptr, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
            )
            s2 = _logits(
                u_ptr + N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
            )
            more = _row_terms(s1, s2, target, 0, 0, i, j, lse_ptr, slope_ptr, N, C)
            rho, own, cross = rho + more[0], own + more[1], cross + more[2]
            if TARGETS == 2:
                more = _row_terms(
                    s2, s1, target, 1, 1 // PER_MARGINAL, i, j, lse_ptr, slope_ptr, N, C
                )
                rho, own, cross = rho + more[0], own + more[1], cross + more[2]
        else:
            total = tl.zeros((ROWS, CODES), dtype=tl.float32)
            for v in range(VIEWS):
                total += _logits(
                    u_ptr + v * N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
                )  # fmt: skip
            for place in range(TARGETS):
                s = _logits(
                    u_ptr + place * N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
                )  # fmt: skip
                same = s
                if PLACES > 1:
                    first_place = place // PLACES * PLACES
                    same = tl.zeros((ROWS, CODES), dtype=tl.float32)
                    for v in range(first_place, first_place + PLACES):
                        same += _logits(
                            u_ptr + v * N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
                        )  # fmt: skip
                more = _row_terms(
                    s, total - same, target, place, place // PER_MARGINAL, i, j, lse_ptr, slope_ptr, N, C
                )  # fmt: skip
                rho, own, cross = rho + more[0], own + more[1], cross + more[2]
    out_ptr = terms_ptr + split * 3 * TARGETS * N + target * N + i[None, :]
    inside = (target < TARGETS) & (i < N)[None, :]
    tl.store(out_ptr, rho, mask=inside)
    tl.store(out_ptr + TARGETS * N, own, mask=inside)
    tl.store(out_ptr + 2 * TARGETS * N, cross, mask=inside)


@triton.jit
def _row_terms(s, others, target, o, marginal, i, j, lse_ptr, slope_ptr, N, C):
    """One tile's part of (rho, own, cross) of target o, in its row of [PADDED, ROWS]."""
    lse = tl.load(lse_ptr + o * N + i, mask=i < N, other=0.0)
    p = tl.where((j < C)[None, :], tl.exp2(s - lse[:, None]), 0.0)
    a = tl.load(slope_ptr + marginal * C + j, mask=j < C, other=0.0)
    mine = target == o
    rho = tl.where(mine, tl.sum(p * a[None, :], axis=1)[None, :], 0.0)
    own = tl.where(mine, tl.sum(p * s, axis=1)[None, :], 0.0)
    cross = tl.where(mine, tl.sum(p * others, axis=1)[None, :], 0.0)
    return rho, own, cross


@triton.jit
def gradient_kernel(
    u_ptr, bits_ptr, lse_ptr, slope_ptr, c_ptr, ds_ptr, N, C, F, bytes_per_code, scale, first, K, b, b_ln2,
    VIEWS: tl.constexpr, TARGETS: tl.constexpr, PLACES: tl.constexpr, PER_MARGINAL: tl.constexpr,
    ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """ds[v, i, j - first] = P_ij (a_j + c_i - b ln2 s'_ij) + b (n P_ij - T_ij) for codes first to first + K.

    The first part for targets alone; s' is the sum of the other views' logits, T of the P of a view's n targets.
    """
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    local = tl.program_id(1) * CODES + tl.arange(0, CODES)
    j = first + local.to(tl.int64)
    inside = (i < N)[:, None] & (local < K)[None, :]
    out_ptr = ds_ptr + i.to(tl.int64)[:, None] * K + local[None, :]
    if VIEWS == 2:
        s1 = _logits(u_ptr, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES)
        s2 = _logits(
            u_ptr + N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
        )
        p1 = tl.exp2(s1 - tl.load(lse_ptr + i, mask=i < N, other=0.0)[:, None])
        p2 = tl.exp2(s2 - tl.load(lse_ptr + N + i, mask=i < N, other=0.0)[:, None])
        ds1 = p1 * _as_target(s2, 0, 0, i, j, slope_ptr, c_ptr, N, C, b_ln2)
        ds2 = b * (p2 - p1)
        if TARGETS == 2:
            ds1 += b * (p1 - p2)
            ds2 += p2 * _as_target(s1, 1, 1 // PER_MARGINAL, i, j, slope_ptr, c_ptr, N, C, b_ln2)
        tl.store(out_ptr, ds1, mask=inside)
        tl.store(out_ptr + N.to(tl.int64) * K, ds2, mask=inside)
    else:
        # n P - T = K P - sum of P over all targets: of a target, P itself is in both. Of several places a view, its own
        # are in both and differ: S P - their sum is taken off.
        total = tl.zeros((ROWS, CODES), dtype=tl.float32)
        sum_p = tl.zeros((ROWS, CODES), dtype=tl.float32)
        for v in range(VIEWS):
            s = _logits(
                u_ptr + v * N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
            )  # fmt: skip
            total += s
            if v < TARGETS:
                sum_p += tl.exp2(s - tl.load(lse_ptr + v * N + i, mask=i < N, other=0.0)[:, None])
        for v in range(VIEWS):
            s = _logits(
                u_ptr + v * N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
            )  # fmt: skip
            p = tl.exp2(s - tl.load(lse_ptr + v * N + i, mask=i < N, other=0.0)[:, None])
            ds = b * (TARGETS * p - sum_p)
            if v < TARGETS:
                same = s
                if PLACES > 1:
                    ds -= b * PLACES * p
                    first_place = v // PLACES * PLACES
                    same = tl.zeros((ROWS, CODES), dtype=tl.float32)
                    for place in range(first_place, first_place + PLACES):
                        s_place = _logits(
                            u_ptr + place * N * F, bits_ptr, i, j, N, C, F, bytes_per_code, scale, ROWS, CODES, FEATURES
                        )  # fmt: skip
                        same += s_place
                        ds += b * tl.exp2(
                            s_place
                            - tl.load(lse_ptr + place * N + i, mask=i < N, other=0.0)[:, None]
                        )
                ds += p * _as_target(
                    total - same, v, v // PER_MARGINAL, i, j, slope_ptr, c_ptr, N, C, b_ln2
                )
            tl.store(out_ptr + v * N.to(tl.int64) * K, ds, mask=inside)


@triton.jit
def _as_target(others, o, marginal, i, j, slope_ptr, c_ptr, N, C, b_ln2):
    """a_j + c_i - b ln2 s'_ij of target o."""
    a = tl.load(slope_ptr + marginal * C + j, mask=j < C, other=0.0)[None, :]
    c = tl.load(c_ptr + o * N + i, mask=i < N, other=0.0)[:, None]
    return a + c - b_ln2 * others
