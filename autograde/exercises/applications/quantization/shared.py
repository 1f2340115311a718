"""What exercises of the chapter quantization share."""

from __future__ import annotations

import torch

ROUNDS = "rounding has no gradient; fake_quantize is there to train through"


def codes(g, low, high, *shape):
    """Whole numbers from low to high, both included."""
    return torch.randint(low, high + 1, shape, generator=g)


def beside(g, whole, most=0.35):
    """Numbers near whole ones, never half-way between two: whoever divides otherwise rounds to the same ones."""
    return whole + most * (2 * torch.rand(whole.shape, generator=g) - 1)


def drawn(g, *shape):
    """A whole number for each place, of either sign and as large as it comes, to be scaled: float32."""
    return torch.randn(shape, generator=g)


def has_dtypes(**wanted):
    """A law that asks for the dtypes of a tuple's tensors: names in order -> dtype, or None for the dtype of x."""

    def holds(out, one, call):
        for (name, dtype), got in zip(wanted.items(), out, strict=True):
            dtype = dtype or one.args[0].dtype
            if not isinstance(got, torch.Tensor) or got.dtype != dtype:
                told = got.dtype if isinstance(got, torch.Tensor) else type(got).__name__
                return f"{name} should be {dtype}, and is {told}"
        return True

    return holds
