"""Every tolerance of the loss tests, with its reason. All are relative to the largest entry of what is compared."""

import torch

# float64: sums of at most 1e5 terms, rounded in another order.
EXACT = 1e-12
# The same with logits of several hundred: they are known to 1e-13 absolute only, and so is the logarithm of every p.
EXACT_SATURATED = 1e-11
# Several processes: sums over ranks are rounded in another order, and batch normalization divides by small variances.
RANKS = 1e-10
# Lower precision is judged against plain torch in the same precision: it may be this much worse...
NO_WORSE = 1.5
# ... or below this floor, a few units in the last place of the format in which matrices are multiplied.
FLOOR = {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}
# At an aligned optimum the gradient is a small difference of large terms: a hundred times smaller than they are.
FLOOR_ALIGNED = {torch.float32: 2e-4, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def relative_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    """Largest deviation over largest true entry."""
    value, truth = value.detach().double(), truth.detach().double()
    return float((value - truth).abs().max() / truth.abs().max().clamp(min=1e-300))
