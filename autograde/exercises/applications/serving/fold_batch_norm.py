"""`fold_batch_norm(weight, bias, mean, var, gain, shift, eps=1e-5)`

One layer that does what a linear or convolution layer and the BatchNorm behind it do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import pick, randn

exercise = Draft(
    "fold_batch_norm",
    points=2,
    forbid=["torch.nn.utils.fusion", "torch.nn.utils.fuse_linear_bn_weights", "torch.nn.utils.fuse_conv_bn_weights"],
    fresh=True,
    hints=[
        "Write both formulas after one another: BatchNorm of W x + b. What stands before x, what stands alone?",
        "With s = gain / sqrt(var + eps), one number for each output: the weights become s · W, the bias s · (b - "
        "mean) + shift.",
        "scale = gain * (var + eps).rsqrt(); the new weight is weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), "
        "the new bias (bias - mean) * scale + shift, with 0 in the place of a bias that is None.",
    ],
)


@exercise.cases
def layers(g):
    def some(*shape, bias=True, far=0.0, **kwargs):
        label, out = kwargs.pop("label"), shape[0]
        var = 0.3 + 3 * torch.rand(out, generator=g)
        args = randn(g, *shape), randn(g, out) + far if bias else None, 2 * randn(g, out) + far, var
        return case(*args, 1.5 * randn(g, out), randn(g, out), label=label, **kwargs)

    yield some(4, 3, label="a linear layer")
    yield some(5, 5, label="as many outputs as inputs")
    yield some(3, 4, bias=False, label="no bias")
    yield some(6, 2, 3, label="a convolution in one dimension")
    yield some(2, 4, 3, 5, label="a convolution in two dimensions")
    yield some(3, 2, 2, 2, 2, bias=False, label="a convolution in three dimensions, no bias")
    yield some(4, 3, eps=0.5, label="a large eps")
    yield some(4, 4, far=100.0, label="far from zero")
    yield some(1, 1, label="one number")
    yield some(pick(g, 150, 200), 9, label="many outputs")
    weight, bias, mean, _, gain, shift = some(4, 3, label="").args
    yield case(weight, bias, mean, torch.tensor([1e-6, 0.0, 2.0, 1e-5]), gain, shift, label="variances about eps")


@exercise.oracle
def by_probing(weight, bias, mean, var, gain, shift, eps=1e-5):
    """What torch's two layers give for zeros and for each unit vector, which is all that there is to know of them."""
    flat = weight.flatten(1).double()
    units = torch.eye(flat.shape[1], dtype=torch.float64)
    gain, shift, mean, var = gain.double(), shift.double(), mean.detach().double(), var.detach().double()

    def both(x):
        y = F.linear(x, flat, None if bias is None else bias.double())
        return F.batch_norm(y, mean, var, gain, shift, training=False, eps=eps)

    nothing = both(torch.zeros_like(units[:1]))
    new = (both(units) - nothing).T.reshape(weight.shape)
    return new.to(weight.dtype), nothing[0].to(weight.dtype)


exercise.law("Both results have the dtype of weight")(keeps_dtype)


@exercise.law("The new layer gives what the two layers gave")
def _the_same_layer(out, one, call):
    weight, bias, mean, var, gain, shift = one.args
    if weight.dtype == torch.bfloat16:
        return None
    eps, x = one.kwargs.get("eps", 1e-5), torch.linspace(-1, 1, weight[0].numel(), dtype=weight.dtype)[None]
    y = F.linear(x, weight.flatten(1), bias)
    two = F.batch_norm(y, mean, var, gain, shift, training=False, eps=eps)
    size = 1e-4 * float(1 + two.abs().max() + (gain * (var + eps).rsqrt() * (y.abs() + mean.abs())).abs().max())
    return same(F.linear(x, out[0].flatten(1), out[1]), two, atol=size)


@exercise.law("Every output has a scale of its own")
def _alone(out, one, call):
    weight, bias, *rest = one.args
    first = call(weight[:1], None if bias is None else bias[:1], *(x[:1] for x in rest), **one.kwargs)
    return same(out[0][:1], first[0], atol=1e-3) and same(out[1][:1], first[1], rtol=1e-3, atol=1e-3)


def _scaled(weight, scale):
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


def _fold(scale=None, new_bias=None, new_weight=_scaled, eps=1e-5, cut=False):
    """A wrong folding: the right one with a part replaced."""

    def fold_batch_norm(weight, bias, mean, var, gain, shift, eps=eps):
        bias = torch.zeros_like(mean) if bias is None else bias
        if cut:
            gain, shift = gain.detach(), shift.detach()
        each = scale(gain, var, eps) if scale else gain * (var + eps).rsqrt()
        b = new_bias(bias, mean, each, shift) if new_bias else (bias - mean) * each + shift
        return new_weight(weight, each), b

    return fold_batch_norm


