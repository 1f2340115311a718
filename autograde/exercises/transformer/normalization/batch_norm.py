"""`batch_norm(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-05)`

Normalize channels over the batch: (x - mean) / sqrt(variance + eps) * weight + bias.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from autograde.exercise import Draft, case, keeps_dtype, same
from autograde.exercises.shared import pick, randn
from autograde.exercises.transformer.normalization.shared import READY_MADE, affine, far

exercise = Draft(
    "batch_norm",
    points=4,
    forbid=READY_MADE,
    dtypes=[torch.float64],
    hints=[
        "For each channel: which numbers of x belong to it? Over those you need a mean and a variance.",
        "dims = [0] for [n, c] and [0, 2] for [n, c, length]. In training use x.mean(dims) and the biased variance; "
        "in evaluation the running ones. Reshape them to [1, c] or [1, c, 1], so that they broadcast.",
        "new_mean = (1 - momentum) * running_mean + momentum * x.mean(dims), and the same for the variance with "
        "x.var(dims), which is unbiased. Build new tensors instead of changing those that came in.",
    ],
)


@exercise.cases
def batch_cases(g):
    def some(*shape, scale=2.0, **options):
        c = shape[1]
        # Channels with means of their own; but not where x is tiny, since float32 would lose what varies.
        x = (randn(g, *shape) + randn(g, c).view(-1, *[1] * (len(shape) - 2))) * scale
        return case(x, randn(g, c), torch.rand(c, generator=g) + 0.5, **options)

    c = pick(g, 3, 5)
    affine = {"weight": randn(g, c), "bias": randn(g, c)}
    yield some(6, c, label="training, vectors")
    yield some(4, c, 5, **affine, label="training, sentences: [batch, channels, length]")
    yield some(5, c, **affine, training=False, label="evaluation")
    yield some(2, 1, label="training, two examples, one channel")
    yield some(1, c, 7, label="training, one sentence")
    yield some(1, c, training=False, label="evaluation, a single example")
    yield some(3, c, 4, training=False, bias=affine["bias"], label="evaluation, sentences, bias only")
    yield some(7, c, momentum=0.3, training=True, label="momentum=0.3")
    yield some(3, c, 2, eps=0.1, weight=affine["weight"], label="eps=0.1, weight only")
    yield some(4, c, scale=1e-3, label="channels that hardly vary")
    yield some(3, c, eps=0.2, training=False, label="evaluation, eps=0.2")
    var = (torch.rand(c, generator=g) + 0.5) * 1e-5
    yield case(randn(g, 4, c) / 100, randn(g, c) / 100, var, training=False, label="evaluation, tiny variances")
    wide = some(4, 5, c)
    x = wide.args[0].transpose(1, 2)
    yield case(x, randn(g, c), torch.rand(c, generator=g) + 0.5, label="training, a transposed view")
    x = far(g, 6, 4, 20)
    yield case(x, randn(g, 4), torch.rand(4, generator=g) + 0.5, label="numbers around 100 that differ by 0.1")
    yield some(300, 7, label="training, 300 examples")


@exercise.oracle
def torch_batch_norm(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    """torch's own in float64. Nothing is trained through running statistics."""
    wide, mean, var, w, b = (v if v is None else v.double() for v in (x, running_mean, running_var, weight, bias))
    y = F.batch_norm(wide, None if training else mean, None if training else var, w, b, training, momentum, eps)
    mean, var = mean.detach().clone(), var.detach().clone()
    F.batch_norm(wide.detach(), mean, var, None, None, training, momentum, eps)
    return tuple(v.to(x.dtype) for v in (y, mean, var))


@exercise.law("In training every channel comes out with mean 0 and mean square 1")
def batch_moments(out, one, call):
    if one.kwargs.get("training") is False:
        return None
    x = one.args[0]
    y = call(*one.args, training=True)[0]
    dims = [0, *range(2, x.ndim)]
    if not same(y.mean(dims), torch.zeros(x.shape[1]), atol=1e-3):
        return f"{one.label}: a channel's mean isn't 0"
    varies = bool((x.var(dims) > 0.05).all())
    return same(y.square().mean(dims), torch.ones(x.shape[1]), 2e-3, 1e-3) if varies else True


@exercise.law("In evaluation an example's answer is its own affair")
def batch_alone(out, one, call):
    if one.kwargs.get("training") is not False:
        return None
    return same(call(one.args[0][:1].clone(), *one.args[1:], **one.kwargs)[0], out[0][:1])


@exercise.law("In evaluation the running statistics stay as they are")
def batch_still(out, one, call):
    if one.kwargs.get("training") is not False:
        return None
    return same(list(out[1:]), list(one.args[1:3]))


