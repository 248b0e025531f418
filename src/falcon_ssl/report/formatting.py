"""Numbers as people read them: three digits that matter, narrow spaces, percent where it helps."""

from __future__ import annotations

import math

from falcon_ssl.records.metrics import Kind

NARROW_SPACE = "\u202f"
MINUS = "\u2212"
DASH = "–"


def format_number(value: float | None, kind: Kind = "real") -> str:
    r"""Write a number for a reader.

    Args:
        value: The number; None becomes a dash, NaN and infinity stay visible.
        kind: "percent" (of a fraction in [0, 1]), "score" (three decimals), "count" (whole number,
            grouped in thousands) or "real" (four significant digits).

    Returns:
        Text with a true minus sign, and narrow spaces before "%" and between thousands.

    Example:
        >>> format_number(0.9861, "percent")
        '98.6\u202f%'
        >>> format_number(16384, "count"), format_number(-0.00012345), format_number(None)
        ('16\u202f384', '−0.0001234', '–')
    """
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else f"{MINUS}∞"
    if kind == "percent":
        text = f"{100 * value:.1f}{NARROW_SPACE}%"
    elif kind == "score":
        text = f"{value:.3f}"
    elif kind == "count" or 1e4 <= abs(value) < 1e7:
        text = f"{value:,.0f}".replace(",", NARROW_SPACE)
    elif value == 0 or 1e-4 <= abs(value) < 1e4:
        text = f"{value:.4g}"
    else:
        text = f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return text.replace("-", MINUS)


def format_precision(precision: str) -> str:
    """Write a precision as readers call it; ``engine.precision`` says no for float32.

    Example:
        >>> format_precision("no"), format_precision("bf16")
        ('float32', 'bf16')
    """
    return "float32" if precision == "no" else precision


def format_duration(seconds: float) -> str:
    """Write a time span in the two units that matter.

    Example:
        >>> format_duration(4.26), format_duration(75), format_duration(5025)
        ('4.3 s', '1 min 15 s', '1 h 23 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def format_age(seconds: float) -> str:
    """Write how long ago something was, in the one unit that matters.

    Example:
        >>> format_age(3), format_age(200), format_age(9000), format_age(200_000)
        ('3 s ago', '3 min ago', '2 h ago', '2 d ago')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"