exercise.mistake("the bias is not scaled", hint="The bias passes the BatchNorm as well: (b - mean) · s + shift.")(
    _fold(new_bias=lambda bias, mean, scale, shift: bias - mean * scale + shift)
)

exercise.mistake("the mean is not taken off", hint="BatchNorm subtracts the mean first: it goes into the new bias.")(
    _fold(new_bias=lambda bias, mean, scale, shift: bias * scale + shift)
)

exercise.mistake("the mean is added", hint="BatchNorm subtracts the mean.")(
    _fold(new_bias=lambda bias, mean, scale, shift: (bias + mean) * scale + shift)
)

exercise.mistake("the mean is taken off unscaled", hint="(b - mean) is divided by the deviation, too.")(
    _fold(new_bias=lambda bias, mean, scale, shift: bias * scale - mean + shift)
)

exercise.mistake("the shift is forgotten", hint="BatchNorm adds its shift in the end.")(
    _fold(new_bias=lambda bias, mean, scale, shift: (bias - mean) * scale)
)

exercise.mistake("the shift is scaled, too", hint="The shift is added after the scaling.")(
    _fold(new_bias=lambda bias, mean, scale, shift: (bias - mean + shift) * scale)
)

exercise.mistake("the old bias is dropped", hint="A layer may have a bias already; None stands for zeros.")(
    _fold(new_bias=lambda bias, mean, scale, shift: shift - mean * scale)
)

exercise.mistake("it is divided by the variance, not by its root", hint="gain / sqrt(var + eps).")(
    _fold(lambda gain, var, eps: gain / (var + eps))
)

exercise.mistake("eps is added after the root", hint="sqrt(var + eps), not sqrt(var) + eps.")(
    _fold(lambda gain, var, eps: gain / (var.sqrt() + eps))
)

exercise.mistake("eps is 1e-5, whatever is asked", hint="Is `eps` used?")(
    _fold(scale=lambda gain, var, eps: gain * (var + 1e-5).rsqrt())
)

exercise.mistake("it is multiplied by the root", hint="BatchNorm divides by sqrt(var + eps).")(
    _fold(scale=lambda gain, var, eps: gain * (var + eps).sqrt())
)

exercise.mistake("eps is left out", hint="The docstring has an eps under the root: a variance may be 0.")(
    _fold(lambda gain, var, eps: gain / var.sqrt())
)

exercise.mistake("the gain is forgotten", hint="BatchNorm multiplies by its gain.")(
    _fold(lambda gain, var, eps: (var + eps).rsqrt())
)

exercise.mistake("eps is 1e-3 if nobody says otherwise", hint="The default is 1e-5.")(_fold(eps=1e-3))


def _last_scaled(weight, scale):
    return weight * scale if weight.shape[-1] == len(scale) else _scaled(weight, scale)


exercise.mistake(
    "the scale goes along the last dimension wherever it fits",
    hint="weight is [out, …]: the scale belongs to the first dimension, also where out = in.",
)(_fold(new_weight=_last_scaled))

exercise.mistake("the weights are left as they are", hint="What stands before x is s · W.")(
    _fold(new_weight=lambda weight, scale: weight.clone())
)

exercise.mistake(
    "gain and shift are cut off from the graph",
    hint="No .data, detach() or no_grad(): gain and shift may be trained on through the folded layer.",
)(_fold(cut=True))

right = _fold()


@exercise.mistake("None is given back where there was no bias", hint="A layer without a bias needs one afterwards.")
def no_bias_stays(weight, bias, mean, var, gain, shift, eps=1e-5):
    new = right(weight, bias, mean, var, gain, shift, eps)
    return new[0], None if bias is None else new[1]


@exercise.mistake("the results are float32, whatever weight is", hint="The docstring asks for weight's dtype.")
def always_float32(weight, bias, mean, var, gain, shift, eps=1e-5):
    return tuple(x.float() for x in right(weight, bias, mean, var, gain, shift, eps))


exercise.mistake("eps is the least variance, not added to it", hint="sqrt(var + eps), not sqrt(max(var, eps)).")(
    _fold(lambda gain, var, eps: gain * var.clamp(min=eps).rsqrt())
)


@exercise.alternative
def in_float64(weight, bias, mean, var, gain, shift, eps=1e-5):
    scale = gain.double() / torch.sqrt(var.double() + eps)
    new = torch.einsum("o...,o->o...", weight.double(), scale)
    moved = shift - mean * scale if bias is None else shift + (bias - mean) * scale
    return new.to(weight.dtype), moved.to(weight.dtype)


@exercise.alternative
def output_by_output(weight, bias, mean, var, gain, shift, eps=1e-5):
    rows, offsets = [], []
    for i, row in enumerate(weight):
        scale = gain[i] / (var[i] + eps) ** 0.5
        rows.append(row * scale)
        offsets.append(shift[i] + scale * ((0 if bias is None else bias[i]) - mean[i]))
    return torch.stack(rows), torch.stack(offsets)