@exercise.law("momentum 1 takes over the batch's statistics, momentum 0 none of them")
def batch_momentum(out, one, call):
    x, mean, var = one.args
    dims = [0, *range(2, x.ndim)]
    if x.numel() // x.shape[1] < 2:
        return None
    whole, none = call(x, mean, var, momentum=1.0), call(x, mean, var, momentum=0.0)
    return same([whole[1], none[1], none[2]], [x.mean(dims), mean, var])


exercise.law("All three results have the dtype of x")(keeps_dtype)


def _shaped(v, x):
    return v.view(1, -1, *[1] * (x.ndim - 2))


def batch(
    over=lambda x: [0, *range(2, x.ndim)],
    unbiased=False,
    unbiased_running=True,
    keep=lambda momentum: 1 - momentum,
    gain=None,
    uses_batch=lambda training: training,
    updates=lambda training: training,
    scale=None,
    use_weight=True,
    use_bias=True,
    fixed_eps=None,
):
    """`batch_norm` from its parts. `scale(variance, eps)` is the divisor; `keep` is the share of the old statistics,
    and `gain` that of the new ones, if it isn't what is left."""
    scale = scale or (lambda variance, eps: (variance + eps).sqrt())

    def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
        mean, variance = x.mean(over(x), keepdim=True), x.var(over(x), correction=int(unbiased), keepdim=True)
        used = (mean, variance) if uses_batch(training) else (_shaped(running_mean, x), _shaped(running_var, x))
        y = (x - used[0]) / scale(used[1], eps if fixed_eps is None else fixed_eps)
        y = y * _shaped(weight, x) if use_weight and weight is not None else y
        y = y + _shaped(bias, x) if use_bias and bias is not None else y
        if updates(training):
            share, dims = keep(momentum), [0, *range(2, x.ndim)]
            new = gain(momentum) if gain else 1 - share
            running_mean = share * running_mean + new * x.mean(dims)
            running_var = share * running_var + new * x.var(dims, correction=int(unbiased_running))
        return y, running_mean, running_var

    return batch_norm


exercise.mistake(
    "the batch is normalized by its unbiased variance",
    hint="Two variances: the biased one normalizes the batch, the unbiased one goes into the running variance.",
)(batch(unbiased=True))

exercise.mistake(
    "the running variance takes in the biased variance",
    hint="Two variances: the biased one normalizes the batch, the unbiased one goes into the running variance.",
)(batch(unbiased_running=False))

exercise.mistake(
    "momentum is the share that the old running statistics keep",
    hint="In torch momentum is the weight of the new batch: (1 - momentum) * old + momentum * new.",
)(batch(keep=lambda momentum: momentum))

exercise.mistake(
    "evaluation normalizes by the batch's statistics as well",
    hint="With training=False use running_mean and running_var: then a single example has an answer.",
)(batch(uses_batch=lambda training: True))

exercise.mistake(
    "training normalizes by the running statistics",
    hint="With training=True the batch's own mean and variance are used.",
)(batch(uses_batch=lambda training: False))


@exercise.mistake(
    "training first updates the running statistics and then normalizes by them",
    hint="The running statistics are for later. The batch is normalized by its own.",
)
def batch_normalises_by_running(
    x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5
):
    _, mean, var = batch()(x, running_mean, running_var, training=training, momentum=momentum)
    return batch()(x, mean, var, weight, bias, training=False, eps=eps)


exercise.mistake(
    "the running statistics move in evaluation, too",
    hint="Evaluation must not learn anything: hand them back as they came.",
)(batch(updates=lambda training: True))

exercise.mistake(
    "the running statistics never move", hint="In training: new = (1 - momentum) * old + momentum * batch."
)(batch(updates=lambda training: False))

exercise.mistake(
    "the batch is added to the running statistics, which keep their full weight",
    hint="(1 - momentum) * old + momentum * new: the two weights add up to 1.",
)(batch(keep=lambda momentum: 1.0, gain=lambda momentum: momentum))


@exercise.mistake(
    "the running variance is corrected by the number of examples, not of values",
    hint="A channel has examples times positions values: n / (n - 1) counts these.",
)
def batch_corrects_by_examples(
    x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5
):
    y, mean, var = batch()(x, running_mean, running_var, weight, bias, training, momentum, eps)
    if training:
        biased = x.var([0, *range(2, x.ndim)], correction=0) * len(x) / max(len(x) - 1, 1)
        var = (1 - momentum) * running_var + momentum * biased
    return y, mean, var


