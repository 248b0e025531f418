"""Triton kernels of the FALCON loss: products, exponentials and sums of one tile at a time, nothing N x C in memory.

Letters as in chunked.py; logits in base 2. The views are stacked: view v has rows v N to (v + 1) N of u. Codes are read
as bits and become +-1 in registers, exact in every format: a float32 that is split into three bfloat16 of eight
significant bits each loses nothing in three products with them. PRECISION says how float32 is multiplied:

    ieee      one product in float32, without tensor cores
    tf32      one, of 11 significant bits
    bf16xn    n products of bfloat16, of 8 n significant bits

Embeddings in half precision are multiplied as they are; PRECISION is then that of dS in the adjoint product. Tiles and
warps are those of triton_tiles.py that are fastest where the kernel first runs.
"""

# Triton's language is not typed.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,assignment"

from __future__ import annotations

import triton
import triton.language as tl

from falcon_ssl.losses.falcon.triton_tiles import IS_INTERPRETED, tuned

INTERPRETED = tl.constexpr(IS_INTERPRETED)


@triton.jit
def _bits(bits_ptr, j, start, C, bytes_per_code, CODES: tl.constexpr, FEATURES: tl.constexpr):
    """Bits [CODES, FEATURES] of codes j < C from feature ``start`` on, a multiple of 8."""
    k = start // 8 + tl.arange(0, FEATURES // 8)
    byte = tl.load(
        bits_ptr + j[:, None] * bytes_per_code + k[None, :],
        mask=(j < C)[:, None] & (k < bytes_per_code)[None, :],
        other=0,
    )
    bit = (byte.to(tl.int32)[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
    return tl.reshape(bit, (CODES, FEATURES))


@triton.jit
def _signs(bit, dtype: tl.constexpr):
    """1 where the bit is set, else -1: the bits of a 1 with a sign, because conversions from integers are slow."""
    if dtype == tl.float32:
        sign = (((bit ^ 1) << 31) | 0x3F800000).to(tl.float32, bitcast=True)
    elif dtype == tl.bfloat16:
        sign = (((bit ^ 1) << 15) | 0x3F80).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        sign = (((bit ^ 1) << 15) | 0x3C00).to(tl.uint16).to(tl.float16, bitcast=True)
    return sign


@triton.jit
def _dot(x, w, total):
    if INTERPRETED and x.dtype == tl.bfloat16:  # which the interpreter stores as integers
        x, w = x.to(tl.float32), w.to(tl.float32)
    return tl.dot(x, w, total, input_precision="ieee")


@triton.jit
def _product(x, bit, total, PRECISION: tl.constexpr):
    """total + x w of signs w."""
    if x.dtype != tl.float32:
        total = _dot(x, _signs(bit, x.dtype), total)
    elif PRECISION == "ieee" or PRECISION == "tf32":
        total = tl.dot(x, _signs(bit, tl.float32), total, input_precision=PRECISION)
    else:
        w = _signs(bit, tl.bfloat16)
        PARTS: tl.constexpr = 3 if PRECISION == "bf16x3" else 2 if PRECISION == "bf16x2" else 1
        for _ in tl.static_range(PARTS - 1):
            high = (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)
            total = _dot(high.to(tl.bfloat16), w, total)
            x -= high
        total = _dot(x.to(tl.bfloat16), w, total)
    return total


@triton.jit
def _logits(
    u_ptr, row, inside, bits_ptr, j, C, F, bytes_per_code, scale,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """s [ROWS, CODES] of rows of u_ptr and codes j < C; what lies outside is finite and meaningless."""
    s = tl.zeros((ROWS, CODES), dtype=tl.float32)
    for start in range(0, F, FEATURES):
        f = start + tl.arange(0, FEATURES)
        u = tl.load(
            u_ptr + row[:, None] * F + f[None, :],
            mask=inside[:, None] & (f < F)[None, :],
            other=0.0,
        )
        bit = _bits(bits_ptr, j, start, C, bytes_per_code, CODES, FEATURES)
        s = _product(u, tl.trans(bit), s, PRECISION)
    return s * scale


@triton.jit
def _view_logits(
    u_ptr, v, i, bits_ptr, j, N, C, F, bytes_per_code, scale,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """`_logits` of rows i < N of view v."""
    return _logits(
        u_ptr + v * N * F, i, i < N, bits_ptr, j, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
    )  # fmt: skip


@tuned("sums")
@triton.jit
def row_sums_kernel(
    u_ptr, bits_ptr, z_ptr, M, C, F, bytes_per_code, scale, codes_per_split,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """z[split, i] = sum over the split's codes of 2^s_ij."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1).to(tl.int64) * codes_per_split
    z = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, codes_per_split, CODES):
        j = first + start + tl.arange(0, CODES)
        s = _view_logits(
            u_ptr, 0, i, bits_ptr, j, M, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
        )  # fmt: skip
        z += tl.sum(tl.where((j < C)[None, :], tl.exp2(s), 0.0), axis=1)
    tl.store(z_ptr + tl.program_id(1) * M + i, z, mask=i < M)


@tuned("sums")
@triton.jit
def column_sums_kernel(
    u_ptr, bits_ptr, lse_ptr, sum_ptr, N, C, F, bytes_per_code, scale,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """sum[v, j] = sum over the rows of view v of P_ij."""
    j = tl.program_id(0).to(tl.int64) * CODES + tl.arange(0, CODES)
    view = tl.program_id(1)
    total = tl.zeros((CODES,), dtype=tl.float32)
    for start in range(0, N, ROWS):
        i = start + tl.arange(0, ROWS)
        s = _view_logits(
            u_ptr, view, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
        )  # fmt: skip
        lse = tl.load(lse_ptr + view * N + i, mask=i < N, other=0.0)
        total += tl.sum(tl.where((i < N)[:, None], tl.exp2(s - lse[:, None]), 0.0), axis=0)
    tl.store(sum_ptr + view * C + j, total, mask=j < C)


@tuned("row_terms")
@triton.jit
def row_terms_kernel(
    u_ptr, bits_ptr, lse_ptr, slope_ptr, terms_ptr, N, C, F, bytes_per_code, scale, codes_per_split,
    VIEWS: tl.constexpr, TARGETS: tl.constexpr, PADDED: tl.constexpr, PLACES: tl.constexpr, PER_MARGINAL: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
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
            s1 = _view_logits(
                u_ptr, 0, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
            )  # fmt: skip
            s2 = _view_logits(
                u_ptr, 1, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
            )  # fmt: skip
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
                total += _view_logits(
                    u_ptr, v, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
                )  # fmt: skip
            for place in range(TARGETS):
                s = _view_logits(
                    u_ptr, place, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
                )  # fmt: skip
                same = s
                if PLACES > 1:
                    first_place = place // PLACES * PLACES
                    same = tl.zeros((ROWS, CODES), dtype=tl.float32)
                    for v in range(first_place, first_place + PLACES):
                        same += _view_logits(
                            u_ptr, v, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
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


@tuned("gradient")
@triton.jit
def gradient_kernel(
    u_ptr, bits_ptr, lse_ptr, slope_ptr, c_ptr, ds_ptr, N, C, F, bytes_per_code, scale, first, K, b, b_ln2,
    VIEWS: tl.constexpr, TARGETS: tl.constexpr, PLACES: tl.constexpr, PER_MARGINAL: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
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
        s1 = _view_logits(
            u_ptr, 0, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
        )  # fmt: skip
        s2 = _view_logits(
            u_ptr, 1, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
        )  # fmt: skip
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
            s = _view_logits(
                u_ptr, v, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
            )  # fmt: skip
            total += s
            if v < TARGETS:
                sum_p += tl.exp2(s - tl.load(lse_ptr + v * N + i, mask=i < N, other=0.0)[:, None])
        for v in range(VIEWS):
            s = _view_logits(
                u_ptr, v, i, bits_ptr, j, N, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
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
                        s_place = _view_logits(
                            u_ptr, place, i, bits_ptr, j, N, C, F, bytes_per_code, scale,
                            PRECISION, ROWS, CODES, FEATURES,
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


@tuned("fused_gradient")
@triton.jit
def fused_gradient_kernel(
    u_ptr, bits_ptr, lse_ptr, slope_ptr, c_ptr, du_ptr, N, C, F, bytes_per_code, scale, codes_per_split,
    b, b_ln2, least,
    TARGETS: tl.constexpr, PER_MARGINAL: tl.constexpr, PRECISION: tl.constexpr,
    CHUNKS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """du[split, v, i] = sum over the split's codes of ds[v, i, j] w_j, two views; ds of `gradient_kernel`, not stored.

    A tile has the rows of both views by turns, so that the other view's logits are those of a neighboring row, and the
    sums of all F <= CHUNKS CHUNK features stay in registers. A tile whose |ds| sum in every row to no more than its
    part of ``least`` is skipped: over all codes, the |ds| that are left out sum in no row to more than ``least``.
    """
    k = tl.arange(0, ROWS)
    view, i = k % 2, tl.program_id(0) * (ROWS // 2) + k // 2
    split = tl.program_id(1)
    first = split.to(tl.int64) * codes_per_split
    inside = i < N
    row, other_row = view * N + i, (1 - view) * N + i
    lse = tl.load(lse_ptr + row, mask=inside, other=0.0)[:, None]
    lse_other = tl.load(lse_ptr + other_row, mask=inside, other=0.0)[:, None]
    c = tl.load(c_ptr + row, mask=inside & (view < TARGETS), other=0.0)[:, None]
    least_of_tile = least / tl.cdiv(C, CODES)
    du = ()
    for _ in tl.static_range(CHUNKS):
        du = du + (tl.zeros((ROWS, CHUNK), dtype=tl.float32),)  # noqa: RUF005
    for start in range(0, codes_per_split, CODES):
        j = first + start + tl.arange(0, CODES)
        s = _logits(
            u_ptr, row, inside, bits_ptr, j, C, F, bytes_per_code, scale, PRECISION, ROWS, CODES, FEATURES
        )  # fmt: skip
        s_other = _swap_neighbors(s, ROWS, CODES)
        p, p_other = tl.exp2(s - lse), tl.exp2(s_other - lse_other)
        a = tl.load(slope_ptr + j, mask=j < C, other=0.0)[None, :]
        if TARGETS > PER_MARGINAL:
            a_second = tl.load(slope_ptr + C + j, mask=j < C, other=0.0)[None, :]
            a = tl.where((view == 0)[:, None], a, a_second)
        ds = p * (a + c - b_ln2 * s_other)
        if TARGETS == 2:
            ds += b * (p - p_other)
        else:
            ds = tl.where((view == 0)[:, None], ds, b * (p - p_other))
        ds = tl.where(inside[:, None] & (j < C)[None, :], ds, 0.0)
        is_less = tl.sum(tl.abs(ds), axis=1) <= least_of_tile  # never where it is NaN
        if tl.sum(tl.where(is_less, 0, 1), axis=0) > 0:
            more = ()
            for chunk in tl.static_range(CHUNKS):
                bit = _bits(bits_ptr, j, chunk * CHUNK, C, bytes_per_code, CODES, CHUNK)
                more = more + (_product(ds, bit, du[chunk], PRECISION),)  # noqa: RUF005
            du = more
    out_ptr = du_ptr + (split.to(tl.int64) * 2 * N + row)[:, None] * F
    for chunk in tl.static_range(CHUNKS):
        f = chunk * CHUNK + tl.arange(0, CHUNK)[None, :]
        tl.store(out_ptr + f, du[chunk], mask=inside[:, None] & (f < F))


@triton.jit
def _swap_neighbors(x, ROWS: tl.constexpr, CODES: tl.constexpr):
    """x [ROWS, CODES] with rows 2 k and 2 k + 1 exchanged."""
    pairs = tl.permute(tl.reshape(x, (ROWS // 2, 2, CODES)), (0, 2, 1))
    even, odd = tl.split(pairs)
    return tl.reshape(tl.permute(tl.join(odd, even), (0, 2, 1)), (ROWS, CODES))
