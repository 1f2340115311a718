"""What exercises of the chapter gradients share."""

from __future__ import annotations

import math


def fans(shape):
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def std(
    xavier=lambda i, o: 2 / (i + o),
    he=lambda i, o, slope: 2 / ((1 + slope**2) * i),
    fans=fans,
    end=math.sqrt,
    refuse_bias=True,
    refuse_scheme=True,
):
    """An `init_std` with some of its parts exchanged; `xavier` and `he` give variances."""

    def init_std(shape, scheme, slope=0.0):
        if refuse_bias and len(shape) < 2:
            raise ValueError("a weight has at least two dimensions")
        if refuse_scheme and scheme not in ("xavier", "he"):
            raise ValueError(scheme)
        fan_in, fan_out = fans(shape)
        return end(xavier(fan_in, fan_out) if scheme == "xavier" else he(fan_in, fan_out, slope))

    return init_std


right_std = std()