@exercise.mistake("the running statistics come back in the wrong order", hint="The result, the mean, the variance.")
def batch_swapped(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    y, mean, var = batch()(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return y, var, mean


@exercise.mistake("the bias is added before the weight is multiplied", hint="normalized * weight + bias.")
def batch_bias_first(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    scaled = bias if None in (weight, bias) else bias * weight
    return batch()(x, running_mean, running_var, weight, scaled, training, momentum, eps)


@exercise.mistake(
    "the variance is the mean of the squares less the square of the mean",
    hint="Far from zero these two are nearly equal, and float32 loses what is between them. Subtract the mean first.",
)
def batch_difference_of_squares(
    x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5
):
    _, mean, var = batch()(x, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return batch()(x, running_mean, running_var, weight, bias, training, momentum, eps)
    dims = [0, *range(2, x.ndim)]
    raw = x.square().mean(dims) - x.mean(dims).square()
    return batch()(x, x.mean(dims), raw, weight, bias, training=False, eps=eps)[0], mean, var


@exercise.mistake(
    "the batch's mean and variance are cut off from the graph",
    hint="In training they depend on x, and autograd has to know it: no detach(), no .data, no torch.no_grad().",
)
def batch_detached(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    _, mean, var = batch()(x, running_mean, running_var, weight, bias, training, momentum, eps)
    dims = [0, *range(2, x.ndim)]
    used = (x.mean(dims), x.var(dims, correction=0)) if training else (running_mean, running_var)
    y, _, _ = batch()(x, *(v.detach() for v in used), weight, bias, training=False, eps=eps)
    return y, mean, var


exercise.mistake("eps is added outside the root", hint="sqrt(variance + eps): inside the root.")(
    batch(scale=lambda variance, eps: variance.sqrt() + eps)
)

exercise.mistake("weight and bias are left out", hint="One weight and one bias a channel, at the end.")(
    batch(use_weight=False, use_bias=False)
)

exercise.mistake("the weight is left out", hint="Multiply each channel by its weight, if there is one.")(
    batch(use_weight=False)
)



@exercise.mistake("the bias is left out where there is no weight", hint="Each for itself: a bias may come alone.")
def batch_bias_with_weight(
    x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5
):
    bias = None if weight is None else bias
    return batch()(x, running_mean, running_var, weight, bias, training, momentum, eps)


exercise.mistake("the bias is left out", hint="Where a bias is given, add it at the end.")(batch(use_bias=False))

exercise.mistake("eps is always 1e-5, whatever is passed", hint="`eps` is a parameter: use it.")(batch(fixed_eps=1e-5))

exercise.mistake("there is no eps", hint="eps is added to the variance, under the root.")(batch(fixed_eps=0.0))



@exercise.mistake("evaluation leaves eps out", hint="(x - mean) / sqrt(variance + eps), whosever statistics these are.")
def batch_eps_in_training(
    x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5
):
    eps = eps if training else 0.0
    return batch()(x, running_mean, running_var, weight, bias, training, momentum, eps)


exercise.mistake("momentum is always 0.1, whatever is passed", hint="`momentum` is a parameter: use it.")(
    batch(keep=lambda momentum: 0.9)
)

exercise.mistake(
    "each position of a sentence has statistics of its own",
    hint="A channel's statistics run over examples *and* positions: dimensions 0 and 2.",
)(batch(over=lambda x: [0]))

exercise.mistake(
    "the channels of an example are normalized, as in LayerNorm",
    hint="BatchNorm looks down a channel, across the examples. The channels are dimension 1.",
)(batch(over=lambda x: [1]))

exercise.mistake(
    "all channels share one mean and one variance",
    hint="One mean and one variance a channel: leave dimension 1 out of the sum.",
)(batch(over=lambda x: list(range(x.ndim))))


@exercise.alternative
def batch_by_channel(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    columns, means, variances = [], running_mean.clone(), running_var.clone()
    for c in range(x.shape[1]):
        values = x[:, c]
        mean, variance = running_mean[c], running_var[c]
        if training:
            mean, variance = values.mean(), (values - values.mean()).pow(2).mean()
            n = values.numel()
            means[c] += momentum * (mean - means[c])
            variances[c] += momentum * (variance * n / (n - 1) - variances[c])
        column = (values - mean) * (variance + eps) ** -0.5
        column = column if weight is None else column * weight[c]
        columns.append(column if bias is None else column + bias[c])
    return [torch.stack(columns, 1), means, variances]


@exercise.alternative
def batch_by_transpose(x, running_mean, running_var, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    rows = x.transpose(1, -1)  # the channels last, so that everything broadcasts by itself
    flat = rows.reshape(-1, rows.shape[-1])
    if training:
        new_mean, new_var = running_mean.lerp(flat.mean(0), momentum), running_var.lerp(flat.var(0), momentum)
        variance, mean = torch.var_mean(flat, 0, correction=0)
    else:
        new_mean, new_var, mean, variance = running_mean, running_var, running_mean, running_var
    y = affine((rows - mean) / torch.sqrt(variance + eps), weight, bias)
    return y.transpose(1, -1), new_mean, new_var
